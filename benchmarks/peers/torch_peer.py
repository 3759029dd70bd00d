"""PyTorch on the CPU: eager and compiled; float32, bfloat16, and int8 by dynamic quantisation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from trm_edge.inputs import Array
from trm_edge.reference import rotate
from trm_edge.spec import TrmSpec

from .common import Hosted, Peer, PeerError, Problem, Run, recursion


class TorchPeer(Peer):
    """A lean module; ``frozen`` is compiled with the weights as constants, so that they are packed once.

    bfloat16 is either everything (``-all``) or the products alone, under autocast (``-autocast``).
    """

    name = "torch"
    package = "torch"
    precisions = ("fp32", "bf16", "int8")

    def forms(self, precision: str) -> tuple[str, ...]:
        """Return eager and compiled forms; quantised modules run eagerly."""
        if precision == "bf16":
            return tuple(f"{form}-{how}" for form in ("frozen", "eager") for how in ("all", "autocast"))
        return ("eager",) if precision == "int8" else ("frozen", "compiled", "eager")

    def build(self, problem: Problem, precision: str, threads: int, form: str) -> Run:
        """Make the module, and compile one step of it where asked for."""
        import torch

        torch.set_num_threads(threads)
        how, _, kind = form.partition("-")
        module = _module(problem).eval()
        held = torch.bfloat16 if kind == "all" else torch.float32
        module.to(held)
        if precision == "int8":
            module = _quantized(module)
        autocast = kind == "autocast"
        step = module
        if how != "eager":
            import torch._dynamo.config as dynamo
            import torch._inductor.config as inductor

            dynamo.recompile_limit = (
                10_000  # every form compiles the same code anew; past the limit it would run eagerly
            )
            dynamo.accumulated_recompile_limit = 10_000
            dynamo.fail_on_recompile_limit_hit = True
            inductor.freezing = how == "frozen"
            inductor.compile_threads = 1  # no pool of compilers beside the measurement
            step = torch.compile(module, dynamic=False)

        def run(e: Array, y: Array, z: Array) -> Any:
            torch.set_num_threads(threads)
            no_gradients = torch.inference_mode() if how == "eager" else torch.no_grad()
            with no_gradients, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                rows = [torch.from_numpy(a).to(held) for a in (e, y, z)]
                for _ in range(problem.steps):
                    rows[1], rows[2] = step(*rows)
                return rows[1].float().numpy()

        hosted = Hosted(problem, recursion(problem, "whole", run))
        try:
            hosted(problem.inputs()[0])
        except Exception as error:  # a compiler that is missing, an operator that is not there
            raise PeerError(
                f"torch {form}: {type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
            ) from None
        return hosted


def _quantized(module: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecation
        try:
            result = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
        except (AttributeError, RuntimeError) as error:
            raise PeerError(f"torch has no dynamic quantisation here: {error}") from None
    left = [name for name, part in result.named_modules() if type(part) is torch.nn.Linear]
    if left:
        raise PeerError(f"quantize_dynamic left {len(left)} matrices in float32")
    return result


def _module(problem: Problem) -> Any:
    """Return one refinement step, ``(e, y, z) -> (y, z)``, as a module with the bundle's weights."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    spec: TrmSpec = problem.bundle.spec
    tensors = problem.bundle.tensors
    half = spec.head_size // 2 if spec.mixer == "attention" else 0

    def linear(name: str) -> Any:
        weight = torch.from_numpy(np.array(tensors[name]))
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        return layer

    def norm(h: Any) -> Any:
        return F.rms_norm(h, h.shape[-1:], eps=spec.norm_eps)

    class Block(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.gate_up, self.down = linear(f"{name}mlp.gate_up.weight"), linear(f"{name}mlp.down.weight")
            if spec.mixer == "attention":
                self.qkv, self.out = linear(f"{name}attention.qkv.weight"), linear(f"{name}attention.out.weight")
                if spec.positions == "rope":
                    one = np.ones((1, problem.rows(), half))
                    both = rotate(np.concatenate([one, 0 * one], axis=-1), problem.positions(), spec.rope_theta)
                    cos, sin = (torch.from_numpy(part.astype(np.float32)) for part in np.split(both[0], 2, axis=-1))
                    self.register_buffer("cos", cos)
                    self.register_buffer("sin", sin)
            else:
                self.t_gate_up = linear(f"{name}token_mixer.gate_up.weight")
                self.t_down = linear(f"{name}token_mixer.down.weight")

        def forward(self, h: Any) -> Any:
            if spec.mixer == "attention":
                h = norm(h + self.attention(h))
            else:
                h = norm(h.T + swiglu(h.T, self.t_gate_up, self.t_down)).T
            return norm(h + swiglu(h, self.gate_up, self.down))

        def attention(self, h: Any) -> Any:
            qkv = self.qkv(h).view(1, len(h), 3, spec.num_heads, spec.head_size)
            q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
            if spec.positions == "rope":
                q, k = (self.rotated(t) for t in (q, k))
            mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
            return self.out(mixed.transpose(1, 2).reshape(h.shape))

        def rotated(self, t: Any) -> Any:
            first, second = t[..., :half], t[..., half:]
            return torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], -1)

    def swiglu(h: Any, gate_up: Any, down: Any) -> Any:
        gate, up = gate_up(h).chunk(2, -1)
        return down(F.silu(gate) * up)

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block(f"blocks.{i}.") for i in range(spec.num_layers))

        def net(self, h: Any) -> Any:
            for block in self.blocks:
                h = block(h)
            return h

        def forward(self, e: Any, y: Any, z: Any) -> tuple[Any, Any]:
            for _ in range(spec.h_cycles):
                for _ in range(spec.l_cycles):
                    z = self.net(z + (y + e))
                y = self.net(y + z)
            return y, z

    return Step()
