"""Other engines on the same recursion, each behind the same few methods (``common.Peer``)."""

from .common import Peer, PeerError, Problem
from .fused_peer import FusedPeer
from .jax_peer import JaxPeer
from .onnxruntime_peer import OnnxRuntimePeer
from .openvino_peer import OpenVinoPeer
from .torch_peer import TorchPeer

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (FusedPeer, JaxPeer, OnnxRuntimePeer, OpenVinoPeer, TorchPeer)
}

__all__ = ["PEERS", "Peer", "PeerError", "Problem"]
