"""Small models for the tests: every kind and mixer, with random weights whose residual branches are gentle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trm_edge.bundle import Bundle
from trm_edge.golden import random_inputs, record_golden, record_quantized_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import Quantization, matrix_names
from trm_edge.reference import ReferenceModel
from trm_edge.spec import TrmSpec, identity_statistics

GENTLE = 0.3  # recursion amplifies rounding; residual branches this small keep float32 close to float64

_COMMON: dict[str, Any] = {"hidden_size": 24, "inner_size": 20, "l_cycles": 2, "h_cycles": 2}
_KINDS: dict[str, dict[str, Any]] = {
    "actions": {"answer": "actions", "registers": 2, "answer_rows": 5, "max_context": 6, "context_size": 7, "dof": 3},
    "slots": {
        **{"answer": "slots", "registers": 1, "answer_rows": 4, "max_context": 5, "context_size": 6},
        **{"slot_size": 5, "candidate_size": 4, "max_candidates": 6},
    },
    "tokens": {
        **{"answer": "tokens", "registers": 3, "answer_rows": 9, "vocab_size": 7},
        **{"num_puzzles": 4, "puzzle_size": 50},
    },
}
_MIXERS: dict[str, dict[str, Any]] = {
    "rope": {"mixer": "attention", "num_heads": 3, "positions": "rope"},
    "learned": {"mixer": "attention", "num_heads": 3, "positions": "learned"},
    "none": {"mixer": "attention", "num_heads": 3, "positions": "none"},
    "mlp_t": {"mixer": "mlp_t", "token_inner_size": 10, "positions": "none"},
    "mlp_t_learned": {"mixer": "mlp_t", "token_inner_size": 10, "positions": "learned"},
}
CASES = [(kind, mixer) for kind in _KINDS for mixer in _MIXERS if not (kind == "slots" and mixer.startswith("mlp_t"))]


def make_spec(kind: str, mixer: str = "rope", **changes: Any) -> TrmSpec:
    """Return a small spec; ``changes`` override its fields."""
    return TrmSpec(**(_COMMON | _KINDS[kind] | _MIXERS[mixer] | changes))


def random_weights(spec: TrmSpec, seed: int = 0, gentle: float = GENTLE) -> dict[str, np.ndarray]:
    """Draw weights at 1/sqrt(fan-in), residual branches scaled by ``gentle``, and statistics that are not identity."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in spec.tensor_shapes().items():
        values = rng.standard_normal(shape)
        if name.endswith(".weight"):
            values /= np.sqrt(shape[-1])
        if name.endswith(("attention.out.weight", "token_mixer.down.weight", "mlp.down.weight")):
            values *= gentle
        if name.endswith(".std"):
            values = 0.5 + rng.random(shape)
        tensors[name] = values.astype(np.float32)
    tensors["halt_head.bias"][:] = -5  # as trainers start; a logit near 0 would have a huge relative error
    if spec.answer == "actions":
        tensors["limits.lower"] = np.linspace(-1.5, -0.5, spec.dof, dtype=np.float32)
        tensors["limits.upper"] = np.linspace(0.5, 1.5, spec.dof, dtype=np.float32)
        tensors["limits.velocity"] = np.linspace(0.2, 0.8, spec.dof, dtype=np.float32)
    return tensors


def make_bundle(kind: str, mixer: str = "rope", *, seed: int = 0, steps: int = 4, **changes: Any) -> Bundle:
    """Return a bundle with two golden cases."""
    spec = make_spec(kind, mixer, **changes)
    tensors = random_weights(spec, seed)
    rng = np.random.default_rng(seed + 1)
    calls = [random_inputs(spec, rng) for _ in range(2)]
    return Bundle(spec, tensors, record_golden(spec, tensors, calls, steps), {"source": "tests/python/models.py"})


def with_huge_keys(bundle: Bundle) -> Bundle:
    """Return ``bundle`` with keys beyond float16 in its first block, whose weights are inside it."""
    name, D = "blocks.0.attention.qkv.weight", bundle.spec.hidden_size
    weight = bundle.tensors[name].copy()
    weight[D : 2 * D] *= np.float32(60000) / np.abs(weight[D : 2 * D]).max()
    return replace(bundle, tensors={**bundle.tensors, name: weight})


class _Ranges(ReferenceModel):
    """Notes the largest magnitude of every matrix input, by step."""

    seen: dict[tuple[str, int], float]

    def product(self, name: str, a: np.ndarray, k: int) -> np.ndarray:
        self.seen[name, k] = max(self.seen.get((name, k), 0.0), float(np.abs(a).max()))
        return super().product(name, a, k)


def calibrated(bundle: Bundle, scheme: str = "static-per-step", *, steps: int = 4, **precision: str) -> Bundle:
    """Return ``bundle`` calibrated on a few random calls; ``precision`` sets matrices by a part of their name."""
    names, spec = matrix_names(bundle.spec), bundle.spec
    chosen = {n: next((p for part, p in precision.items() if part in n), "int8") for n in names}
    scales = {}
    if scheme != "dynamic":
        model = _Ranges(spec, bundle.tensors)
        model.seen = {}
        rng = np.random.default_rng(7)
        for _ in range(8):
            run_reference(model, check_inputs(spec, **random_inputs(spec, rng)), steps)
        most = {n: np.float32([model.seen[n, k + 1] for k in range(steps)]) for n in names if chosen[n] == "int8"}
        scales = {
            n: (m if scheme == "static-per-step" else m.max(keepdims=True)) / np.float32(127) for n, m in most.items()
        }
    quantization = Quantization(scheme, chosen, scales)
    golden = record_quantized_error(spec, bundle.tensors, bundle.golden, quantization)
    return replace(bundle, quantization=quantization, golden=golden)


__all__ = ["CASES", "GENTLE", "calibrated", "identity_statistics", "make_bundle", "make_spec", "random_weights"]
