"""Optional packages, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import TrmUnsupportedError


def import_extra(name: str, purpose: str, extra: str) -> Any:
    """Import the package ``name``, or raise :class:`TrmUnsupportedError` that names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrmUnsupportedError(
            f"{purpose} needs the Python package {name}, which cannot be imported ({error}); "
            f"install it with: pip install 'trm-edge[{extra}]'"
        ) from error
