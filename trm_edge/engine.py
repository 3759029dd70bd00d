"""The contract between exported TensorRT engines (``trm_edge.export``) and the backend that runs them.

An engine ``head.engine`` is opaque, and deserialising one runs what is in it. So a manifest lies beside it,
``head.engine.json``, and an engine whose manifest is missing, or does not fit, is never given to TensorRT:

===================  =============================================================================================
``format``           ``trm_edge.engine``
``format_version``   1
``engine_sha256``    hash of the engine file
``engine_bytes``     its size
``library``          ``tensorrt_rtx`` or ``tensorrt``
``library_version``  the release that built it, the only one that may read it
``gpus``             GPUs it was built for, as ``sm89``
``precision``        ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``fp8``
``weights``          ``included``, or ``stripped``: taken from the bundle when the engine is loaded
``profiles``         list of ``{size: [min, opt, max]}`` for the sizes that vary: ``P`` context rows, ``S`` slots,
                     ``M`` candidates
``graph``            metadata of the graph inside (:mod:`trm_edge.graph`): spec, steps, statistics, bundle's hash
===================  =============================================================================================

A manifest says which engine was written with it, not by whom: whoever can write both files can run code. Load engines
from where you would load a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, unique_keys
from .errors import TrmBundleError, TrmInputError, TrmIOError, TrmUnsupportedError, TrmVersionError
from .files import StrPath, read_file
from .graph import GRAPH_PRECISIONS, GraphInfo, Signature, input_signature, metadata_of, parse_metadata
from .inputs import Array
from .quantization import quantize_weight, round_bf16
from .spec import MAX_STEPS, TrmSpec

FORMAT = "trm_edge.engine"
FORMAT_VERSION = 1
LIBRARIES = ("tensorrt_rtx", "tensorrt")
MAX_MANIFEST = 1 << 20  # bytes

Profile = Mapping[str, tuple[int, int, int]]
"""Least, expected and largest value of every size that varies from call to call."""

_GPU_NAME = re.compile(r"sm(\d{2,3})")


@dataclass(frozen=True, kw_only=True)
class EngineManifest:
    """What an engine is, and for whom."""

    engine_sha256: str
    engine_bytes: int
    library: str
    library_version: str
    gpus: tuple[str, ...]
    precision: str
    weights: str
    profiles: tuple[Profile, ...]
    graph: GraphInfo

    def sealed(self, data: bytes) -> EngineManifest:
        """Return this as the manifest of the engine ``data``."""
        return replace(self, engine_bytes=len(data), engine_sha256=hashlib.sha256(data).hexdigest())

    def require_engine(self, data: bytes) -> None:
        """Raise :class:`TrmBundleError` unless ``data`` are the bytes of the engine that this was written with."""
        digest = hashlib.sha256(data).hexdigest()
        if (len(data), digest) != (self.engine_bytes, self.engine_sha256):
            raise TrmBundleError(
                f"engine: {len(data)} bytes with SHA-256 {digest}, but the manifest is of {self.engine_bytes} bytes "
                f"with {self.engine_sha256}; TensorRT was not given it. Copy both files again, or export it again"
            )

    def require_library(self, name: str, version: str) -> None:
        """Raise unless this is the TensorRT that built the engine."""
        if (name, version) != (self.library, self.library_version):
            raise TrmVersionError(
                f"engine: built by {self.library} {self.library_version}, and this is {name} {version}, which may not "
                f"read it; install that release, or export the engine again"
            )

    def require_gpu(self, gpu: str) -> None:
        """Raise unless the engine was built for ``gpu``."""
        if gpu not in self.gpus:
            raise TrmUnsupportedError(
                f"engine: built for {', '.join(self.gpus)}, and this GPU is {gpu}; export it with --gpu {gpu}"
            )

    def require_bundle(self, bundle: Bundle) -> None:
        """Raise unless the engine was made from ``bundle``."""
        if bundle.sha256 != self.graph.bundle_sha256:
            raise TrmBundleError(
                f"engine: made from a bundle with SHA-256 {self.graph.bundle_sha256}, got one with {bundle.sha256}"
            )


def manifest_path(engine: StrPath) -> Path:
    """Return where the manifest of an engine lies."""
    return Path(f"{os.fspath(engine)}.json")


def manifest_bytes(manifest: EngineManifest) -> bytes:
    """Return the manifest as the bytes of its file."""
    plain = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    plain["graph"] = metadata_of(manifest.graph)
    return (json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **plain}, indent=1) + "\n").encode()


def read_manifest(engine: StrPath) -> EngineManifest:
    """Read and check the manifest beside ``engine``; nothing in it is trusted.

    Raises
    ------
    TrmIOError
        There is none, or it cannot be read.
    TrmBundleError, TrmVersionError
        It is damaged, or of another format version.
    """
    path = manifest_path(engine)
    try:
        data = read_file(path)
    except TrmIOError as error:
        raise TrmIOError(f"{error}; an engine is used with the manifest that was written with it") from None
    try:
        return parse_manifest(data)
    except TrmBundleError as error:
        raise type(error)(f"{path}: {error}") from None


def read_engine(engine: StrPath) -> tuple[EngineManifest, bytes]:
    """Return the manifest beside ``engine`` and the bytes that it describes; raises as :func:`read_manifest` does."""
    manifest, data = read_manifest(engine), read_file(engine)
    try:
        manifest.require_engine(data)
    except TrmBundleError as error:
        raise type(error)(f"{os.fspath(engine)}: {error}") from None
    return manifest, data


def parse_manifest(data: bytes) -> EngineManifest:
    """Check the bytes of a manifest, or raise :class:`TrmBundleError`."""
    entries = _parse_json(data)
    if entries.pop("format", None) != FORMAT:
        raise TrmBundleError(f"not a manifest of an engine: expected format {FORMAT!r}")
    version = entries.pop("format_version", None)
    if type(version) is not int or version != FORMAT_VERSION:
        raise TrmVersionError(
            f"manifest format version {version!r} cannot be read by this release, which reads {FORMAT_VERSION}; "
            "install the release that wrote it, or export the engine again"
        )
    known = {field.name for field in fields(EngineManifest)}
    if set(entries) != known:
        different = sorted(set(entries) ^ known)
        raise TrmBundleError(f"manifest: expected exactly {', '.join(sorted(known))}; see to {', '.join(different)}")
    text = {name: entries[name] for name in ("engine_sha256", "library", "library_version", "precision", "weights")}
    _check_text(text)
    size = entries["engine_bytes"]
    if type(size) is not int or size < 1:
        raise TrmBundleError(f"manifest engine_bytes: expected a positive integer, got {size!r:.40}")
    graph = _check_graph(entries["graph"])
    if graph.precision != text["precision"]:
        raise TrmBundleError(f"manifest precision: {text['precision']}, but its graph is in {graph.precision}")
    return EngineManifest(
        **text,
        engine_bytes=size,
        gpus=_check_gpus(entries["gpus"]),
        profiles=_check_profiles(graph.spec, entries["profiles"]),
        graph=graph,
    )


def _parse_json(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST:
        raise TrmBundleError(f"manifest: {len(data)} bytes, expected at most {MAX_MANIFEST}")
    try:
        entries = json.loads(
            data.decode(), object_pairs_hook=unique_keys, parse_constant=_no_number, parse_float=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise TrmBundleError(f"manifest: damaged JSON: {error}") from None
    if not isinstance(entries, dict):
        raise TrmBundleError("manifest: expected a JSON object")
    return entries


def _no_number(text: str) -> Any:
    raise ValueError(f"expected integers only, got {text[:40]}")


def _check_text(values: Mapping[str, Any]) -> None:
    allowed = {
        "engine_sha256": r"[0-9a-f]{64}",
        "library": "|".join(LIBRARIES),
        "library_version": r"[0-9A-Za-z.+_-]{1,40}",
        "precision": "|".join(GRAPH_PRECISIONS),
        "weights": "included|stripped",
    }
    for name, value in values.items():
        if not isinstance(value, str) or not re.fullmatch(allowed[name], value):
            raise TrmBundleError(f"manifest {name}: expected {allowed[name]}, got {value!r:.80}")


def _check_graph(metadata: Any) -> GraphInfo:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TrmBundleError("manifest graph: expected an object of strings")
    graph = parse_metadata(metadata)
    if graph.loop == "step":
        raise TrmBundleError("manifest graph: expected the form unrolled or onnx-loop, got step")
    return graph


def _check_gpus(gpus: Any) -> tuple[str, ...]:
    if not isinstance(gpus, list) or not gpus or not all(isinstance(g, str) and _GPU_NAME.fullmatch(g) for g in gpus):
        raise TrmBundleError(f"manifest gpus: expected a list of names such as sm89, got {gpus!r:.80}")
    return tuple(gpus)


def _check_profiles(spec: TrmSpec, profiles: Any) -> tuple[Profile, ...]:
    names = varying_sizes(spec)
    if not isinstance(profiles, list) or not 1 <= len(profiles) <= 64:
        raise TrmBundleError("manifest profiles: expected a list of 1 to 64")
    return tuple(_check_profile(names, profile) for profile in profiles)


def _check_profile(most: Mapping[str, tuple[int, int]], profile: Any) -> Profile:
    if not isinstance(profile, dict) or set(profile) != set(most):
        raise TrmBundleError(f"manifest profiles: expected exactly the sizes {', '.join(most) or 'none'}")
    for name, sizes in profile.items():
        least, largest = most[name]
        whole = isinstance(sizes, list) and len(sizes) == 3 and all(type(size) is int for size in sizes)
        if not whole or not least <= sizes[0] <= sizes[1] <= sizes[2] <= largest:
            raise TrmBundleError(
                f"manifest profiles: {name}: expected {least} <= min <= opt <= max <= {largest}, got {sizes!r:.80}"
            )
    return {name: (sizes[0], sizes[1], sizes[2]) for name, sizes in profile.items()}


# ---- GPUs and precisions ---------------------------------------------------------------------------------------------

RTX_GPUS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""What TensorRT-RTX builds engines for, on any machine."""

_LEAST = {"fp16": 75, "fp32": 80, "bf16": 80, "int8": 80, "fp8": 89}
_REASON = {
    "fp16": "TensorRT-RTX begins with Turing, sm75",
    "fp32": "TensorRT-RTX has no float32 products for Turing",
    "bf16": "bfloat16 came with sm80",
    "int8": "encoders and attention stay float32, which TensorRT-RTX does not multiply on Turing",
    "fp8": "float8 came with sm89",
}


def precisions_of(gpu: str) -> tuple[str, ...]:
    """Return the precisions of engines for ``gpu``."""
    return tuple(precision for precision in GRAPH_PRECISIONS if int(gpu.removeprefix("sm")) >= _LEAST[precision])


def why_not(precision: str, gpu: str) -> str:
    """Return why there are no engines of that precision for ``gpu``; nothing where there are."""
    if precision in precisions_of(gpu):
        return ""
    return f"{precision} on {gpu}: {_REASON[precision]}; {gpu} runs {', '.join(precisions_of(gpu)) or 'none'}"


def check_gpus(gpus: Iterable[str], precision: str) -> tuple[str, ...]:
    """Return the names as a tuple, or raise: an unknown one, or one that cannot run ``precision``."""
    chosen = tuple(dict.fromkeys(gpus))
    if not chosen:
        raise TrmInputError("gpu: expected at least one name, such as sm89")
    for gpu in chosen:
        if not _GPU_NAME.fullmatch(gpu):
            raise TrmInputError(f"gpu: expected names such as sm86, got {gpu!r:.40}")
        if reason := why_not(precision, gpu):
            raise TrmUnsupportedError(f"gpu: {reason}")
    return chosen


# ---- Sizes and profiles ----------------------------------------------------------------------------------------------


def varying_sizes(spec: TrmSpec) -> dict[str, tuple[int, int]]:
    """Return the least and largest value of every size that varies from call to call."""
    sizes = {}
    if spec.answer != "tokens" and spec.max_context and spec.mixer != "mlp_t":
        sizes["P"] = (0, spec.max_context)
    if spec.answer == "slots":
        sizes |= {"S": (1, spec.answer_rows), "M": (1, spec.max_candidates)}
    return sizes


def make_profiles(spec: TrmSpec, context: Sequence[int] = ()) -> tuple[Profile, ...]:
    """Return one profile for each of the context lengths ``context``, up to which it goes; none: one for all.

    A profile is fastest at its largest sizes, and begins where the one before it ends.
    """
    sizes = varying_sizes(spec)
    if context and "P" not in sizes:
        raise TrmInputError("context: the context of this head does not vary; leave it out")
    most = sizes.get("P", (0, 0))[1]
    ends = sorted({*context, most}) if context else [most]
    if ends[0] < 0 or ends[-1] > most:
        raise TrmInputError(f"context: expected lengths of 0 to {most}, got {', '.join(map(str, context))}")
    starts = [0, *(end + 1 for end in ends[:-1])]
    return tuple(
        {name: (start, end, end) if name == "P" else (low, high, high) for name, (low, high) in sizes.items()}
        for start, end in zip(starts, ends, strict=True)
    )


def choose_profile(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int:
    """Return the index of the first profile that allows ``sizes``."""
    for i, profile in enumerate(profiles):
        if all(low <= sizes[name] <= high for name, (low, _, high) in profile.items()):
            return i
    given = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    ranges = " or ".join(
        ", ".join(f"{name} in {low}..{high}" for name, (low, _, high) in profile.items()) for profile in profiles
    )
    raise TrmInputError(f"engine: no profile for {given}; it was built for {ranges}")


def call_sizes(spec: TrmSpec, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Return the varying sizes of one call, from its arrays."""
    where = {"P": ("x", 0), "S": ("mask", 0), "M": ("mask", 1)}
    return {name: feeds[where[name][0]].shape[where[name][1]] for name in varying_sizes(spec)}


def shapes(signature: Signature, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every binding, where ``sizes`` has a value for each name in the signature."""
    return {name: tuple(sizes[d] if isinstance(d, str) else d for d in dims) for name, (_, dims) in signature.items()}


def profile_shapes(graph: GraphInfo, profile: Profile) -> dict[str, list[tuple[int, ...]]]:
    """Return the least, expected and largest shape of every input whose shape varies."""
    signature = {
        name: value
        for name, value in input_signature(graph.spec, graph.loop).items()
        if any(isinstance(d, str) for d in value[1])
    }
    by_kind = [shapes(signature, {name: sizes[i] for name, sizes in profile.items()}) for i in range(3)]
    return {name: [each[name] for each in by_kind] for name in signature}


def trip_counts() -> tuple[int, int, int]:
    """Return the least, expected and largest trip count of a loop engine."""
    return 1, 4, MAX_STEPS


# ---- Weights of a stripped engine ------------------------------------------------------------------------------------

STRIPPABLE = ("weight", "fp16", "bf16", "int8")


def stored_matrix(bundle: Bundle, name: str) -> Array:
    """Return what an engine stores as ``name``: ``<matrix>.<format>``, ending in ``.t`` where it is transposed.

    Formats are ``weight`` (float32), ``fp16``, ``bf16`` (as uint16, which is its bits) and ``int8``.
    """
    matrix, _, kind = name.removesuffix(".t").rpartition(".")
    weight = bundle.tensors.get(f"{matrix}.weight")
    if weight is None or kind not in STRIPPABLE:
        raise TrmBundleError(f"engine: asks for the weight {name!r:.80}, which bundles do not have")
    if kind == "fp16":
        weight = weight.astype(np.float16)
    elif kind == "bf16":
        weight = (round_bf16(weight).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    elif kind == "int8":
        weight = quantize_weight(weight)[0]
    return np.ascontiguousarray(weight.T if name.endswith(".t") else weight)
