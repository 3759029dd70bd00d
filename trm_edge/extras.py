"""Optional packages, imported where they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .errors import TrmUnsupportedError


def import_extra(name: str, purpose: str, extra: str) -> Any:
    """Import the package ``name``, or raise :class:`TrmUnsupportedError` that names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrmUnsupportedError(
            f"{purpose} needs the Python package {name}, which cannot be imported ({error}); "
            f"install it with: pip install 'trm-edge[{extra}]' (in a clone: pip install -e '.[{extra}]')"
        ) from error


def lazy_attribute(package: str, homes: Mapping[str, str], name: str) -> Any:
    """Return attribute ``name`` of ``package`` from the module that ``homes`` names, imported now.

    For a package's ``__getattr__``, so that the command line does not wait for what it does not use.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{homes[name]}", package), name)
