"""DLPack for memory that NumPy does not take, that of a GPU. Capsules are made in ``csrc/python/dlpack.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._native import core

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
"""Types of devices."""

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}


class Borrowed(NamedTuple):
    """An array that somebody else owns: it lives as long as ``owner``."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # in elements; None: dense
    dtype: np.dtype[Any]
    device: tuple[int, int]  # type and number
    owner: object


def take(capsule: object) -> Borrowed:
    """Take the array out of a fresh capsule; raises BufferError where it is none, or of a dtype that NumPy lacks."""
    taken = core.take_dlpack(capsule)
    if taken is None:
        raise BufferError("expected a fresh DLPack capsule of a version before 1")
    address, shape, strides, code, bits, lanes, device_type, device_id, owner = taken
    kind = _KINDS.get(code)
    if kind is None or lanes != 1 or bits % 8:
        raise BufferError(f"a DLPack dtype of code {code}, {bits} bits and {lanes} lanes")
    dtype = np.dtype(bool) if kind == "b" else np.dtype(f"{kind}{bits // 8}")
    return Borrowed(address, shape, strides, dtype, (device_type, device_id), owner)


def give(address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object) -> object:
    """Return a capsule of a dense array, which keeps ``owner`` alive."""
    return core.give_dlpack(address, shape, _CODES[dtype.kind], 8 * dtype.itemsize, *device, owner)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    """Return whether an array is row-major without gaps; ``strides`` count elements."""
    if strides is None or 0 in shape:
        return True
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
