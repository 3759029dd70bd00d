"""Context of several sources, brought to the one array ``x`` that a head takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .errors import TrmInputError
from .inputs import Array, as_array


def stack_context(sources: Mapping[str, object]) -> Array:
    """Join rows of different widths: zero-padded to the widest, with a one-hot origin appended.

    Training and inference must give the same names in the same order, with the same widths; a source that has nothing
    to say gives an array of 0 rows.

    Parameters
    ----------
    sources
        Arrays ``[..., rows, width]`` float32 by name; leading dimensions, as ``N`` for training data, are the same in
        all. One vector is a row: ``proprioception[None]``.

    Returns
    -------
    array
        ``x [..., P, widest + len(sources)]`` float32, P being the sum of all rows, in the order of ``sources``.

    Raises
    ------
    TrmInputError
        An array has another dtype, fewer than two dimensions, or other leading dimensions than the first.

    Examples
    --------
    >>> x = stack_context({"scene": np.ones((2, 3), np.float32), "joints": np.ones((1, 2), np.float32)})
    >>> x.shape
    (3, 5)
    >>> x[-1].tolist()
    [1.0, 1.0, 0.0, 0.0, 1.0]
    """
    if not isinstance(sources, Mapping):
        raise TrmInputError(f"stack_context: expected arrays by name, got {type(sources).__name__}")
    if not sources:
        raise TrmInputError("stack_context: expected at least one source")
    arrays = {name: as_array(name, value, np.float32) for name, value in sources.items()}
    lead = next(iter(arrays.values())).shape[:-2]
    for name, array in arrays.items():
        if array.ndim < 2:
            raise TrmInputError(
                f"{name}: expected [..., rows, width], got {list(array.shape)}; a vector is one row: v[None]"
            )
        if array.shape[:-2] != lead:
            raise TrmInputError(f"{name}: expected leading dimensions {list(lead)}, got {list(array.shape[:-2])}")
    widest = max(array.shape[-1] for array in arrays.values())
    x = np.zeros((*lead, sum(array.shape[-2] for array in arrays.values()), widest + len(arrays)), np.float32)
    row = 0
    for origin, array in enumerate(arrays.values()):
        rows = x[..., row : row + array.shape[-2], :]
        rows[..., : array.shape[-1]] = array
        rows[..., widest + origin] = 1
        row += array.shape[-2]
    return x
