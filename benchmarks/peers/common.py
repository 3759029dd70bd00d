"""What a peer is, and the recursion around ``net`` where a runtime evaluates only a part of it.

A peer offers several *forms*, ways to put the recursion to its runtime; the benchmark tries all and keeps the fastest:

``net``    the runtime evaluates ``net``, called ``K * h_cycles * (l_cycles + 1)`` times
``step``   one refinement step, called K times
``whole``  the whole recursion in one call
``export`` the unrolled graph of ``trm-edge export``, encoders and decoders inside

In the first three NumPy encodes the inputs and decodes the last step, which is what they are asked for; the fused
engine and ``export`` decode every step.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import relative_error, run_reference
from trm_edge.inputs import Array, Inputs, check_inputs
from trm_edge.quantization import quantize_weight, round_bf16
from trm_edge.reference import ReferenceModel

Run = Callable[[Inputs], Array]
Evaluate = Callable[..., Any]


class PeerError(RuntimeError):
    """A form that a runtime cannot run, or runs in another way than it is asked to; the message says why."""


@dataclass(frozen=True)
class Problem:
    """A model, and calls of one size to run it on."""

    bundle: Bundle
    steps: int
    calls: list[dict[str, Any]]

    def inputs(self) -> list[Inputs]:
        """Return the checked arguments of the calls."""
        return [check_inputs(self.bundle.spec, **call) for call in self.calls]

    def rows(self) -> int:
        """Return L."""
        inputs, spec = self.inputs()[0], self.bundle.spec
        return spec.registers + inputs.answer_rows + (0 if spec.answer == "tokens" else len(inputs.x))

    def digest(self) -> str:
        """Return the hash of the model, by which reports of different ones are told apart."""
        return self.bundle.sha256 or hashlib.sha256(bundle_bytes(self.bundle)).hexdigest()

    def positions(self) -> list[int]:
        """Return the positions of the rows."""
        inputs, spec = self.inputs()[0], self.bundle.spec
        return spec.row_positions(inputs.answer_rows, 0 if spec.answer == "tokens" else len(inputs.x))

    def truth(self) -> list[Array]:
        """Return the float64 oracle's last step for every call."""
        return self._last(self.bundle.tensors)

    def yardstick(self, precision: str) -> float:
        """Return the median error of the oracle with its matrices rounded to ``precision``, inputs of products exact.

        Anything that rounds both is a few times worse; ten times as much is an error of another kind.
        """
        if precision == "fp32":
            model = ReferenceModel(self.bundle.spec, self.bundle.tensors, np.float32)
            rounded = [_answer(run_reference(model, inputs, self.steps)[-1]) for inputs in self.inputs()]
        else:
            rounding = {"bf16": round_bf16, "int8": round_int8}[precision]
            matrices = {n: rounding(w) if is_matrix(n) else w for n, w in self.bundle.tensors.items()}
            rounded = self._last(matrices)
        return median_error(rounded, self.truth())

    def _last(self, tensors: Any) -> list[Array]:
        model = ReferenceModel(self.bundle.spec, tensors)
        return [_answer(run_reference(model, inputs, self.steps)[-1]) for inputs in self.inputs()]


class Peer:
    """One engine. A subclass says what it needs, which forms and precisions it has, and how to build one."""

    name: ClassVar[str]
    package: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]

    @classmethod
    def missing(cls) -> str | None:
        """Return why this peer cannot run here, or None."""
        found = importlib.util.find_spec(cls.package)
        there = found is not None and found.origin is not None  # a folder of that name is no package
        return None if there else f"{cls.package} is not installed; pip install 'trm-edge[bench]'"

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(importlib.import_module(cls.package).__version__).split("-")[0]

    def forms(self, precision: str) -> tuple[str, ...]:
        """Return the forms to try in ``precision``, best guess first."""
        raise NotImplementedError

    def build(self, problem: Problem, precision: str, threads: int, form: str) -> Run:
        """Return ``run(inputs) -> last step's answer`` (logits for discrete answers), or raise :class:`PeerError`."""
        raise NotImplementedError


class Hosted(ReferenceModel):
    """The oracle's encoders and decoders in float32, around a recursion that someone else evaluates."""

    def __init__(self, problem: Problem, evaluate: Callable[[Array, Array, Array], Array]) -> None:
        super().__init__(problem.bundle.spec, problem.bundle.tensors, np.float32)
        self._evaluate = evaluate

    def __call__(self, inputs: Inputs) -> Array:
        """Encode, evaluate ``(e, y, z) -> y`` and decode."""
        carry = self.begin(inputs)
        return _answer(self._decode(replace(carry, y=self._evaluate(carry.e, carry.y, carry.z))))


def recursion(problem: Problem, form: str, run: Evaluate) -> Callable[[Array, Array, Array], Array]:
    """Return ``(e, y, z) -> y`` that calls ``run`` in the way of ``form``.

    ``run`` is ``h -> h`` for ``net``, ``(e, y, z) -> (y, z)`` for ``step`` and ``(e, y, z) -> y`` for ``whole``.
    """
    spec, steps = problem.bundle.spec, problem.steps

    def by_net(e: Array, y: Array, z: Array) -> Array:
        h = np.empty_like(e)
        for _ in range(steps * spec.h_cycles):
            for _ in range(spec.l_cycles):
                np.add(y, e, out=h)
                h += z
                z = run(h)
            np.add(y, z, out=h)
            y = run(h)
        return y

    def by_step(e: Array, y: Array, z: Array) -> Array:
        for _ in range(steps):
            y, z = run(e, y, z)
        return y

    return {"net": by_net, "step": by_step, "whole": run}[form]


def net_inputs(problem: Problem, calls: int = 4) -> list[Array]:
    """Return what ``net`` sees during the first calls, for calibration: every evaluation, float32."""
    seen: list[Array] = []

    class Watched(ReferenceModel):
        def net(self, h: Array, positions: list[int], k: int) -> Array:
            seen.append(np.ascontiguousarray(h))
            return super().net(h, positions, k)

    model = Watched(problem.bundle.spec, problem.bundle.tensors, np.float32)
    for inputs in problem.inputs()[:calls]:
        run_reference(model, inputs, problem.steps)
    return seen


def is_matrix(name: str) -> bool:
    """Whether a tensor is a matrix of the blocks, which is what a precision is about."""
    return name.startswith("blocks.") and name.endswith(".weight")


def round_int8(values: Array) -> Array:
    """Round a matrix to int8 with a scale per output channel, and back."""
    q, scale = quantize_weight(values)
    return q * scale[:, None]


def median_error(answers: list[Array], truths: list[Array]) -> float:
    """Return the median relative error; Inf where an answer is not finite."""
    pairs = zip(answers, truths, strict=True)
    errors = [relative_error(a, t) if np.isfinite(a[np.isfinite(t)]).all() else np.inf for a, t in pairs]
    return float(np.median(errors))


def _answer(output: Any) -> Array:
    return output.y if output.logits is None else output.logits
