"""What all pictures share: matplotlib without a screen, loaded when needed, and a file that is whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from .errors import TrmInputError, TrmIOError
from .extras import import_extra
from .files import check_folder, write_atomically


def pyplot(purpose: str, extra: str) -> Any:
    """Return ``matplotlib.pyplot``, or raise :class:`TrmUnsupportedError` that names the extra to install."""
    import_extra("matplotlib", purpose, extra).use("Agg")
    return import_extra("matplotlib.pyplot", purpose, extra)


def ticker(purpose: str, extra: str) -> Any:
    """Return ``matplotlib.ticker``: where an axis has ticks, and how they are written."""
    return import_extra("matplotlib.ticker", purpose, extra)


def check_picture(path: Path, purpose: str, extra: str) -> None:
    """Raise where :func:`save` could not write ``path``, so that it is known before the work."""
    kinds = import_extra("matplotlib.backend_bases", purpose, extra).FigureCanvasBase.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in kinds:
        raise TrmInputError(f"{path}: expected a picture's name, which ends in .png, .svg or .pdf, got {path.suffix!r}")
    check_folder(path)


def save(figure: Any, path: Path, dpi: int) -> None:
    """Write ``figure`` to ``path``, whose suffix says which kind of picture, and close it; raises TrmIOError."""
    stream = io.BytesIO()
    try:
        figure.savefig(stream, format=path.suffix[1:] or "png", dpi=dpi)
    except ValueError as error:  # a suffix that names no picture
        raise TrmIOError(f"{path}: cannot be written: {error}") from None
    finally:
        import_extra("matplotlib.pyplot", "a picture", "demo").close(figure)
    write_atomically(path, stream.getvalue())
