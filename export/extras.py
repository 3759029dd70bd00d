"""Optional packages of this folder, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from trm_edge.errors import TrmUnsupportedError


def import_extra(name: str, purpose: str) -> Any:
    """Import package ``name`` or raise :class:`TrmUnsupportedError` that names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrmUnsupportedError(
            f"{purpose} needs the Python package {name}, which cannot be imported ({error}); "
            "install it with: pip install 'trm-edge[export]'"
        ) from error
