"""OpenVINO on the CPU: float32, bfloat16, and int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from trm_edge.inputs import Array

from .common import Hosted, Peer, PeerError, Problem, Run, net_inputs, recursion
from .graphs import graph


class OpenVinoPeer(Peer):
    """Latency hint, one stream, tensors shared with the caller.

    A graph that holds ``net`` once converts its bfloat16 weights once; an unrolled one copies them per node. int8 is
    full quantisation, calibrated on what ``net`` sees; what stays float there runs in float32 (``net``) or in
    bfloat16 (``net-bf16``).
    """

    name = "openvino"
    package = "openvino"
    precisions = ("fp32", "bf16", "int8")

    def forms(self, precision: str) -> tuple[str, ...]:
        """Return the forms; int8 is calibrated for ``net``."""
        return ("net", "net-bf16") if precision == "int8" else ("net", "step", "whole")

    def build(self, problem: Problem, precision: str, threads: int, form: str) -> Run:
        """Compile the graph of ``form``."""
        import openvino

        shape, _, rest = form.partition("-")
        core = openvino.Core()
        model = core.read_model(model=graph(problem, shape).SerializeToString())
        if precision == "int8":
            model = _quantized(model, problem)
        kind = rest or {"int8": "fp32"}.get(precision, precision)
        if kind == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise PeerError("this processor has no bfloat16 for OpenVINO")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[kind],
        }
        try:
            request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            reason = [line for line in str(error).splitlines() if line][-1]
            raise PeerError(f"OpenVINO cannot compile it: {reason[:200]}") from None
        size = (problem.rows(), problem.bundle.spec.hidden_size)
        held = [np.zeros(size, np.float32) for _ in model.inputs]
        for i, array in enumerate(held):
            request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
        outputs = len(model.outputs)

        def run(*arrays: Array) -> Any:
            for mine, given in zip(held, arrays, strict=True):
                mine[:] = given
            request.infer()
            found = [request.get_output_tensor(i).data.copy() for i in range(outputs)]
            return found if outputs > 1 else found[0]

        return Hosted(problem, recursion(problem, shape, run))


def _quantized(model: Any, problem: Problem) -> Any:
    """Quantise activations and weights, and count: every matrix must be int8."""
    try:
        import nncf
    except ImportError as error:
        raise PeerError(f"int8 needs nncf, which cannot be imported ({error}); pip install 'trm-edge[bench]'") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = net_inputs(problem)
    data = nncf.Dataset(samples, lambda h: [h])
    with redirect_stdout(io.StringIO()):  # its progress bars
        result = nncf.quantize(model, data, subset_size=len(samples), model_type=nncf.ModelType.TRANSFORMER)
    integers = sum(
        node.get_type_name() == "Constant"
        and node.get_element_type().to_string() in ("i8", "u8")
        and len(node.get_output_shape(0)) == 2
        for node in result.get_ops()
    )
    matrices = sum(name.startswith("blocks.") for name in problem.bundle.spec.tensor_shapes())
    if integers < matrices:
        raise PeerError(f"nncf left {matrices - integers} of {matrices} matrices in float32")
    return result
