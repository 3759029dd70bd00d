"""ONNX graphs of a bundle, in three forms of the recursion over steps.

``unrolled``   K steps one after the other: the most portable, K is fixed.
``onnx-loop``  an ONNX ``Loop`` over the int64 input ``steps``: any number of steps, in one call.
``step``       one step; the carry goes out and comes back in, so that x and features may be refreshed between steps.

Inputs and outputs are those of :func:`trm_edge.graph.input_signature` and :func:`trm_edge.graph.output_signature`.
Actions come out before projection onto the limits, which is the host's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from trm_edge import graph as contract
from trm_edge.bundle import Bundle, read_bundle
from trm_edge.errors import TrmInputError, TrmUnsupportedError
from trm_edge.files import StrPath, write_atomically
from trm_edge.graph import GraphInfo, Signature
from trm_edge.inputs import check_int
from trm_edge.provenance import steps_to_run
from trm_edge.spec import MAX_STEPS

from .onnx_net import net_function
from .onnx_parts import Parts, Start, StepNames
from .onnx_products import Products, RoundedProducts, check_form
from .onnx_scope import DOMAIN, IR_VERSION, OPSET, Scope, Weights, onnx

_MAX_BYTES = (1 << 31) - 1  # what one protobuf message may hold


def export_onnx(
    bundle_path: StrPath,
    dst: StrPath,
    loop: str = "unrolled",
    steps: int | None = None,
    precision: str | None = None,
) -> None:
    """Write the ONNX graph of a ``.trm`` bundle, atomically.

    Parameters
    ----------
    bundle_path
        The bundle.
    dst
        The ``.onnx`` file.
    loop, steps, precision
        See :func:`build_onnx`.

    Raises
    ------
    TrmIOError, TrmBundleError, TrmInputError, TrmUnsupportedError
    """
    model = build_onnx(read_bundle(bundle_path), loop, steps, precision)
    model.metadata_props.add(key=contract.SHA256, value=contract.UNSEALED)
    write_atomically(dst, contract.seal(model.SerializeToString()))


def build_onnx(
    bundle: Bundle, loop: str = "unrolled", steps: int | None = None, precision: str | None = None
) -> onnx.ModelProto:
    """Build the ONNX graph of a bundle: opset 19, IR 9, float32 with explicit Q/DQ where the bundle is calibrated.

    Parameters
    ----------
    bundle
        Model, weights and statistics.
    loop
        ``unrolled``, ``onnx-loop`` or ``step``.
    steps
        K of the unrolled form, 1..1024, None: as many as the head was trained for, where the bundle says so, else 4.
        The other forms run any number of steps and do not read it.
    precision
        None: what the bundle was calibrated to, float32 where it was not; ``fp32``: float32 in any case.

    Returns
    -------
    onnx.ModelProto
        A model that passes ``onnx.checker.check_model(full_check=True)``.

    Raises
    ------
    TrmInputError
        ``loop``, ``steps`` or ``precision`` is not one of these.
    TrmUnsupportedError
        The ``onnx`` package is missing, the form cannot express the bundle's scheme, or the graph would exceed the 2 GB
        that one ONNX file can hold.
    """
    if loop not in contract.LOOPS:
        raise TrmInputError(f"loop: expected one of {', '.join(contract.LOOPS)}, got {loop!r}")
    steps = unrolled_steps(bundle, steps, "graph") if loop == "unrolled" else 0
    if precision not in (None, "fp32"):
        raise TrmInputError(
            f"precision: expected fp32, or nothing for what the bundle was calibrated to, got {precision!r}"
        )
    quantization = None if precision == "fp32" else bundle.quantization
    if quantization is not None:
        check_form(quantization, loop)
    weights = Weights(bundle.tensors)
    if quantization is None:
        return assemble(bundle, loop, steps, weights)
    return assemble(bundle, loop, steps, weights, partial(RoundedProducts, weights, quantization), quantization.summary)


def unrolled_steps(bundle: Bundle, steps: int | None, what: str) -> int:
    """Return K of an unrolled graph or engine: ``steps``, or what the bundle says of its training."""
    count = check_int("steps", steps_to_run(steps, bundle.provenance.get("trained_steps")))
    if not 1 <= count <= MAX_STEPS:
        raise TrmInputError(f"steps: expected 1..{MAX_STEPS} for an unrolled {what}, got {count}")
    return count


def assemble(
    bundle: Bundle,
    loop: str,
    steps: int,
    weights: Weights,
    products: Callable[[int], Products] | None = None,
    precision: str = "fp32",
) -> onnx.ModelProto:
    """Return the graph whose block matrices are multiplied by ``products`` of a step, which ``precision`` names.

    ``steps`` is K of the unrolled form, 0 for the others.
    """
    spec = bundle.spec
    parts = Parts(spec, weights, products)
    write = {"unrolled": _write_unrolled, "onnx-loop": _write_loop, "step": _write_step}[loop]
    nodes = write(parts, steps)
    if weights.nbytes() > _MAX_BYTES:
        raise TrmUnsupportedError(
            f"the weights take {weights.nbytes()} bytes and one ONNX file holds at most {_MAX_BYTES}; "
            "use the bundle itself, or a smaller model"
        )
    inputs = contract.input_signature(spec, loop)
    outputs = contract.output_signature(spec, loop, steps)
    info = GraphInfo(spec, loop, steps, bundle.tensors, bundle.sha256, precision, bundle.provenance)
    graph = onnx.helper.make_graph(nodes, "trm_edge", _values(inputs), _values(outputs), weights.initializers())
    model = onnx.helper.make_model(
        graph,
        functions=[net_function(spec)] if products is None else [],
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="trm_edge",
    )
    onnx.helper.set_model_props(model, contract.metadata_of(info))
    if model.ByteSize() > _MAX_BYTES:
        raise TrmUnsupportedError(f"the graph takes {model.ByteSize()} bytes; one ONNX file holds at most {_MAX_BYTES}")
    return model


def _write_unrolled(parts: Parts, steps: int) -> Sequence[onnx.NodeProto]:
    scope = Scope()
    start = parts.start(scope)
    done: list[StepNames] = []
    y, z = start.y, start.z
    for k in range(1, steps + 1):
        done.append(parts.step(scope, start, y, z, k))
        y, z = done[-1].y, done[-1].z
    scope.add("Identity", done[-1].answer, name="y")
    _stack(scope, [step.answer for step in done], "y_steps")
    if done[0].logits:
        _stack(scope, [step.logits for step in done], "logits_steps")
    _stack(scope, [step.halt_logit for step in done], "halt_logits")
    return scope.nodes


def _stack(scope: Scope, values: Sequence[str], name: str) -> None:
    rows = [scope.add("Unsqueeze", value, scope.ints(0)) for value in values]
    scope.add("Concat", *rows, name=name, axis=0)


def _write_loop(parts: Parts, _steps: int) -> Sequence[onnx.NodeProto]:
    """Write a ``Loop`` with ``steps`` as its trip count; its condition is explicit, and always true."""
    scope = Scope()
    start = parts.start(scope)
    stacked = ["y_steps", *(["logits_steps"] if parts.spec.answer != "actions" else []), "halt_logits"]
    true = scope.constant(np.asarray(True))
    scope.add_many(
        "Loop", "steps", true, start.y, start.z, names=["y_last", "z_last", *stacked], body=_loop_body(parts, start)
    )
    last = scope.add("Sub", "steps", scope.scalar(1, np.int64))  # not -1, which not every engine counts from the end
    scope.add("Gather", "y_steps", last, axis=0, name="y")
    return scope.nodes


def _loop_body(parts: Parts, start: Start) -> onnx.GraphProto:
    """One step as a loop body; it reads ``e``, the weights and the call's inputs from the graph around it."""
    scope = Scope("step.")
    step = parts.step(scope, start, "step.y", "step.z")
    answer, logits, halt = contract.output_signature(parts.spec, "step"), step.logits, step.halt_logit
    rows = answer["carry_y_next"]
    outputs: Signature = {
        scope.add("Constant", value=onnx.numpy_helper.from_array(np.asarray(True))): (np.dtype(np.bool_), ()),
        step.y: rows,
        step.z: rows,
        step.answer: answer["y"],
        **({logits: answer["logits"]} if logits else {}),
        halt: answer["halt_logit"],
    }
    scalars: Signature = {"step.k": (np.dtype(np.int64), ()), "step.cond": (np.dtype(np.bool_), ())}
    inputs = scalars | {"step.y": rows, "step.z": rows}
    return onnx.helper.make_graph(scope.nodes, "step", _values(inputs), _values(outputs))


def _write_step(parts: Parts, _steps: int) -> Sequence[onnx.NodeProto]:
    """Write one step; ``first`` takes the start's y and z in place of the carry, whatever that holds."""
    scope = Scope()
    start = parts.start(scope)
    y = scope.add("Where", "first", start.y, "carry_y")
    z = scope.add("Where", "first", start.z, "carry_z")
    step = parts.step(scope, start, y, z)
    scope.add("Identity", step.answer, name="y")
    if step.logits:
        scope.add("Identity", step.logits, name="logits")
    scope.add("Identity", step.halt_logit, name="halt_logit")
    scope.add("Identity", step.y, name="carry_y_next")
    scope.add("Identity", step.z, name="carry_z_next")
    return scope.nodes


def _values(signature: Signature) -> list[onnx.ValueInfoProto]:
    return [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), list(dims))
        for name, (dtype, dims) in signature.items()
    ]
