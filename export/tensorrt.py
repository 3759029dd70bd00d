"""TensorRT engines of a bundle, with the manifest that the runtime checks before it deserialises one.

Built by ``tensorrt_rtx`` (TensorRT for RTX) for any of its GPUs and without one, or by ``tensorrt`` for the GPU of this
machine: the API is the same. Networks are strongly typed, so what is written is what runs. Forms:

``unrolled``   K steps one after the other.
``loop``       an ``ILoop`` of the network API with a trip count given at run time (:mod:`.tensorrt_network` says how).
``onnx-loop``  the same from the ONNX ``Loop``, by TensorRT's own parser.

One engine of ``tensorrt_rtx`` serves all the GPUs that it was built for, so there is one file for all of them: it is
hardly larger for three than for one, as its kernels are compiled on the device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_edge import engine as contract
from trm_edge.backends.tensorrt import gpu_name, import_library
from trm_edge.bundle import Bundle, read_bundle
from trm_edge.engine import EngineManifest, manifest_bytes, manifest_path
from trm_edge.errors import TrmError, TrmInputError, TrmUnsupportedError
from trm_edge.files import StrPath, write_atomically
from trm_edge.graph import parse_metadata

from .onnx_graph import unrolled_steps
from .onnx_scope import onnx
from .onnx_typed import build_typed
from .tensorrt_network import BlockProducts, NetworkFacts, block_products, facts, parse, parse_loop

FORMS = ("unrolled", "loop", "onnx-loop")
DEFAULT_GPUS = ("sm86", "sm89", "sm120")


@dataclass(frozen=True)
class BuiltEngine:
    """An engine with its manifest, and what was found on the way.

    ``network`` is what the network held before it was built, ``products`` what the engine multiplies the block matrices
    in, by its own account, and ``seconds`` how long the build took.
    """

    data: bytes
    manifest: EngineManifest
    network: NetworkFacts
    products: BlockProducts
    seconds: float


def export_engine(
    bundle_path: StrPath,
    dst: StrPath,
    loop: str = "unrolled",
    steps: int | None = None,
    precision: str | None = None,
    *,
    gpus: Sequence[str] = (),
    context: Sequence[int] = (),
    strip_weights: bool = False,
) -> BuiltEngine:
    """Build an engine of a ``.trm`` bundle and write it and its manifest; parameters as in :func:`build_engine`.

    Each file is written atomically. Where only the first one was written, they do not fit, and neither is used.
    """
    bundle = read_bundle(bundle_path)
    built = build_engine(bundle, loop, steps, precision, gpus=gpus, context=context, strip_weights=strip_weights)
    write_atomically(dst, built.data)
    write_atomically(manifest_path(dst), manifest_bytes(built.manifest))
    return built


def build_engine(
    bundle: Bundle,
    loop: str = "unrolled",
    steps: int | None = None,
    precision: str | None = None,
    *,
    gpus: Sequence[str] = (),
    context: Sequence[int] = (),
    strip_weights: bool = False,
) -> BuiltEngine:
    """Build an engine.

    Parameters
    ----------
    bundle
        Model, weights and statistics.
    loop
        ``unrolled``, ``loop`` or ``onnx-loop``.
    steps
        K of the unrolled form, None: as many as the head was trained for, where the bundle says so, else 4; the others
        run any number and do not read it.
    precision
        ``fp32``, ``fp16``, ``bf16``, ``int8``, ``fp8``, or None: what the bundle was calibrated to, else ``fp32``.
    gpus
        GPUs by compute capability, as ``sm89``. None: with ``tensorrt_rtx`` those of sm86, sm89 and sm120 that run the
        precision, with ``tensorrt`` the one of this machine.
    context
        Context lengths: an optimisation profile for each, from the one before it. None: one profile for all.
    strip_weights
        Leave the block matrices out; they are put back from the bundle when the engine is loaded. For one GPU, and
        built on a machine with one.

    Raises
    ------
    TrmInputError
        A parameter is not one of these.
    TrmUnsupportedError
        No TensorRT, or it cannot build this: a precision that a GPU does not have, a bundle without the scales.
    """
    if loop not in FORMS:
        raise TrmInputError(f"loop: expected one of {', '.join(FORMS)} for an engine, got {loop!r}")
    steps = unrolled_steps(bundle, steps, "engine") if loop == "unrolled" else 0
    if precision is None:
        precision = "fp32" if bundle.quantization is None else bundle.quantization.summary
    library = import_library()
    targets = _targets(library, gpus, precision)
    if strip_weights and len(targets) > 1:
        raise TrmUnsupportedError(f"strip_weights: TensorRT-RTX can for one GPU at a time, got {', '.join(targets)}")
    profiles = contract.make_profiles(bundle.spec, context)
    model = build_typed(bundle, {"unrolled": "unrolled", "loop": "step"}.get(loop, loop), steps, precision)
    log = _make_log(library)
    builder = library.Builder(log)
    network = (parse_loop if loop == "loop" else parse)(library, builder, log, model)
    found = facts(library, network)
    _check_network(found, model, loop)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    if loop == "loop":  # its inputs and outputs are those of the ONNX loop
        metadata["trm_edge.loop"] = "onnx-loop"
    manifest = EngineManifest(
        engine_sha256="",
        engine_bytes=0,
        library=library.__name__,
        library_version=library.__version__,
        gpus=targets,
        precision=precision,
        weights="stripped" if strip_weights else "included",
        profiles=profiles,
        graph=parse_metadata(metadata),
    )
    config = _configure(library, builder, manifest)
    if strip_weights:
        _strip(library, config, network, model)
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    if plan is None:
        raise TrmUnsupportedError(_failure(library, log, strip_weights))
    data = bytes(plan)
    return BuiltEngine(data, manifest.sealed(data), found, block_products(log.layers, model), seconds)


def _targets(library: Any, gpus: Sequence[str], precision: str) -> tuple[str, ...]:
    """Return the GPUs to build for; a precision that one of them does not have is refused here."""
    if library.__name__ == "tensorrt":
        here = gpu_name()
        if gpus and tuple(gpus) != (here,):
            raise TrmUnsupportedError(
                f"gpu: tensorrt builds for the GPU of this machine, {here}, got {', '.join(gpus)}; "
                "install tensorrt-rtx to build for others"
            )
        return contract.check_gpus([here], precision)
    chosen = gpus or [gpu for gpu in DEFAULT_GPUS if not contract.why_not(precision, gpu)]
    for gpu in chosen:
        if gpu not in contract.RTX_GPUS:
            raise TrmUnsupportedError(
                f"gpu: tensorrt_rtx builds for {', '.join(contract.RTX_GPUS)}, got {gpu!r:.40}; "
                "for any other, a Jetson say, export on the device with its own tensorrt"
            )
    return contract.check_gpus(chosen, precision)


def _make_log(library: Any) -> Any:
    class Log(library.ILogger):  # type: ignore[misc]
        """Keeps errors, and the list of the engine's layers that the builder writes at the end; prints nothing."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.errors.append(message)
            elif message.startswith("Layers:"):
                self.layers += message

    return Log()


def _configure(library: Any, builder: Any, manifest: EngineManifest) -> Any:
    config = builder.create_builder_config()
    flags = library.BuilderFlag
    if manifest.precision == "fp32":
        config.clear_flag(flags.TF32)
    if hasattr(flags, "STRICT_NANS"):  # the graph makes NaN of an overflow by x - x, which must not become 0
        config.set_flag(flags.STRICT_NANS)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if manifest.library == "tensorrt_rtx":
        config.num_compute_capabilities = len(manifest.gpus)
        for i, gpu in enumerate(manifest.gpus):
            config.set_compute_capability(getattr(library.ComputeCapability, gpu.upper()), i)
    looped = manifest.graph.loop == "onnx-loop"
    for sizes in manifest.profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in contract.profile_shapes(manifest.graph, sizes).items():
            profile.set_shape(name, least, usual, most)
        if looped:
            profile.set_shape_input("steps", *([count] for count in contract.trip_counts()))
        if (sizes or looped) and config.add_optimization_profile(profile) < 0:
            raise TrmUnsupportedError(f"{manifest.library} does not accept the profile {dict(sizes)}")
    return config


def _strip(library: Any, config: Any, network: Any, model: onnx.ModelProto) -> None:
    """Leave out the block matrices: they are most of a model, and their names say how to make them from the bundle."""
    config.set_flag(library.BuilderFlag.STRIP_PLAN)
    config.set_flag(library.BuilderFlag.REFIT_INDIVIDUAL)
    for tensor in model.graph.initializer:
        kind = tensor.name.removesuffix(".t").rpartition(".")[2]
        if tensor.name.startswith("blocks.") and kind in contract.STRIPPABLE:
            if not network.mark_weights_refittable(tensor.name):
                raise TrmUnsupportedError(f"{library.__name__} cannot refit the weight {tensor.name}")
        elif tensor.name.startswith("blocks.") and kind == "fp8":
            raise TrmUnsupportedError("strip_weights: not for fp8, as no device can make those weights from a bundle")


def _failure(library: Any, log: Any, stripped: bool) -> str:
    why = "; ".join(log.errors)[:600] or "it does not say why"
    hint = ""
    if stripped and library.__name__ == "tensorrt_rtx":
        hint = ". tensorrt_rtx builds refittable weights on a machine with a GPU only; leave out --strip-weights here"
    return f"{library.__name__} {library.__version__} cannot build this engine: {why}{hint}"


def _check_network(found: NetworkFacts, model: onnx.ModelProto, loop: str) -> None:
    """Raise unless the network loops as it should and holds the matrices of the graph, bit for bit."""
    counts = [source for kind, source in found.trip_limits if kind == "COUNT"]
    if counts != ([] if loop == "unrolled" else ["steps"]):
        raise TrmError(
            f"network: expected {'no loop' if loop == 'unrolled' else 'the trip count steps'}, got {found.trip_limits}"
        )
    unreadable = (onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT8E4M3FN)
    for tensor in model.graph.initializer:
        kind = tensor.name.removesuffix(".t").rpartition(".")[2]
        if kind in contract.STRIPPABLE and tensor.data_type not in unreadable:
            held = found.weights.get(tensor.name)
            if held is None or not np.array_equal(held, onnx.numpy_helper.to_array(tensor)):
                raise TrmError(f"network: the weight {tensor.name} is not that of the graph")
