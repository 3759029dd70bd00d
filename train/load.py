"""Training examples from files, checked."""

from __future__ import annotations

from pathlib import Path

from trm_edge.errors import TrmInputError
from trm_edge.recorded import IGNORED, is_packed, read_arrays
from trm_edge.spec import TrmSpec

from .data import Examples, check_arrays
from .packed import check_packed


def load_examples(path: Path, spec: TrmSpec) -> Examples:
    """Read ``path`` and check it, or raise :class:`TrmInputError` that names file, array and example."""
    arrays = read_arrays(path)
    try:
        packed = spec.answer == "slots" and is_packed(arrays)
        examples = check_packed(spec, arrays) if packed else Examples(spec, check_arrays(spec, arrays))
        if not examples.asking:
            raise TrmInputError(f"target: expected something that is asked, got {IGNORED[spec.answer]} everywhere")
    except TrmInputError as error:
        raise TrmInputError(f"{path}: {error}") from None
    return examples
