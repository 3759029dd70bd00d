"""TensorRT networks: parsed from ONNX, closed into a loop, and taken apart again to prove what they hold.

The loop form is the ONNX ``step`` graph with its carry tied back: the parsed network gets an ``ILoop`` whose
recurrences begin at the step's own start and stand where the carry came in. So the layers of a step have one
definition, the graph that is tested against the oracle; writing them a second time with the network API would only add
a way to be wrong. TensorRT need not be told which layers are inside: those that depend on a recurrence. The encoders
do not, and run once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_edge.errors import TrmUnsupportedError
from trm_edge.inputs import Array

from .onnx_scope import onnx


def parse(library: Any, builder: Any, logger: Any, model: onnx.ModelProto) -> Any:
    """Return a strongly typed ``INetworkDefinition`` of an ONNX graph."""
    # TensorRT 11 knows no other network and no such flag.
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise TrmUnsupportedError(f"{library.__name__} {library.__version__} cannot read the graph: {reasons[:500]}")
    return network


def parse_loop(library: Any, builder: Any, logger: Any, step: onnx.ModelProto) -> Any:
    """Return the network of a ``step`` graph closed into a loop with the trip count ``steps``, an int64 input.

    Inputs and outputs are those of the ``onnx-loop`` form.
    """
    body = onnx.ModelProto()
    body.CopyFrom(step)
    carried = _begin_at_start(body.graph)
    network = parse(library, builder, logger, body)
    outputs = {tensor.name: tensor for tensor in _outputs(network)}
    for tensor in outputs.values():
        network.unmark_output(tensor)
    steps = network.add_input("steps", library.int64, ())
    loop = network.add_loop()
    loop.add_trip_limit(steps, library.TripLimit.COUNT)
    for name, first in carried.items():
        _tie(network, loop, first, outputs[f"{name}_next"])
    answer = outputs["y"]
    answer.name = "step.y"
    last = loop.add_recurrence(_draft(network))
    last.set_input(1, answer)
    _deliver(network, loop.add_loop_output(last.get_output(0), library.LoopOutput.LAST_VALUE), "y")
    collected = {"y_steps": answer, "logits_steps": outputs.get("logits"), "halt_logits": outputs["halt_logit"]}
    for name, tensor in collected.items():
        if tensor is not None:
            output = loop.add_loop_output(tensor, library.LoopOutput.CONCATENATE, 0)
            output.set_input(1, steps)
            _deliver(network, output, name)
    return network


def _begin_at_start(graph: onnx.GraphProto) -> dict[str, str]:
    """Let a step begin at its start in place of a carry, and return the values that stood for each carry."""
    carried = {}
    for node in graph.node:
        if node.op_type == "Where" and node.input[0] == "first":
            _, start, carry = node.input
            carried[carry] = node.output[0]
            node.op_type, node.input[:] = "Identity", [start]
    for value in [value for value in graph.input if value.name in ("first", *carried)]:
        graph.input.remove(value)
    return carried


def _tie(network: Any, loop: Any, first: str, after: Any) -> None:
    """Read a recurrence over ``after`` wherever the value ``first`` was read, which is what it begins with."""
    (begin,) = (layer for layer in _layers(network) if first in _names_out(layer))
    recurrence = loop.add_recurrence(begin.get_input(0))
    for layer, i in list(_uses(network, first)):
        layer.set_input(i, recurrence.get_output(0))
    recurrence.set_input(1, after)


def _draft(network: Any) -> Any:
    """Return what the answer is before the first step; of tokens, which have no draft, an array of the same shape."""
    inputs = {tensor.name: tensor for tensor in _inputs(network)}
    return inputs["y0"] if "y0" in inputs else inputs["x"]


def _deliver(network: Any, layer: Any, name: str) -> None:
    tensor = layer.get_output(0)
    tensor.name = name
    network.mark_output(tensor)


@dataclass(frozen=True)
class NetworkFacts:
    """What a network holds, read from the network itself.

    ``trip_limits`` are pairs of a limit's kind and the name of the network input that it comes from, empty where it
    comes from none; ``weights`` the constants by name.
    """

    layers: Counter[str]
    trip_limits: tuple[tuple[str, str], ...]
    weights: Mapping[str, Array]


def facts(library: Any, network: Any) -> NetworkFacts:
    """Take a network apart."""
    layers: Counter[str] = Counter()
    weights: dict[str, Array] = {}
    limits = []
    kinds = library.LayerType
    passing = (kinds.IDENTITY, kinds.CAST, kinds.SHUFFLE, kinds.SQUEEZE, kinds.UNSQUEEZE)
    origin = {tensor.name: tensor.name for tensor in _inputs(network)}  # of tensors that are an input, in other words
    for layer in _layers(network):
        layers[_name(layer.type)] += 1
        if layer.type == library.LayerType.CONSTANT:
            layer.__class__ = library.IConstantLayer
            values = layer.weights  # bfloat16 and float8, which NumPy does not have, come as an object without values
            if isinstance(values, np.ndarray):
                weights[layer.name] = np.array(values).reshape(tuple(layer.shape))
        elif layer.type == library.LayerType.TRIP_LIMIT:
            layer.__class__ = library.ITripLimitLayer
            limits.append((_name(layer.kind), origin.get(layer.get_input(0).name, "")))
        elif layer.type in passing and layer.get_input(0).name in origin:
            origin[layer.get_output(0).name] = origin[layer.get_input(0).name]
    return NetworkFacts(layers, tuple(sorted(limits)), weights)


BlockProducts = Mapping[str, Counter[str]]
"""For each block matrix how many products an engine does in which of TensorRT's formats: ``Int8``, ``Half``, ..."""

_LAYER = re.compile(
    r"^Name: .*?, LayerType: (?:gemm|runtime_fusion), "
    r"Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], Outputs: .*Metadata: (?P<from>.*)$"
)


def block_products(layers: str, model: onnx.ModelProto) -> BlockProducts:
    """Read the engine inspector's list of layers, one a line, as a builder writes it at the end of a build.

    A layer says from which nodes of the graph it was made. Where it multiplies, its format is that of its first input
    and first constant, or both where they differ.
    """
    matrices = dict(_matrix_products(model.graph))
    found: dict[str, Counter[str]] = {matrix: Counter() for matrix in matrices.values()}
    for line in layers.splitlines():
        layer = _LAYER.match(line)
        for node in re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer["from"]) if layer else []:
            if layer and node in matrices:
                formats = [re.findall(r"Datatype: (\w+)", layer[part])[:1] for part in ("inputs", "constants")]
                found[matrices[node]][" x ".join(dict.fromkeys(name for first in formats for name in first))] += 1
    return found


def _matrix_products(graph: onnx.GraphProto, weights: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Yield the name that the parser gives every product of a block matrix, and the matrix."""
    held = dict(weights or {})
    held |= {t.name: t.name for t in graph.initializer if t.name.startswith("blocks.")}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _matrix_products(attribute.g, held)
        if node.op_type == "DequantizeLinear" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
        if node.op_type == "MatMul":
            for name in (held[i] for i in node.input if i in held):
                yield f"node_of_{node.output[0]}", name.removesuffix(".t").rpartition(".")[0]


def _name(value: Any) -> str:
    return str(value).rsplit(".", 1)[-1]


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(i) for i in range(network.num_layers))


def _inputs(network: Any) -> Iterator[Any]:
    return (network.get_input(i) for i in range(network.num_inputs))


def _outputs(network: Any) -> Iterator[Any]:
    return (network.get_output(i) for i in range(network.num_outputs))


def _names_out(layer: Any) -> list[str]:
    return [layer.get_output(i).name for i in range(layer.num_outputs)]


def _uses(network: Any, name: str) -> Iterator[tuple[Any, int]]:
    """Yield every layer and input index where the tensor ``name`` is read."""
    for layer in _layers(network):
        for i in range(layer.num_inputs):
            tensor = layer.get_input(i)
            if tensor is not None and tensor.name == name:
                yield layer, i
