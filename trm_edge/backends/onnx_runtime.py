"""Graphs exported by ``trm-edge export ... .onnx``, run by ONNX Runtime on the CPU.

Needs onnxruntime alone: spec and statistics are in the file's metadata.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._native import core
from ..errors import TrmBundleError, TrmUnsupportedError
from ..extras import import_extra
from ..files import StrPath, read_file
from ..graph import Signature, check_seal, input_signature, output_signature, parse_metadata
from ..inputs import Array, Inputs
from ..reference import StepOutput
from ..refinement import Refinement
from ..spec import TrmSpec
from .graph import GraphBackend, graph_output, step_outputs
from .host import Arrays, HostBackend

_TYPES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool"}

_Value = tuple[str, list[Any]]  # ONNX Runtime's type and shape of a graph input or output


class OnnxRuntimeBackend(GraphBackend):
    """One exported graph in ONNX Runtime, with a session of its own.

    A graph of the ``step`` form does everything; ``onnx-loop`` and ``unrolled`` (up to its K steps) offer ``refine``
    and compute all steps before the first can be read, so that ``halt`` saves no time there.

    Parameters
    ----------
    source
        Path of an ``.onnx`` file, or its bytes.
    threads
        Threads of ONNX Runtime's pool, the calling one included.

    Raises
    ------
    TrmIOError
        The file cannot be read.
    TrmBundleError
        Damaged, not one of our graphs, or its inputs and outputs do not fit its own metadata.
    TrmUnsupportedError
        onnxruntime is not installed.
    """

    name = "onnxruntime"
    any_steps = "--loop onnx-loop"

    def __init__(self, source: StrPath | bytes, *, threads: int = 1) -> None:
        data = source if isinstance(source, bytes) else read_file(source)
        file = "graph" if isinstance(source, bytes) else os.fspath(source)
        try:
            check_seal(data)
            session = create_session(data, threads)
            metadata, given_inputs, given_outputs = _describe(session)
            info = parse_metadata(metadata)
            _check_signature("input", given_inputs, input_signature(info.spec, info.loop))
            outputs = output_signature(info.spec, info.loop, info.steps)
            _check_signature("output", given_outputs, outputs)
        except TrmBundleError as error:
            raise type(error)(f"{file}: {error}") from None
        super().__init__(info.spec, info.statistics)
        self.info = info
        self.precision = info.precision
        self._graph = _Graph(session, info.spec, outputs)

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Start a recursion that :meth:`step` carries on."""
        self._require_step_form("begin")
        super().begin(arrays, puzzle_id)

    def step(self, x: object, features: object, last_action: object) -> Refinement:
        """Run one more step, with fresh context, features or last action where given."""
        self._require_step_form("step")
        return super().step(x, features, last_action)

    def outputs(self, inputs: Inputs, steps: int) -> Iterator[StepOutput]:
        """Yield the decoded outputs of ``steps`` steps."""
        if self.info.loop == "step":
            carry = self.start(inputs)
            for _ in range(steps):
                carry, output = self.advance(carry, inputs, refreshed=False)
                yield output
            return
        feeds = self.feeds(inputs)
        if self.info.loop == "onnx-loop":
            feeds["steps"] = np.asarray(steps, np.int64)
        yield from step_outputs(inputs, self._graph.run(feeds, self.info.steps or steps), steps)

    def start(self, inputs: Inputs) -> _Carry:
        """Return a carry that the graph replaces by its own start."""
        spec = self.spec
        rows = spec.registers + inputs.answer_rows + (0 if spec.answer == "tokens" else len(inputs.x))
        zeros = np.zeros((rows, spec.hidden_size), np.float32)
        return _Carry(True, zeros, zeros)

    def advance(self, carry: _Carry, inputs: Inputs, refreshed: bool) -> tuple[_Carry, StepOutput]:
        """Run one step; the graph reads all inputs every time, so a refresh needs nothing of its own."""
        feeds = self.feeds(inputs)
        feeds |= {"first": np.asarray(carry.first), "carry_y": carry.y, "carry_z": carry.z}
        out = self._graph.run(feeds, 1)
        output = graph_output(inputs, out["y"], out.get("logits"), out["halt_logit"])
        return _Carry(False, out["carry_y_next"], out["carry_z_next"]), output

    def clone(self) -> OnnxRuntimeBackend:
        """Return another session on the same graph and weights; ONNX Runtime runs both at once."""
        other = object.__new__(type(self))
        HostBackend.__init__(other, self.spec, self.info.statistics)
        other.info, other._graph, other.precision = self.info, self._graph, self.precision
        return other

    def _require_step_form(self, what: str) -> None:
        if self.info.loop != "step":
            raise TrmUnsupportedError(
                f"{what}: a graph exported with --loop {self.info.loop} runs all steps in one call; "
                "export it with --loop step to run them one by one"
            )


@dataclass(frozen=True)
class _Carry:
    first: bool
    y: Array
    z: Array


class _Graph:
    """A session whose results are checked against the signature: a file can promise one shape and return another."""

    def __init__(self, session: Any, spec: TrmSpec, outputs: Signature) -> None:
        self._session = session
        self._outputs = outputs
        self._registers = spec.registers

    def run(self, feeds: Mapping[str, Array], steps: int) -> dict[str, Array]:
        try:
            values = self._session.run(list(self._outputs), dict(feeds))
        except Exception as error:  # the inputs are checked, so whatever it is, the graph is at fault
            raise TrmBundleError(f"graph: ONNX Runtime could not run it: {_reason(error)}") from None
        sizes = self._sizes(feeds) | {"K": steps}
        for (name, (dtype, dims)), value in zip(self._outputs.items(), values, strict=True):
            want = tuple(sizes[d] if isinstance(d, str) else d for d in dims)
            got = np.asarray(value)
            if got.dtype != dtype or got.shape != want:
                raise TrmBundleError(
                    f"graph: output {name}: expected {dtype} {list(want)}, got {got.dtype} {list(got.shape)}"
                )
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))

    def _sizes(self, feeds: Mapping[str, Array]) -> dict[str, int]:
        if "mask" in feeds:
            return {"S": feeds["mask"].shape[0], "M": feeds["mask"].shape[1], "L": self._rows(feeds)}
        return {"L": self._rows(feeds)}

    def _rows(self, feeds: Mapping[str, Array]) -> int:
        answer = len(feeds["y0"]) if "y0" in feeds else 0
        context = len(feeds["x"]) if "x" in feeds else 0
        return self._registers + answer + context


def int8_saturates() -> bool:
    """Whether ONNX Runtime's int8 products are wrong on this processor.

    On x86-64 without VNNI it adds pairs of products in 16 bits, where they saturate
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and not any("vnni" in isa or "bf16" in isa for isa in core.supported_isas().split(","))


def create_session(data: bytes, threads: int) -> Any:
    """Return ONNX Runtime's session of a graph (its bytes), on the CPU, which computes what the graph says.

    Raises
    ------
    TrmBundleError
        If ONNX Runtime cannot load it.
    """
    onnxruntime = import_extra("onnxruntime", "backend onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # a library does not print; what goes wrong is raised
    if b"DequantizeLinear" in data and int8_saturates():
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # then in float32, as the graph says it
    # our graphs hold their weights; one that points to files elsewhere is refused
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        # without enable_fallback=0 its Python wrapper prints and tries a second time
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # protobuf, graph and type errors, each of a class of its own
        raise TrmBundleError(f"not an ONNX graph that ONNX Runtime can load: {_reason(error)}") from None


def _describe(session: Any) -> tuple[dict[str, str], dict[str, _Value], dict[str, _Value]]:
    """Return the metadata, and type and shape of inputs and outputs by name."""
    try:
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        inputs, outputs = (
            {node.name: (node.type, list(node.shape)) for node in nodes}
            for nodes in (session.get_inputs(), session.get_outputs())
        )
    except UnicodeDecodeError as error:
        raise TrmBundleError(f"damaged: a name or a metadata entry is not UTF-8 ({error})") from None
    return metadata, inputs, outputs


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _check_signature(what: str, given: Mapping[str, _Value], want: Signature) -> None:
    if set(given) != set(want):
        raise TrmBundleError(f"graph: expected the {what}s {', '.join(want)}, got {', '.join(given)}")
    for name, (dtype, dims) in want.items():
        kind, shape = given[name]
        same = _TYPES.get(kind) == dtype.name and len(shape) == len(dims)
        if not same or any(isinstance(d, int) and d != g for d, g in zip(dims, shape, strict=True)):
            raise TrmBundleError(f"graph: {what} {name}: expected {dtype} {list(dims)}, got {kind} {shape}")
