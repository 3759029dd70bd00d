"""Arrays in the memory of a GPU, taken where they are and handed on where they are.

In: DLPack (torch, CuPy, JAX), or ``__cuda_array_interface__`` (CuPy, Numba, pycuda's ``GPUArray``). Out:
:class:`DeviceArray`, which speaks both. Neither needs a library of the GPU's here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import dlpack
from .errors import Status, TrmError, TrmInputError
from .inputs import as_array
from .refinement import Refinement

_REACHED = (dlpack.CUDA, dlpack.CUDA_MANAGED)  # pinned memory is the host's, which may write it again at any time
LEGACY = 1  # the stream that work goes to where nobody names one; 0 stands for it in CUDA, and for nothing elsewhere
_DTYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 2, np.dtype(np.bool_): 3}  # enum trm_dtype of the C ABI

WRITTEN_OVER = (
    "answer: this refiner has been called again since, and its memory holds something else; "
    "copy the answer or wait() before, or give an `out`"
)
Order = Callable[[int, int], None]
"""Lets what follows on a stream (the second) wait for what is on another one (the first)."""
Placed = tuple[int, int, int, int, int]
"""What the bindings take for memory of a GPU: address, dtype, dimensions, rows, columns."""


def stream_handle(stream: object) -> int:
    """Return a stream of torch, CuPy, pycuda, Numba or cuda.core, or a ``cudaStream_t`` as an int, as that int."""
    of_torch, of_cupy = getattr(getattr(stream, "device", None), "index", None), getattr(stream, "device_id", None)
    for number in (of_torch, of_cupy):
        if isinstance(number, int) and number > 0:
            raise TrmInputError(f"stream: is one of GPU {number}, and the session runs on GPU 0")
    handle: Any = stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        handle = protocol()[1]
    else:
        for attribute in ("cuda_stream", "ptr", "handle"):
            if hasattr(stream, attribute):
                handle = getattr(stream, attribute)
                break
    handle = getattr(handle, "value", handle)  # of ctypes
    if handle is None and handle is not stream:
        return LEGACY  # a null pointer of ctypes
    try:
        handle = int(handle)
    except (TypeError, ValueError):
        raise TrmInputError(f"stream: expected a CUDA stream or its address, got {stream!r}") from None
    if handle < 0:
        raise TrmInputError(f"stream: expected a CUDA stream or its address, got {handle}")
    return handle or LEGACY


def place(
    name: str, value: object, dtype: type, stream: int, order: Order, handshake: bool, write: bool = False
) -> tuple[object, object]:
    """Return what the bindings take for ``value``, and what has to be kept until the GPU has read it.

    Arrays of the host come back as NumPy has them; None as it is. ``stream`` is where the array will be read, or
    written (``write``). With a ``handshake`` DLPack's producers see to it that what they have begun is over by then;
    without one the caller has seen to it, but where an array says itself which stream it comes from.
    """
    if getattr(value, "requires_grad", False):
        if write:
            raise TrmInputError(f"{name}: requires a gradient; give an array that is not part of a graph of gradients")
        value = value.detach()  # type: ignore[attr-defined]
    speaks_dlpack = hasattr(value, "__dlpack_device__")
    described = None  # costs less than a capsule
    if not handshake or not speaks_dlpack:
        described = _description(name, value)
    if write and _is_read_only(described or _description(name, value)):  # which old capsules do not say
        raise TrmInputError(f"{name}: is read-only; give an array that may be written")
    if described is not None:
        borrowed = _described(name, described, value)
        produced = described.get("stream")
        if produced is not None and produced != stream:
            order(produced, stream)
    elif speaks_dlpack and _is_reached(name, value):
        try:
            borrowed = dlpack.take(value.__dlpack__(stream=stream))  # type: ignore[attr-defined]
        except TrmError:  # of a DeviceArray
            raise
        except (AssertionError, BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TrmInputError(f"{name}: cannot be taken by DLPack ({error})") from None
    else:
        return None if value is None else as_array(name, value, dtype), None
    want = np.dtype(dtype)
    if borrowed.dtype != want:
        raise TrmInputError(f"{name}: expected dtype {want}, got {borrowed.dtype}; convert it")
    if len(borrowed.shape) > 2:
        raise TrmInputError(f"{name}: expected one or two dimensions, got shape {list(borrowed.shape)}")
    if not dlpack.is_dense(borrowed.shape, borrowed.strides):
        raise TrmInputError(f"{name}: expected a dense, row-major array; make it contiguous")
    rows, columns = (*borrowed.shape, 0, 0)[:2]
    return (borrowed.address, _DTYPES[want], len(borrowed.shape), rows, columns), borrowed.owner


def _description(name: str, value: object) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
    except TrmError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:  # torch: of a dtype that NumPy does not have
        raise TrmInputError(f"{name}: has no __cuda_array_interface__ that can be read ({error!r})") from None
    return found


def _is_read_only(described: dict[str, Any] | None) -> bool:
    data = None if described is None else described.get("data")
    return isinstance(data, (tuple, list)) and len(data) == 2 and bool(data[1])


def _is_reached(name: str, value: Any) -> bool:
    try:
        return int(value.__dlpack_device__()[0]) in _REACHED
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TrmInputError(f"{name}: cannot be taken by DLPack ({error})") from None


def _described(name: str, described: dict[str, Any], owner: object) -> dlpack.Borrowed:
    try:
        dtype, shape = np.dtype(described["typestr"]), tuple(int(size) for size in described["shape"])
        (address, _), given = described["data"], described.get("strides")
        bytes_apart = None if given is None else tuple(int(stride) for stride in given)
        address = int(address or 0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TrmInputError(f"{name}: its __cuda_array_interface__ cannot be read ({error!r})") from None
    if described.get("mask") is not None:
        raise TrmInputError(f"{name}: is masked; give an array without a mask")
    strides = bytes_apart
    if bytes_apart is not None and dtype.itemsize:
        strides = tuple(stride // dtype.itemsize if stride % dtype.itemsize == 0 else -1 for stride in bytes_apart)
    return dlpack.Borrowed(address, shape, strides, dtype, (dlpack.CUDA, 0), owner)


def out_address(out: object, shape: tuple[int, int], stream: int, order: Order, handshake: bool) -> tuple[int, object]:
    """Return the address of the caller's ``out`` (0: None), float32 of that shape on the GPU, and what keeps it."""
    if out is None:
        return 0, None
    placed, owner = place("out", out, np.float32, stream, order, handshake, write=True)
    if not isinstance(placed, tuple):
        raise TrmInputError(f"out: expected an array on the GPU, got {type(out).__name__}")
    if placed[2:] != (2, *shape):
        got = list(placed[3 : 3 + placed[2]])
        raise TrmInputError(f"out: expected shape {list(shape)}, got {got}")
    return placed[0], owner


class DeviceArray:
    """A float32 array in the memory of the GPU, for anything that speaks DLPack or ``__cuda_array_interface__``.

    It is a refiner's own memory: the refiner's next call writes over it, and from then on using it is an error.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        stream: int,
        order: Order,
        is_current: Callable[[], bool],
        keeps: object = None,
    ) -> None:
        """``is_current`` says whether the memory still holds the array; ``keeps`` owns the stream and the memory."""
        self.shape, self._keeps = shape, keeps
        self._address, self._stream, self._order, self.is_current = address, stream, order, is_current

    def _check(self) -> None:
        if not self.is_current():
            raise TrmInputError(WRITTEN_OVER)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. Work on the default stream that follows waits for the array; others have to ask ``stream``."""
        self._check()
        if self._stream != LEGACY:
            self._order(self._stream, LEGACY)
        interface = {"shape": self.shape, "typestr": self.dtype.str, "data": (self._address, False), "strides": None}
        return interface | {"version": 3, "stream": self._stream}

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the kind and number of the device."""
        return dlpack.CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a capsule; work on ``stream`` (None: the default stream, -1: none) waits for the array."""
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != self.__dlpack_device__()):
            raise BufferError("a DeviceArray is handed on where it is; copy it afterwards")
        self._check()
        if stream != -1 and (stream or LEGACY) != self._stream:
            self._order(self._stream, stream or LEGACY)
        return dlpack.give(self._address, self.shape, self.dtype, self.__dlpack_device__(), self)

    def __repr__(self) -> str:
        return f"<trm_edge.DeviceArray {list(self.shape)} float32>"


class DeviceRefinement:
    """An answer on the GPU that is there when its stream gets there; see :meth:`trm_edge.Refiner.refine_on_device`.

    ``status``, ``steps_run`` and ``confidence`` wait for it.

    Attributes
    ----------
    y
        The actions ``[T, dof]``, inside the limits: a :class:`DeviceArray`, or the ``out`` that was given.
    """

    def __init__(self, y: object, wait: Callable[[], Refinement | None], keeps: object) -> None:
        """``wait`` gives the answer on the host, or None where the refiner has been called again since.

        ``keeps`` are the inputs.
        """
        self.y: Any = y
        self._wait, self._keeps = wait, keeps
        self._found: Refinement | None = None

    def wait(self) -> Refinement:
        """Wait for the GPU and return the answer as :meth:`trm_edge.Refiner.refine` does, in arrays of the host.

        ``duration_us`` is the time of the wait. Of a call that was captured into a graph this is what the last replay
        left. Once the refiner has been called again it returns what was found before; where nothing was it raises
        :class:`~trm_edge.TrmInputError`. :class:`~trm_edge.TrmDeviceError`: the GPU failed.
        """
        found = self._wait() or self._found
        if found is None:
            raise TrmInputError(WRITTEN_OVER)
        self._found = found
        return found

    @property
    def status(self) -> Status:
        """As :attr:`Refinement.status`, of the last :meth:`wait`."""
        return (self._found or self.wait()).status

    @property
    def steps_run(self) -> int:
        """As :attr:`Refinement.steps_run`, of the last :meth:`wait`."""
        return (self._found or self.wait()).steps_run

    @property
    def confidence(self) -> float:
        """As :attr:`Refinement.confidence`, of the last :meth:`wait`."""
        return (self._found or self.wait()).confidence

    def __repr__(self) -> str:
        return f"<trm_edge.DeviceRefinement {'done' if self._found is not None else 'under way'}, y {self.y!r}>"
