"""Backend ``tensorrt``: engines that ``trm-edge export ... .engine`` wrote, with the manifest beside each.

**It has not run**: TensorRT-RTX wants a GPU of its own list, TensorRT a machine where it is installed, and the project
has had neither. What does not need them is tested: manifests, profiles, shapes, refusals. See docs/tensorrt.md.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import read_bundle
from ..engine import LIBRARIES, read_engine
from ..errors import TrmError, TrmUnsupportedError
from ..files import StrPath
from ..inputs import Inputs
from ..reference import StepOutput
from ..refinement import Refinement
from .graph import GraphBackend, step_outputs
from .host import Arrays
from .tensorrt_session import Engine, Gpu, Session

_EXTRA = "install it with: pip install 'trm-edge[tensorrt]', or on a Jetson use the tensorrt of JetPack"


class TensorRtBackend(GraphBackend):
    """One engine on the first GPU, with a session of its own.

    All steps of a call are computed before the first can be read, so that ``halt`` saves no time, and there is no
    ``begin`` and ``step``. The limits are applied on the processor.

    Parameters
    ----------
    source
        Path of an ``.engine`` file. Beside a stripped one lies its bundle: ``head.trm`` beside ``head.engine``.

    Raises
    ------
    TrmIOError, TrmBundleError, TrmVersionError
        A file cannot be read, or engine, manifest, TensorRT and bundle do not fit together.
    TrmUnsupportedError
        No TensorRT, no pycuda, no GPU, or not the one that the engine was built for.
    TrmDeviceError
        The GPU failed.
    """

    name = "tensorrt"
    any_steps = "--loop loop"

    def __init__(self, source: StrPath) -> None:
        manifest, data = read_engine(source)
        library = import_library(manifest.library)
        manifest.require_library(library.__name__, library.__version__)
        gpu = Gpu()
        manifest.require_gpu(gpu.name)
        bundle = None
        if manifest.weights == "stripped":
            bundle = read_bundle(Path(source).with_suffix(".trm"))
            manifest.require_bundle(bundle)
        self._open(Engine(library, gpu, manifest, data, bundle))

    def _open(self, engine: Engine) -> None:
        self.info = engine.manifest.graph
        super().__init__(self.info.spec, self.info.statistics)
        self.precision = engine.manifest.precision
        self._engine, self._session = engine, Session(engine)

    @property
    def isa(self) -> str:
        """The GPU, as ``sm89``."""
        return self._engine.gpu.name

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Raise: an engine runs all steps in one call."""
        raise _no_steps("begin")

    def step(self, x: object, features: object, last_action: object) -> Refinement:
        """Raise: an engine runs all steps in one call."""
        raise _no_steps("step")

    def start(self, inputs: Inputs) -> Any:
        """Raise: an engine runs all steps in one call."""
        raise _no_steps("begin")

    def advance(self, carry: Any, inputs: Inputs, refreshed: bool) -> tuple[Any, StepOutput]:
        """Raise: an engine runs all steps in one call."""
        raise _no_steps("step")

    def outputs(self, inputs: Inputs, steps: int) -> Iterator[StepOutput]:
        """Yield the decoded outputs of ``steps`` steps."""
        feeds = self.feeds(inputs)
        if self.info.loop != "unrolled":
            feeds["steps"] = np.asarray(steps, np.int64)
        yield from step_outputs(inputs, self._session.run(feeds, steps), steps)

    def clone(self) -> TensorRtBackend:
        """Return another session on the same engine."""
        other = object.__new__(type(self))
        other._open(self._engine)
        return other


def import_library(name: str = "") -> Any:
    """Import the TensorRT of that name, or whichever of ``tensorrt_rtx`` and ``tensorrt`` is here."""
    failed = []
    for library in [name] if name else LIBRARIES:
        try:
            return importlib.import_module(library)
        except ImportError as error:
            failed.append(f"{library} cannot be imported ({error})")
    raise TrmUnsupportedError(
        f"TensorRT engines need the Python package {name or LIBRARIES[0]}: {'; '.join(failed)}; {_EXTRA}"
    )


def gpu_name() -> str:
    """Return the GPU of this machine, as ``sm89``."""
    return Gpu().name


def missing() -> str:
    """Say what is missing to run engines on this machine; nothing where they run."""
    if not any(importlib.util.find_spec(name) for name in LIBRARIES):
        return f"neither {' nor '.join(LIBRARIES)} is installed"
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed"
    try:
        gpu_name()
    except TrmError as error:
        return str(error)
    return ""


def _no_steps(what: str) -> TrmUnsupportedError:
    return TrmUnsupportedError(
        f"{what}: a TensorRT engine runs all steps in one call; to run them one by one use backend cuda or fused with "
        "the bundle, or onnxruntime with a graph of --loop step"
    )
