"""A thin writer of ONNX nodes: names, constants and the initialisers that all scopes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_edge.extras import import_extra
from trm_edge.inputs import Array

if TYPE_CHECKING:
    import onnx as onnx  # the other files of this folder take it from here
    from onnx import NodeProto, TensorProto
else:
    onnx = import_extra("onnx", "exporting an ONNX graph", "export")

DOMAIN = "trm_edge"
OPSET = 19  # the newest that ONNX Runtime, OpenVINO and TensorRT of the last two years all read
IR_VERSION = 9


class Weights:
    """The model's tensors; each one asked for becomes one initialiser of the graph, however often it is used."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self._used: dict[str, Array] = {}
        self._derived: dict[str, Any] = {}

    def plain(self, name: str) -> str:
        """Return the initialiser of tensor ``name`` as the bundle has it."""
        return self.table(name, self._tensors[name])

    def transposed(self, name: str) -> str:
        """Return the initialiser ``<name>.t``: the tensor as ``[in, out]``, the right operand of ``MatMul``."""
        return self.table(f"{name}.t", self._tensors[name].T)

    def table(self, name: str, values: Array) -> str:
        """Return the initialiser ``name`` with ``values``."""
        self._used.setdefault(name, values)
        return name

    def derived(self, name: str, tensor: str, make: Callable[[Array], Any]) -> Any:
        """Return ``make`` of a tensor, worked out once and kept as ``name``; it becomes no initialiser by itself."""
        if name not in self._derived:
            self._derived[name] = make(self._tensors[tensor])
        return self._derived[name]

    def nbytes(self) -> int:
        """Bytes of all initialisers."""
        return sum(values.nbytes for values in self._used.values())

    def initializers(self) -> list[TensorProto]:
        """Return every tensor that was asked for."""
        return [onnx.numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in self._used.items()]


class Scope:
    """Nodes of one graph, loop body or function, in order; ``prefix`` keeps names apart between them."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[NodeProto] = []
        self._prefix = prefix
        self._constants: dict[bytes, str] = {}

    def add(self, op: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        return self.add_many(op, *inputs, names=[name or self._fresh(op)], domain=domain, **attributes)[0]

    def add_many(self, op: str, *inputs: str, names: list[str], domain: str = "", **attributes: Any) -> list[str]:
        """Append a node with the outputs ``names``."""
        self.nodes.append(onnx.helper.make_node(op, list(inputs), names, domain=domain, **attributes))
        return names

    def split(self, value: str, sizes: list[int], axis: int) -> list[str]:
        """Split ``value`` along ``axis``."""
        names = [self._fresh("Split", str(i)) for i in range(len(sizes))]
        return self.add_many("Split", value, self.ints(*sizes), names=names, axis=axis)

    def rows(self, value: str, start: str, end: str) -> str:
        """Return rows ``start`` to ``end`` of ``value``; both are int64 ``[1]``."""
        return self.add("Slice", value, start, end, self.ints(0))

    def ints(self, *values: int) -> str:
        """Return a constant int64 vector."""
        return self.constant(np.asarray(values, np.int64))

    def scalar(self, value: float | np.floating[Any], dtype: Any = np.float32) -> str:
        """Return a constant scalar."""
        return self.constant(np.asarray(value, dtype))

    def constant(self, value: Array) -> str:
        """Return a constant, shared inside this scope (a function sees nothing outside itself)."""
        tensor = onnx.numpy_helper.from_array(value)
        key = tensor.SerializeToString()
        if key not in self._constants:
            self._constants[key] = self.add("Constant", value=tensor)
        return self._constants[key]

    def _fresh(self, op: str, suffix: str = "") -> str:
        return f"{self._prefix}{op.lower()}{len(self.nodes)}{'_' + suffix if suffix else ''}"
