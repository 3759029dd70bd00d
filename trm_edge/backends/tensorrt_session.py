"""The calls into TensorRT and CUDA of backend ``tensorrt``: a GPU, an engine on it, and sessions of that engine.

**Nothing in this file has run.** It was written against the interfaces of TensorRT-RTX 1.7 and pycuda 2026.1, on
machines that have neither a GPU of TensorRT-RTX nor TensorRT. What decides something (profiles, shapes, what may be
loaded) is in :mod:`trm_edge.engine`, which needs no GPU and is tested.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..engine import EngineManifest, call_sizes, choose_profile, shapes, stored_matrix
from ..errors import TrmBundleError, TrmDeviceError, TrmUnsupportedError
from ..extras import import_extra
from ..graph import Signature, input_signature, output_signature
from ..inputs import Array

_RETAINING = threading.Lock()  # of two threads that came first, both would retain the context, and one release it
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: a capture of it leaves the default stream to other threads


class Gpu:
    """The first GPU that this process may see; ``with`` makes its primary context current for a call."""

    def __init__(self) -> None:
        self.driver = import_extra("pycuda.driver", "backend tensorrt", "tensorrt-runner")
        try:
            self.driver.init()
            self._device = self.driver.Device(0)
            major, minor = self._device.compute_capability()
        except self.driver.Error as error:
            raise TrmUnsupportedError(f"backend tensorrt needs an NVIDIA GPU: {error}") from None
        self.name = f"sm{major}{minor}"

    def __enter__(self) -> Gpu:
        try:
            with _RETAINING:
                context = _primary_context(self._device)
            context.push()
        except self.driver.Error as error:
            raise TrmDeviceError(f"the GPU failed: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.Context.pop()
        if isinstance(error, self.driver.Error):
            raise TrmDeviceError(f"the GPU failed: {error}") from error


@functools.cache
def _primary_context(device: Any) -> Any:
    """Retain it once and for good: where pycuda releases one that is not current, it stays so for the thread."""
    return device.retain_primary_context()


class Engine:
    """A deserialised engine; give it only bytes that fit their manifest. Shared by sessions."""

    def __init__(self, library: Any, gpu: Gpu, manifest: EngineManifest, data: bytes, bundle: Bundle | None) -> None:
        self.gpu, self.manifest = gpu, manifest
        self._log = _make_log(library)  # outlives the runtime and all that it makes
        with gpu:
            self._runtime = library.Runtime(self._log)
            self.engine = self._runtime.deserialize_cuda_engine(data)
            if self.engine is None:
                raise TrmBundleError(f"engine: {library.__name__} cannot read it: {self._log.reason()}")
            graph = manifest.graph
            self.inputs = input_signature(graph.spec, graph.loop)
            self.outputs = output_signature(graph.spec, graph.loop, graph.steps)
            self._check_bindings(library)
            if bundle is not None:
                self._refit(library, bundle)

    def _check_bindings(self, library: Any) -> None:
        engine, want = self.engine, self.inputs | self.outputs
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if names != set(want):
            raise TrmBundleError(f"engine: expected the tensors {', '.join(want)}, got {', '.join(sorted(names))}")
        for name, (dtype, dims) in want.items():
            got, shape = np.dtype(library.nptype(engine.get_tensor_dtype(name))), tuple(engine.get_tensor_shape(name))
            fits = len(shape) == len(dims) and all(
                isinstance(d, str) or d == g for d, g in zip(dims, shape, strict=True)
            )
            if got != dtype or not fits:
                raise TrmBundleError(f"engine: {name}: expected {dtype} {list(dims)}, got {got} {list(shape)}")

    def _refit(self, library: Any, bundle: Bundle) -> None:
        """Put the block matrices back that the engine was stripped of."""
        refitter = library.Refitter(self.engine, self._log)
        names = refitter.get_all_weights()
        matrices = [stored_matrix(bundle, name) for name in names]  # alive until the engine has them
        for name, matrix in zip(names, matrices, strict=True):
            kind = library.bfloat16 if matrix.dtype == np.uint16 else _type_of(library, matrix)
            if not refitter.set_named_weights(name, library.Weights(kind, matrix.ctypes.data, matrix.size)):
                raise TrmBundleError(f"engine: does not accept the weight {name} of its bundle: {self._log.reason()}")
        if refitter.get_missing_weights() or not refitter.refit_cuda_engine():
            raise TrmBundleError(f"engine: cannot be refitted from its bundle: {self._log.reason()}")


class Session:
    """One execution context with its stream, buffers and a captured CUDA graph; for one caller at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._gpu = engine, engine.gpu
        self._context: Any = None
        self._stream: Any = None
        self._buffers: dict[str, _Buffer] = {}
        self._prepared: object = None  # what profile and shapes are set to
        self._calls = 0  # since then
        self._graph: _Graph | None = None
        with self._gpu:
            self._context = engine.engine.create_execution_context()
            if self._context is None:
                raise TrmDeviceError("engine: no execution context; is the GPU's memory full?")
            self._stream = self._gpu.driver.Stream(_NON_BLOCKING)

    def __del__(self) -> None:
        """Free all with the GPU's context current: else pycuda does so only in the thread that retained it."""
        with self._gpu:
            self._graph = None
            self._buffers.clear()
            self._context = None
            self._stream = None

    def run(self, feeds: Mapping[str, Array], steps: int) -> dict[str, Array]:
        """Run one call and return the outputs by name; the arrays are the caller's."""
        graph = self._engine.manifest.graph
        sizes = call_sizes(graph.spec, feeds)
        profile = choose_profile(self._engine.manifest.profiles, sizes)
        sizes["K"] = graph.steps or steps
        key = (profile, *sizes.values())
        with self._gpu:
            if key != self._prepared:
                self._prepared, self._calls = None, 0
                self._graph = None  # which is of the context as it was, and of nothing else
                self._prepare(profile, sizes, feeds)
                self._prepared = key
            for name, array in feeds.items():
                self._buffers[name].send(array, self._stream)
            self._launch()
            outputs = shapes(self._engine.outputs, sizes)
            fetched = {name: self._buffers[name].fetch(shape, self._stream) for name, shape in outputs.items()}
            self._stream.synchronize()
            return {name: values.copy() for name, values in fetched.items()}

    def _prepare(self, profile: int, sizes: Mapping[str, int], feeds: Mapping[str, Array]) -> None:
        """Set profile, shapes and addresses of a call that differs from the one before."""
        context = self._context
        if context.active_optimization_profile != profile:
            _require(context.set_optimization_profile_async(profile, self._stream.handle), "profile")
        signature: Signature = self._engine.inputs | self._engine.outputs
        for name, shape in shapes(signature, sizes).items():
            self._reserve(name, shape, signature[name][0])
            if name in feeds and shape:
                _require(context.set_input_shape(name, shape), f"shape {shape} of {name}")
            _require(context.set_tensor_address(name, self._buffers[name].address), f"address of {name}")
        if "steps" in feeds:  # read from host memory while shapes are worked out
            self._buffers["steps"].put(feeds["steps"])

    def _reserve(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Have a buffer that is large enough."""
        nbytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        if name not in self._buffers or self._buffers[name].nbytes < nbytes:
            self._buffers[name] = _Buffer(self._gpu.driver, nbytes, dtype, on_host=name == "steps")

    def _launch(self) -> None:
        """Run by a graph, from the second call in a row of these shapes on: the first does what is done once."""
        if self._calls == 1:
            self._graph = self._capture()
        self._calls += 1
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch()

    def _capture(self) -> _Graph | None:
        """Return a CUDA graph of one execution where the context can be captured, else None: run without one."""
        ask = getattr(self._context, "is_stream_capturable", None)
        unrolled = self._engine.manifest.graph.loop == "unrolled"
        # Before that question existed: a loop waits for its trip count on the host, and only that.
        if not (ask(self._stream.handle) if ask else unrolled):
            return None
        return _Graph.capture(self._stream, self._enqueue)

    def _enqueue(self) -> None:
        _require(self._context.execute_async_v3(self._stream.handle), "execution")


class _Buffer:
    """Memory of one binding on the GPU, with a page-locked twin; on the host alone for a trip count."""

    def __init__(self, driver: Any, nbytes: int, dtype: np.dtype[Any], *, on_host: bool) -> None:
        self._driver, self.nbytes, self._dtype = driver, nbytes, dtype
        self._host = driver.pagelocked_empty(nbytes, np.uint8)
        self._device = None if on_host else driver.mem_alloc(nbytes)

    @property
    def address(self) -> int:
        """Where TensorRT reads or writes."""
        return int(self._host.ctypes.data) if self._device is None else int(self._device)

    def put(self, array: Array) -> None:
        """Copy an array into the host's memory."""
        self._host[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def send(self, array: Array, stream: Any) -> None:
        """Copy an array to where TensorRT reads it."""
        self.put(array)
        if self._device is not None and array.nbytes:
            self._driver.memcpy_htod_async(self._device, self._host[: array.nbytes], stream)

    def fetch(self, shape: tuple[int, ...], stream: Any) -> Array:
        """Begin to copy what TensorRT wrote, and return where it will be once ``stream`` is done."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        host = self._host[:nbytes]
        if nbytes:
            self._driver.memcpy_dtoh_async(host, self._device, stream)
        values: Array = host.view(self._dtype).reshape(shape)
        return values


class _Graph:
    """An executable CUDA graph; by the driver's C functions, as pycuda has none for graphs."""

    def __init__(self, driver: ctypes.CDLL, executable: ctypes.c_void_p, stream: Any) -> None:
        self._driver, self._executable, self._stream = driver, executable, stream

    @classmethod
    def capture(cls, stream: Any, enqueue: Any) -> _Graph | None:
        """Record what ``enqueue`` puts on ``stream``; None where that cannot be captured."""
        driver = ctypes.CDLL("libcuda.so.1")
        handle, graph, executable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
        thread_local = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads go on as they are
        if driver.cuStreamBeginCapture_v2(handle, ctypes.c_int(thread_local)) != 0:
            return None
        recorded = False
        try:
            try:
                enqueue()
                recorded = True
            except TrmDeviceError:
                pass
            finally:  # whatever happened: nothing runs on a stream that still captures
                recorded &= driver.cuStreamEndCapture(handle, ctypes.byref(graph)) == 0
            if not (recorded and graph.value):
                return None
            made = driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)) == 0
            return cls(driver, executable, stream) if made else None
        finally:
            if graph.value:
                driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Run it on its stream."""
        status = self._driver.cuGraphLaunch(self._executable, ctypes.c_void_p(self._stream.handle))
        if status != 0:
            raise TrmDeviceError(f"CUDA error {status}: a captured engine did not start")

    def __del__(self) -> None:
        self._driver.cuGraphExecDestroy(self._executable)


def _make_log(library: Any) -> Any:
    class Log(library.ILogger):  # type: ignore[misc]
        """Keeps the last errors; a library does not print."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self._errors = [*self._errors[-3:], message]

        def reason(self) -> str:
            return "; ".join(self._errors)[:600] or "it does not say why"

    return Log()


def _type_of(library: Any, matrix: Array) -> Any:
    return {"float32": library.float32, "float16": library.float16, "int8": library.int8}[matrix.dtype.name]


def _require(done: bool, what: str) -> None:
    if not done:
        raise TrmDeviceError(f"TensorRT refused the {what}")
