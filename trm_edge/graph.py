"""The contract between exported graphs (``trm_edge.export``) and the backends that run them.

A graph carries all that a host needs in its metadata, so that the file alone is enough:

===========================  ====================================================================================
``trm_edge.format``          ``trm_edge.onnx``
``trm_edge.format_version``  ``1``
``projection``               ``host``: the graph's actions are unprojected, the host applies the limits
``trm_edge.loop``            ``unrolled``, ``onnx-loop`` or ``step``
``trm_edge.steps``           K of an unrolled graph, ``any`` otherwise
``trm_edge.statistics``      JSON object: ``limits.*`` and ``normalization.y0.mean`` of an actions head; infinities
                             are the strings ``"inf"`` and ``"-inf"``, as JSON has no number for them
``trm_edge.precision``       ``int8`` or ``bf16`` where block matrices are rounded, ``fp16`` or ``fp8`` in a graph for a
                             TensorRT engine; left out for ``fp32``
``trm_edge.bundle_sha256``   hash of the bundle that the graph was made from
``trm_edge.sha256``          hash of the file, where these 64 digits count as zeros; left out, nothing is checked
``spec.<field>``             every field of :class:`~trm_edge.spec.TrmSpec`
``provenance.<name>``        what the bundle says of where its weights came from
===========================  ====================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import TrmBundleError, TrmVersionError
from .inputs import Array
from .spec import MAX_STEPS, TrmSpec, check_statistics

FORMAT = "trm_edge.onnx"
FORMAT_VERSION = 1
LOOPS = ("unrolled", "onnx-loop", "step")
GRAPH_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")

Dims = tuple[int | str, ...]
Signature = dict[str, tuple[np.dtype[Any], Dims]]

_PROVENANCE = "provenance."
SHA256, UNSEALED = "trm_edge.sha256", "0" * 64
"""The metadata entry that :func:`seal` fills in."""

_SEAL = SHA256.encode() + b"\x12\x40"  # as protobuf writes the entry: the key, then field 2 of 64 bytes, its value
_FLOAT, _INT, _LONG, _BOOL = (np.dtype(t) for t in (np.float32, np.int32, np.int64, np.bool_))
_HOST_STATISTICS = ("limits.lower", "limits.upper", "limits.velocity", "normalization.y0.mean")


@dataclass(frozen=True)
class GraphInfo:
    """What a graph says of itself; ``steps`` is 0 for the forms that run any number of them."""

    spec: TrmSpec
    loop: str
    steps: int
    statistics: Mapping[str, Array]
    bundle_sha256: str = ""
    precision: str = "fp32"
    provenance: Mapping[str, str] = field(default_factory=dict)


def input_signature(spec: TrmSpec, loop: str) -> Signature:
    """Return dtype and shape of every graph input, in order; names stand for sizes that vary from call to call.

    ``P`` context rows, ``S`` slots, ``M`` candidates, ``L`` all rows, ``K`` steps.
    """
    inputs: Signature = {}
    if spec.answer == "tokens":
        inputs["x"] = (_INT, (spec.answer_rows,))
        if spec.registers:
            inputs["puzzle_id"] = (_INT, ())
    elif spec.max_context:
        inputs["x"] = (_FLOAT, (_context_rows(spec), spec.context_size))
    if spec.answer == "actions":
        inputs["y0"] = (_FLOAT, (spec.answer_rows, spec.dof))
        if spec.feature_size:
            inputs["features"] = (_FLOAT, (spec.answer_rows, spec.feature_size))
    elif spec.answer == "slots":
        inputs["y0"] = (_INT, ("S",))
        inputs["slots"] = (_FLOAT, ("S", spec.slot_size))
        inputs["candidates"] = (_FLOAT, ("M", spec.candidate_size))
        inputs["mask"] = (_BOOL, ("S", "M"))
    if loop == "onnx-loop":
        inputs["steps"] = (_LONG, ())
    if loop == "step":
        inputs["first"] = (_BOOL, ())
        inputs |= dict.fromkeys(("carry_y", "carry_z"), _rows(spec))
    return inputs


def output_signature(spec: TrmSpec, loop: str, steps: int = 0) -> Signature:
    """Return dtype and shape of every graph output, in order; ``steps`` is K of an unrolled graph."""
    answers: Signature = {
        "actions": (_FLOAT, (spec.answer_rows, spec.dof)),
        "slots": (_INT, ("S",)),
        "tokens": (_INT, (spec.answer_rows,)),
    }
    answer = answers[spec.answer]
    logits: Dims = ("S", "M") if spec.answer == "slots" else (spec.answer_rows, spec.vocab_size)
    if loop == "step":
        outputs: Signature = {"y": answer}
        if not spec.answer_is_float:
            outputs["logits"] = (_FLOAT, logits)
        outputs["halt_logit"] = (_FLOAT, ())
        return outputs | dict.fromkeys(("carry_y_next", "carry_z_next"), _rows(spec))
    count: int | str = steps if loop == "unrolled" else "K"
    outputs = {"y": answer, "y_steps": (answer[0], (count, *answer[1]))}
    if not spec.answer_is_float:
        outputs["logits_steps"] = (_FLOAT, (count, *logits))
    outputs["halt_logits"] = (_FLOAT, (count,))
    return outputs


def metadata_of(info: GraphInfo) -> dict[str, str]:
    """Return the metadata of a graph."""
    return {
        "trm_edge.format": FORMAT,
        "trm_edge.format_version": str(FORMAT_VERSION),
        "projection": "host",
        "trm_edge.loop": info.loop,
        "trm_edge.steps": str(info.steps) if info.loop == "unrolled" else "any",
        "trm_edge.statistics": _statistics_to_json(info.spec, info.statistics),
        "trm_edge.bundle_sha256": info.bundle_sha256,
        **({} if info.precision == "fp32" else {"trm_edge.precision": info.precision}),
        **info.spec.to_metadata(),
        **{_PROVENANCE + name: text for name, text in info.provenance.items()},
    }


def parse_metadata(metadata: Mapping[str, str]) -> GraphInfo:
    """Read and check the metadata of a graph, or raise :class:`TrmBundleError`."""
    if metadata.get("trm_edge.format") != FORMAT:
        raise TrmBundleError(
            f"not a trm_edge graph: expected trm_edge.format {FORMAT!r}, got {metadata.get('trm_edge.format')!r}"
        )
    version = metadata.get("trm_edge.format_version")
    if version != str(FORMAT_VERSION):
        raise TrmVersionError(
            f"graph format version {version!r} cannot be read by this release, which reads {FORMAT_VERSION}; "
            "install the release that wrote it, or export the bundle again"
        )
    if metadata.get("projection") != "host":
        raise TrmBundleError(f"metadata projection: expected 'host', got {metadata.get('projection')!r}")
    loop = metadata.get("trm_edge.loop", "")
    if loop not in LOOPS:
        raise TrmBundleError(f"metadata trm_edge.loop: expected one of {', '.join(LOOPS)}, got {loop!r}")
    precision = metadata.get("trm_edge.precision", "fp32")
    if precision not in GRAPH_PRECISIONS:
        expected = ", ".join(GRAPH_PRECISIONS)
        raise TrmBundleError(f"metadata trm_edge.precision: expected one of {expected}, got {precision[:40]!r}")
    spec = TrmSpec.from_metadata(metadata)
    steps = _parse_steps(loop, metadata.get("trm_edge.steps", ""))
    statistics = _statistics_from_json(spec, metadata.get("trm_edge.statistics", ""))
    sha256 = metadata.get("trm_edge.bundle_sha256", "")
    said = {name[len(_PROVENANCE) :]: text for name, text in metadata.items() if name.startswith(_PROVENANCE)}
    return GraphInfo(spec, loop, steps, statistics, sha256, precision, said)


def seal(data: bytes) -> bytes:
    """Return a file that has ``UNSEALED`` in its metadata with its checksum there."""
    place = _seal_of(data)
    return data[:place] + _checksum(data, place) + data[place + len(UNSEALED) :]


def check_seal(data: bytes) -> None:
    """Check the checksum of a file that has one, or raise :class:`TrmBundleError`."""
    place = _seal_of(data)
    if place >= 0 and data[place : place + len(UNSEALED)] != _checksum(data, place):
        raise TrmBundleError(
            "damaged: its content does not match its checksum; copy or export it again. Where it was changed on "
            f"purpose, take the entry {SHA256} out of its metadata"
        )


def _seal_of(data: bytes) -> int:
    """Return where the digits of a file's checksum begin, -1 where it has none."""
    place = data.rfind(_SEAL)
    return place if place < 0 else place + len(_SEAL)


def _checksum(data: bytes, place: int) -> bytes:
    """Return the digits of the hash of all but the digits at ``place``."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:place])
    digest.update(UNSEALED.encode())
    digest.update(view[place + len(UNSEALED) :])
    return digest.hexdigest().encode()


def _context_rows(spec: TrmSpec) -> int | str:
    return spec.max_context if spec.mixer == "mlp_t" else "P"


def _rows(spec: TrmSpec) -> tuple[np.dtype[Any], Dims]:
    varies = spec.answer == "slots" or (spec.max_context > 0 and spec.mixer != "mlp_t")
    return _FLOAT, ("L" if varies else spec.max_rows, spec.hidden_size)


def _parse_steps(loop: str, text: str) -> int:
    if loop != "unrolled":
        if text != "any":
            raise TrmBundleError(f"metadata trm_edge.steps: expected 'any' for {loop}, got {text!r}")
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_STEPS):
        raise TrmBundleError(f"metadata trm_edge.steps: expected 1..{MAX_STEPS}, got {text!r}")
    return int(text)


def _statistics_to_json(spec: TrmSpec, statistics: Mapping[str, Array]) -> str:
    """Float32 values as the shortest decimals of their float64 twins, which read back exactly."""
    if not spec.answer_is_float:
        return "{}"
    values = {name: [float(v) for v in statistics[name]] for name in _HOST_STATISTICS}
    return json.dumps({name: [v if np.isfinite(v) else str(v) for v in row] for name, row in values.items()})


def _statistics_from_json(spec: TrmSpec, text: str) -> dict[str, Array]:
    names = _HOST_STATISTICS if spec.answer_is_float else ()
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrmBundleError(f"metadata trm_edge.statistics: damaged JSON: {error}") from None
    if not isinstance(values, dict) or set(values) != set(names):
        raise TrmBundleError(f"metadata trm_edge.statistics: expected exactly {', '.join(names) or 'no entries'}")
    statistics = {name: _parse_row(name, values[name], spec.dof) for name in names}
    check_statistics(statistics)
    return statistics


def _parse_row(name: str, row: object, size: int) -> Array:
    if not isinstance(row, list) or len(row) != size:
        raise TrmBundleError(f"metadata trm_edge.statistics: {name}: expected {size} numbers")
    for value in row:
        if value not in ("inf", "-inf") and type(value) not in (int, float):
            raise TrmBundleError(f"metadata trm_edge.statistics: {name}: expected numbers, 'inf' or '-inf'")
    try:
        with np.errstate(over="ignore"):
            array = np.asarray([float(v) for v in row], np.float64).astype(np.float32)
    except OverflowError:
        raise TrmBundleError(f"metadata trm_edge.statistics: {name}: a number is out of range") from None
    return array
