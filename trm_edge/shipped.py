"""The files that ship with the package."""

from __future__ import annotations

from pathlib import Path

from .errors import TrmInputError

_DATA = Path(__file__).parent / "data"


def example(name: str = "example.trm") -> Path:
    """Return the path of a file that ships with the package.

    Parameters
    ----------
    name
        ``example.trm``, an actions head of random weights; four trained heads: ``metaworld.trm`` (actions, with
        recorded inputs in ``metaworld.npz``), ``sudoku.trm`` (tokens), ``tool_calls.trm`` (slots, for anybody's tools)
        and ``home_assistant.trm`` (slots, for the tools in ``home_assistant.json``).

    Raises
    ------
    TrmInputError
        Where there is no such file.
    """
    path = _DATA / name
    if path.parent != _DATA or not path.is_file():
        known = sorted(path.name for path in _DATA.iterdir() if path.is_file())
        raise TrmInputError(f"name: expected one of {', '.join(known)}, got {name!r}")
    return path
