"""The SDK's front: ``load``, ``Refiner``, ``refine``."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from .backends import Backend, Options, Source, open_backend
from .errors import TrmBusyError, TrmInputError, TrmUnsupportedError
from .files import StrPath
from .inputs import check_flag
from .limits import Limits
from .on_device import DeviceRefinement
from .refinement import Refinement
from .spec import TrmSpec

_CACHED_MODELS = 4  # models that trm_edge.refine keeps open


class Refiner:
    """A model that is shared, with a session of its own: one call at a time.

    A call from a second thread while one is under way raises :class:`~trm_edge.TrmBusyError`; give each thread a
    :meth:`clone`. A refiner may be pickled (it is loaded again from its path or bytes; a recursion under way is not
    kept) and used in a forked child (which gets a fresh session; not of backend ``cuda``, as CUDA does not work in a
    child of a process that has used it).
    """

    def __init__(self, backend: Backend, source: Source, options: tuple[str, Options]) -> None:
        self._backend = backend
        self._source = source
        self._options = options
        self._forked = False
        _LIVE.add(self)

    def _session(self) -> Backend:
        if self._forked:
            self._backend, self._forked = self._backend.clone(), False
        return self._backend

    def _anew(self) -> _Anew:
        return _Anew(self._session())

    @property
    def spec(self) -> TrmSpec:
        """Sizes and choices of the model."""
        return self._backend.spec

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def precision(self) -> str:
        """Arithmetic in use, e.g. ``fp32``."""
        return self._backend.precision

    @property
    def isa(self) -> str | None:
        """Instruction set of the fused engine's kernels, the GPU and way of ``cuda``; None for other backends."""
        return self._backend.isa

    @property
    def limits(self) -> Limits | None:
        """Limits of the actions, a copy; None for heads of other kinds.

        ``project_limits(y0, **refiner.limits._asdict(), last_action=q)`` puts a draft inside them without the head.
        """
        own = self._backend.limits
        return None if own is None else Limits(*(one.copy() for one in own))

    @property
    def most_steps(self) -> int:
        """The largest ``steps`` that :meth:`refine` takes: 1024, or those that an unrolled graph was exported with."""
        return self._backend.most_steps

    def provenance(self, name: str) -> str | None:
        """Return what a bundle says under ``provenance.<name>``, e.g. ``source``; None where it says nothing."""
        return self._backend.provenance(name)

    def refine(
        self,
        x: object,
        y0: object = None,
        steps: int = 4,
        *,
        trajectory: bool = False,
        halt: float | None = None,
        last_action: object = None,
        features: object = None,
        slots: object = None,
        candidates: object = None,
        mask: object = None,
        puzzle_id: int = 0,
    ) -> Refinement:
        """Refine the draft ``y0`` over ``steps`` steps, given context ``x``.

        Arrays are NumPy arrays or anything with the buffer protocol or DLPack on the CPU; they are not copied where
        they are dense and of the dtype below, and never converted from another dtype. Lists of numbers are taken too.
        Floats are raw values: the bundle's normalisation is applied inside. Arrays must not change during the call.

        Parameters
        ----------
        x
            actions, slots: context ``[P, Dx]`` float32, ``P <= max_context`` (None: P = 0); tokens: ``[S]`` int32.
        y0
            actions: draft ``[T, dof]`` float32 (None where the spec's draft is optional: the mean action); slots:
            ``[S]`` int32 candidate indices, -1 for none (None: all -1); tokens: None.
        steps
            0 to 1024, tokens: from 1; 0 returns the projected draft. ``provenance("trained_steps")`` says for how many
            the head was trained.
        trajectory
            Return every step's answer, and logits for slots and tokens.
        halt
            Confidence in 0..1: stop after the first step that reaches it.
        last_action
            actions: ``[dof]`` float32, the action before the chunk, from which velocity limits count.
        features
            actions: ``[T, Df]`` float32 for heads that have features, the same in every step. A head whose
            ``provenance("features_fn")`` is not None was trained with fresh ones: use :meth:`begin` and :meth:`step`.
        slots, candidates, mask
            slots: ``[S, Ds]`` float32, ``[M, Dc]`` float32, ``[S, M]`` bool.
        puzzle_id
            tokens: row of the puzzle embedding.

        Returns
        -------
        Refinement

        Raises
        ------
        TrmInputError
            An argument is wrong; nothing was computed.
        TrmBusyError
            Another thread is inside this refiner.
        """
        arrays = (x, y0, features, slots, candidates, mask, last_action)
        with self._anew() as session:
            return session.refine(arrays, puzzle_id, steps, halt, check_flag("trajectory", trajectory))

    def refine_on_device(
        self,
        x: object,
        y0: object = None,
        steps: int = 4,
        *,
        trajectory: bool = False,
        halt: float | None = None,
        last_action: object = None,
        features: object = None,
        out: object = None,
        stream: object = None,
    ) -> DeviceRefinement:
        """Refine on the GPU without waiting, with arrays that stay there: for action heads of backend ``cuda``.

        Parameters are those of :meth:`refine`, but that arrays may lie in the memory of the GPU, with DLPack (torch,
        CuPy, JAX) or ``__cuda_array_interface__`` (CuPy, Numba, pycuda); arrays of the host are copied, once this
        refiner's call before is over. Values are not checked beforehand: where one of ``y0`` or ``last_action`` is not
        finite the status is NONFINITE, and the answer the draft, with the mean action in place of what is not finite
        there.

        Parameters
        ----------
        steps
            0 to 16.
        out
            ``[T, dof]`` float32 on the GPU, to be written; None: memory of this refiner, good until its next call. It
            may be ``y0`` itself, and ``last_action`` a part of it, but no other input may overlap it. The first
            :meth:`DeviceRefinement.wait` copies what it holds by then.
        stream
            The CUDA stream to put the call on: one of torch, CuPy, pycuda or Numba, or a ``cudaStream_t`` as an int.
            Inputs have to be ready there, must be kept, and must not be overwritten, before the stream has got there.
            It may be in the middle of a capture into a CUDA graph (``isa`` says ``fused``, all arrays on the GPU,
            ``out`` given): every replay is the call again; synchronise before :meth:`DeviceRefinement.wait`. None: a
            stream of this refiner, which waits for its inputs (by DLPack, else for the default stream) and for which
            the default stream waits; one call at a time is under way on it. Costs a few times the time to launch.

        Returns
        -------
        DeviceRefinement

        Raises
        ------
        TrmInputError
            An argument is wrong; nothing was begun.
        TrmUnsupportedError
            Another backend, or a head that does not answer with actions.

        Examples
        --------
        >>> answer = refiner.refine_on_device(x, y0, steps=4, stream=torch.cuda.current_stream())  # doctest: +SKIP
        >>> actions = torch.from_dlpack(answer.y)  # doctest: +SKIP
        """
        begin = getattr(self._session(), "refine_on_device", None)
        if begin is None:
            raise TrmUnsupportedError(
                f"refine_on_device: for backend cuda, this is {self.backend}; call refine, or load with backend='cuda'"
            )
        arrays = (x, y0, features, None, None, None, last_action)
        with self._anew():
            answer: DeviceRefinement = begin(arrays, steps, halt, check_flag("trajectory", trajectory), out, stream)
        return answer

    def begin(
        self,
        x: object,
        y0: object = None,
        *,
        last_action: object = None,
        features: object = None,
        slots: object = None,
        candidates: object = None,
        mask: object = None,
        puzzle_id: int = 0,
    ) -> None:
        """Start a recursion for :meth:`step`; parameters as in :meth:`refine`. The arrays are copied.

        The recursion before it ends even where an argument is refused, and so it does in :meth:`refine`: a step then
        raises :class:`~trm_edge.TrmNotBegunError` rather than go on with an older draft.
        """
        with self._anew() as session:
            session.begin((x, y0, features, slots, candidates, mask, last_action), puzzle_id)

    def step(self, x: object = None, features: object = None, *, last_action: object = None) -> Refinement:
        """Run one more step of the recursion that :meth:`begin` started, keeping its state.

        ``x``, ``features`` and ``last_action`` replace those of the step before where given; ``x`` keeps its number of
        rows. ``refine`` is ``begin`` and ``steps`` times ``step``, bit for bit. Where a fresh input is not finite the
        status is NONFINITE, the answer is the draft, and the recursion stands as it was, but for ``last_action``; where
        a finite one led to NONFINITE, every step does until the next :meth:`begin`.

        The draft stays that of :meth:`begin`, and the first row of the answer is the action after ``last_action``: a
        recursion is of one control tick, and the next tick begins another one on a draft shifted by one row.
        """
        return self._session().step(x, features, last_action)

    def end(self) -> None:
        """Forget the recursion that :meth:`begin` started; a step then needs another :meth:`begin`."""
        self._session().end()

    def clone(self) -> Refiner:
        """Return another session on the same weights, for another thread."""
        return Refiner(self._backend.clone(), self._source, self._options)

    def close(self) -> None:
        """Free this session's memory and workers now; the weights go with the last session on them.

        What is asked of it afterwards raises :class:`~trm_edge.TrmInputError`. ``with load(...) as refiner:`` closes
        it at the end; one that is dropped needs no closing.
        """
        self._backend = _CLOSED

    def __enter__(self) -> Refiner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._source, *self._options)

    def __repr__(self) -> str:
        source = f"{len(self._source)} bytes" if isinstance(self._source, bytes) else os.fspath(self._source)
        if self._backend is _CLOSED:
            return f"<trm_edge.Refiner from {source}, closed>"
        return f"<trm_edge.Refiner {self.spec.answer} from {source}, backend {self.backend}, {self.precision}>"


class _Closed:
    """What a refiner has for a backend once it is closed."""

    def __getattr__(self, name: str) -> Any:
        raise TrmInputError("refiner: this one is closed; load the model again")


_CLOSED: Any = _Closed()


class _Anew:
    """A call that starts anew: where it fails, for whatever reason but BUSY, the recursion before it is over too."""

    def __init__(self, session: Backend) -> None:
        self._session = session

    def __enter__(self) -> Backend:
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, TrmBusyError):
            self._session.end()


def load(
    source: Source,
    *,
    backend: str = "auto",
    precision: str | None = None,
    threads: int = 1,
    pin: bool = False,
    park_after_us: int | None = None,
) -> Refiner:
    """Load a bundle (or an exported ONNX graph or TensorRT engine) and return a :class:`Refiner`.

    Parameters
    ----------
    source
        Path of a ``.trm`` bundle, its bytes, or path of an ``.onnx`` graph or an ``.engine`` with its manifest.
    backend
        ``fused``, ``cuda``, ``tensorrt``, ``onnxruntime``, ``reference``, or ``auto``: the environment variable
        TRM_EDGE_BACKEND where set, else ``fused`` (``onnxruntime`` for ``.onnx``, ``tensorrt`` for ``.engine``).
    precision
        ``fused``, ``cuda``: ``fp32``, ``bf16``, ``int8`` (as calibrated, else with a scale per token), or None: as
        calibrated, else ``fp32``; ``cuda`` also ``fp16`` and ``w8a16``. ``reference``: the oracle of the same, rounded
        matrices in float64 arithmetic; ``fp64`` rounds nothing and is what None means without a calibration.
        ``onnxruntime``, ``tensorrt``: None or the file's own.
    threads
        Threads of one session. Those of ``fused`` spin between calls and keep their processors busy; a session with
        more threads than free processors is slower than one with fewer.
    pin
        ``fused``: bind each worker to a processor.
    park_after_us
        ``fused``: microseconds that an idle worker spins before it sleeps, which makes the next call start later. None:
        it never sleeps.

    Raises
    ------
    TrmInputError
        An argument is wrong.
    TrmIOError, TrmBundleError, TrmVersionError
        The file cannot be read, is damaged, or is of another format version.
    TrmUnsupportedError
        A library, precision, instruction set or GPU that is not there.
    TrmDeviceError
        The GPU failed.
    """
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise TrmInputError(f"source: expected a path or bytes, got {type(source).__name__}")
    source = source if isinstance(source, bytes) else _absolute("source", source)
    options = Options(precision, threads, pin, park_after_us)
    return Refiner(open_backend(source, backend, options), source, (backend, options))


def refine(
    x: object,
    y0: object = None,
    steps: int = 4,
    *,
    model: Source,
    backend: str = "auto",
    precision: str | None = None,
    **arguments: Any,
) -> Refinement:
    """Refine with the bundle at ``model``; keyword arguments as :meth:`Refiner.refine`.

    The last few models stay loaded, with a session per thread; a file that changed on disk is loaded again.
    """
    return thread_refiner(model, backend, precision).refine(x, y0, steps, **arguments)


def _reopen(source: Source, backend: str, options: Options) -> Refiner:
    return load(source, backend=backend, **asdict(options))


class _Shared:
    """A model that threads share: who comes first loads it, who comes meanwhile waits for that one alone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.refiner: Refiner | None = None


# Open models by (path or bytes, file identity, options), shared by threads; a session of each per thread.
_models: OrderedDict[Any, _Shared] = OrderedDict()
_models_lock = threading.Lock()
_sessions = threading.local()


def thread_refiner(model: Source, backend: str = "auto", precision: str | None = None) -> Refiner:
    """Return this thread's session of a model; the last few stay open."""
    chosen = tuple(os.environ.get(name) for name in ("TRM_EDGE_BACKEND", "TRM_EDGE_ISA", "TRM_EDGE_CUDA_WAY"))
    key = (_identity(model), backend, precision, chosen)
    own: OrderedDict[Any, Refiner] = _sessions.__dict__.setdefault("refiners", OrderedDict())
    if key not in own:
        with _models_lock:
            shared = _models.setdefault(key, _Shared())
            _models.move_to_end(key)
        try:
            with shared.lock:
                if shared.refiner is None:
                    shared.refiner = load(model, backend=backend, precision=precision)
                own[key] = shared.refiner.clone()
        finally:
            with _models_lock:
                if shared.refiner is None:  # it does not load: no reason to drop another one
                    _models.pop(key, None)
                while len(_models) > _CACHED_MODELS:
                    _models.popitem(last=False)
    own.move_to_end(key)
    while len(own) > _CACHED_MODELS:
        own.popitem(last=False)
    return own[key]


def _absolute(name: str, path: StrPath) -> Path:
    text = os.fsdecode(path)
    if not text:
        raise TrmInputError(f"{name}: expected a path, got an empty text")
    if "\0" in text:  # the operating system would take what stands before it
        raise TrmInputError(f"{name}: expected a path without a null character, got {text!r}")
    return Path(os.path.abspath(text))


def _identity(model: Source) -> object:
    if isinstance(model, bytes):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise TrmInputError(f"model: expected a path or bytes, got {type(model).__name__}")
    path = _absolute("model", model)
    try:
        stat = os.stat(path)
    except OSError:
        return path  # load says what is wrong
    return path, stat.st_mtime_ns, stat.st_size, stat.st_ino


# A child of fork may inherit a session in the middle of another thread's call: a refiner takes a fresh one there, when
# it is next used.
_LIVE: weakref.WeakSet[Refiner] = weakref.WeakSet()


def _renew_after_fork() -> None:
    global _models_lock
    _models_lock = threading.Lock()
    for shared in _models.values():
        shared.lock = threading.Lock()
    for refiner in list(_LIVE):
        refiner._forked = True


os.register_at_fork(after_in_child=_renew_after_fork)
