"""JAX: the recursion compiled by XLA, weights as constants; float32, or everything in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trm_edge.inputs import Array

from .common import Hosted, Peer, PeerError, Problem, Run, recursion

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


class JaxPeer(Peer):
    """XLA on the CPU. Its pool has a worker per core of the machine, so that only one thread can be asked for.

    ``whole`` compiles all steps as one program, ``step`` one of them. int8 would need quantised products of its own.
    """

    name = "jax"
    package = "jax"
    precisions = ("fp32", "bf16")

    def forms(self, precision: str) -> tuple[str, ...]:
        """Return the forms."""
        return ("whole", "step")

    def build(self, problem: Problem, precision: str, threads: int, form: str) -> Run:
        """Compile the program of ``form`` for the sizes of the problem."""
        import jax
        import jax.numpy as jnp

        if threads != 1:
            raise PeerError(f"XLA cannot be held to {threads} threads: it has all cores or one")
        cpu = jax.devices("cpu")[0]
        dtype = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[precision]
        step = step_of(problem, dtype)

        def one(*rows: Any) -> Any:
            return tuple(row.astype(jnp.float32) for row in step(*(row.astype(dtype) for row in rows)))

        def whole(e: Any, y: Any, z: Any) -> Any:
            e, y, z = (row.astype(dtype) for row in (e, y, z))
            for _ in range(problem.steps):
                y, z = step(e, y, z)
            return y.astype(jnp.float32)

        size = jax.ShapeDtypeStruct((problem.rows(), problem.bundle.spec.hidden_size), np.float32)
        with jax.default_device(cpu):
            traced = jax.jit({"step": one, "whole": whole}[form]).lower(size, size, size)
            compiled = traced.compile(compiler_options={"xla_cpu_multi_thread_eigen": False})

        def run(*rows: Array) -> Any:
            found = compiled(*(jax.device_put(row, cpu) for row in rows))
            return [np.asarray(array) for array in found] if form == "step" else np.asarray(found)

        return Hosted(problem, recursion(problem, form, run))


def step_of(problem: Problem, dtype: Any) -> Step:
    """Return one refinement step, ``(e, y, z) -> (y, z)``, to be compiled; the weights are constants of ``dtype``."""
    import jax
    import jax.numpy as jnp

    spec, tensors = problem.bundle.spec, problem.bundle.tensors
    half = spec.head_size // 2 if spec.mixer == "attention" else 0
    angle = np.outer(problem.positions(), spec.rope_theta ** (-np.arange(half) / max(half, 1)))[:, None]
    cos, sin = (jnp.asarray(of(angle), dtype) for of in (np.cos, np.sin))

    def product(h: Any, name: str) -> Any:
        return h @ jnp.asarray(tensors[name], dtype).T

    def norm(h: Any) -> Any:
        wide = h.astype(jnp.float32)
        return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + spec.norm_eps)).astype(h.dtype)

    def swiglu(h: Any, name: str) -> Any:
        gate, up = jnp.split(product(h, f"{name}gate_up.weight"), 2, axis=-1)
        return product(jax.nn.silu(gate) * up, f"{name}down.weight")

    def rotated(t: Any) -> Any:
        if spec.positions != "rope":
            return t
        first, second = t[..., :half], t[..., half:]
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def attention(h: Any, name: str) -> Any:
        qkv = product(h, f"{name}qkv.weight").reshape(len(h), 3, spec.num_heads, spec.head_size)
        mixed = jax.nn.dot_product_attention(rotated(qkv[:, 0]), rotated(qkv[:, 1]), qkv[:, 2])
        return product(mixed.reshape(h.shape), f"{name}out.weight")

    def net(h: Any) -> Any:
        for block in (f"blocks.{i}." for i in range(spec.num_layers)):
            if spec.mixer == "attention":
                h = norm(h + attention(h, f"{block}attention."))
            else:
                h = norm(h.T + swiglu(h.T, f"{block}token_mixer.")).T
            h = norm(h + swiglu(h, f"{block}mlp."))
        return h

    def step(e: Any, y: Any, z: Any) -> tuple[Any, Any]:
        for _ in range(spec.h_cycles):
            for _ in range(spec.l_cycles):
                z = net(z + (y + e))
            y = net(y + z)
        return y, z

    return step
