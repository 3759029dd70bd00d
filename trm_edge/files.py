"""Files that are whole or absent: written beside their place, flushed, then renamed."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from .errors import TrmIOError


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of ``path`` or raise :class:`TrmIOError`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise TrmIOError(f"{os.fspath(path)}: cannot be read: not a regular file")
        return Path(path).read_bytes()
    except OSError as error:
        raise TrmIOError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part of either."""
    target = Path(path)
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise TrmIOError(f"{target}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
