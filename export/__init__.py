"""From a checkpoint to what runs: ``.trm`` bundles, ONNX graphs and TensorRT engines.

    from trm_edge.export import export_bundle, export_engine, export_onnx

    export_bundle("step_1000.pt", "push.trm")                     # golden vectors included
    export_onnx("push.trm", "push.onnx", loop="onnx-loop")
    export_engine("push.trm", "push.engine", loop="loop", precision="fp16", gpus=["sm89"])

Reading checkpoints needs torch, the official trainer's PyYAML, graphs onnx: ``pip install 'trm-edge[export]'``, engines
TensorRT: ``pip install 'trm-edge[tensorrt]'``. Each is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trm_edge.extras import lazy_attribute

if TYPE_CHECKING:
    from .bundle_writer import export_bundle as export_bundle
    from .checkpoint import load_checkpoint as load_checkpoint
    from .checkpoint import save_checkpoint as save_checkpoint
    from .official import load_official as load_official
    from .onnx_graph import build_onnx as build_onnx
    from .onnx_graph import export_onnx as export_onnx
    from .tensorrt import build_engine as build_engine
    from .tensorrt import export_engine as export_engine

_HOMES = {
    "export_bundle": "bundle_writer",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "load_official": "official",
    "build_onnx": "onnx_graph",
    "export_onnx": "onnx_graph",
    "build_engine": "tensorrt",
    "export_engine": "tensorrt",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a function's module at its first use, so that each asks only for the packages that it needs."""
    return lazy_attribute(__name__, _HOMES, name)
