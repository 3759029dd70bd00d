"""ONNX Runtime on the CPU: float32, and int8 with every matrix of the blocks quantised."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from trm_edge.backends.onnx_runtime import int8_saturates
from trm_edge.inputs import Array, Inputs

from .common import Hosted, Peer, PeerError, Problem, Run, recursion
from .graphs import graph


class OnnxRuntimePeer(Peer):
    """All graph optimisations, one operator at a time, workers that spin; ``-contrib`` forms use its own operators.

    int8 is dynamic quantisation with QInt8 weights per channel.
    """

    name = "onnxruntime"
    package = "onnxruntime"
    precisions = ("fp32", "int8")

    def forms(self, precision: str) -> tuple[str, ...]:
        """Return plain and fused forms."""
        plain = ("net", "step", "whole", "export")
        return (*(f"{form}-contrib" for form in plain[:3]), *plain)

    def build(self, problem: Problem, precision: str, threads: int, form: str) -> Run:
        """Create a session on the graph of ``form``."""
        shape, _, contrib = form.partition("-")
        model = graph(problem, shape, bool(contrib))
        if precision == "int8":
            model = quantized(model)
        session = _session(model.SerializeToString(), threads)
        if shape == "export":
            return _whole_graph(session, problem)
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]

        def run(*arrays: Array) -> Any:
            found = session.run(outputs, dict(zip(names, arrays, strict=True)))
            return found if shape == "step" else found[0]

        return Hosted(problem, recursion(problem, shape, run))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the quantiser from advising to preprocess, which it does on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise dynamically, and count: a matrix left in float32 is an error, as some releases skip shared weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        quantize_dynamic(
            before,
            after,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=int8_saturates(),  # to 7 bits, as products would saturate
            op_types_to_quantize=["MatMul"],
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what a contrib operator returns
        )
        result = onnx.load(after)
    left = [name for node in result.graph.node if node.op_type == "MatMul" for name in node.input if "blocks." in name]
    matrices = {t.name for t in model.graph.initializer if t.name.startswith("blocks.") and len(t.dims) == 2}
    done = [
        t.name
        for t in result.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and t.name.removesuffix("_quantized") in matrices
    ]
    products = sum(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in result.graph.node)
    uses = sum(name in matrices for node in model.graph.node for name in node.input)
    if left or len(done) != len(matrices) or products < uses:
        raise PeerError(
            f"quantize_dynamic left {len(matrices) - len(done)} of {len(matrices)} matrices and {uses - products} of "
            f"{uses} products in float32"
        )
    return result


def _session(data: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a class of its own for each cause
        raise PeerError(f"onnxruntime: {str(error).splitlines()[0][:200]}") from None


def _whole_graph(session: Any, problem: Problem) -> Run:
    output = "y_steps" if problem.bundle.spec.answer_is_float else "logits_steps"
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Inputs) -> Array:
        feeds = {name: getattr(inputs, name) for name in names if name != "puzzle_id"}
        if "puzzle_id" in names:
            import numpy as np

            feeds["puzzle_id"] = np.asarray(inputs.puzzle_id, np.int32)
        found: Array = session.run([output], feeds)[0]
        return found[-1]

    return run
