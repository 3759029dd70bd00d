"""DLPack capsules, in and out, for memory that NumPy does not take: that of a GPU.

The structs are those of the specification (https://dmlc.github.io/dlpack, versions before 1, which all producers still
make where nothing newer is asked for).
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""Types of devices that a GPU's program reads where they are, but for the first."""

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter)]


# A capsule keeps the address of its name.
_NAME, _USED = ctypes.c_char_p(b"dltensor"), ctypes.c_char_p(b"used_dltensor")
_api = ctypes.pythonapi
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(("PyCapsule_New", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
# In a destructor the capsule is not to be counted as referred to again: by its address.
_still_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


class _Owner:
    """Frees what a capsule held when nobody needs it any more."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(ctypes.addressof(self._managed.contents))


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
    if not _is_valid(capsule, _NAME):
        raise BufferError("expected a fresh DLPack capsule of a version before 1")
    managed = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_ManagedTensor))
    _rename(capsule, _USED)
    owner = _Owner(managed)
    tensor = managed.contents.tensor
    kind, lanes = _KINDS.get(tensor.dtype.code), tensor.dtype.lanes
    if kind is None or lanes != 1 or tensor.dtype.bits % 8:
        raise BufferError(f"a DLPack dtype of code {tensor.dtype.code}, {tensor.dtype.bits} bits and {lanes} lanes")
    dtype = np.dtype(bool) if kind == "b" else np.dtype(f"{kind}{tensor.dtype.bits // 8}")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    address = (tensor.data or 0) + tensor.byte_offset
    return Borrowed(address, shape, strides, dtype, (tensor.device.type, tensor.device.id), owner)


_given: dict[int, tuple[Any, ...]] = {}  # what capsules that are out keep alive, by the address of their struct


def _delete(address: int) -> None:
    _given.pop(address, None)


def _discard(capsule: int) -> None:
    if _still_valid(capsule, _NAME):  # nobody has taken it
        _given.pop(_pointer_of(capsule, _NAME), None)


_deleter, _destructor = _Deleter(_delete), _Destructor(_discard)


def give(address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object) -> object:
    """Return a capsule of a dense array, which keeps ``owner`` alive."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    managed = _ManagedTensor()
    managed.tensor.data = address
    managed.tensor.device = _Device(*device)
    managed.tensor.ndim = len(shape)
    managed.tensor.dtype = _DataType(_CODES[dtype.kind], 8 * dtype.itemsize, 1)
    managed.tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _deleter
    at = ctypes.addressof(managed)
    _given[at] = (managed, sizes, owner)
    return _new(at, _NAME, _destructor)


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
