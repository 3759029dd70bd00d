"""Golden vectors: recorded with the oracle at export, compared on the device by ``trm-edge verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .bundle import Bundle, GoldenCase
from .errors import TrmBundleError, TrmInputError, TrmUnsupportedError
from .inputs import ARRAYS, Array, Inputs, check_inputs, stored_arguments
from .quantization import Quantization, QuantizedModel, uniform
from .reference import ReferenceModel, StepOutput, project_limits
from .spec import TrmSpec

FP32_TOLERANCE = 1e-5
NUDGES, NUDGE = 4, 2.0**-21  # runs of the oracle, and by how much its matrices are off: as sums in another order are
QUANTIZED_MARGIN = 1.5
"""How far beyond the fake-quantised oracle's own error over the trajectory a lower precision may be."""

_INPUTS = (*ARRAYS[:-1], "puzzle_id")  # a case is projected without a last_action


def relative_error(value: Array, truth: Array) -> float:
    """``max|value - truth| / max|truth|`` over entries where the truth is finite; Inf where finiteness differs."""
    value, truth = np.asarray(value, np.float64), np.asarray(truth, np.float64)
    finite = np.isfinite(truth)
    if value.shape != truth.shape or not np.array_equal(value[~finite], truth[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    gap = np.abs(value[finite] - truth[finite]).max()
    scale = np.abs(truth[finite]).max()
    return float(gap / scale) if scale > 0 else (0.0 if gap == 0 else float("inf"))


def random_inputs(
    spec: TrmSpec,
    rng: np.random.Generator,
    *,
    answer_rows: int | None = None,
    context_rows: int | None = None,
    candidates: int | None = None,
) -> dict[str, Any]:
    """Draw arguments for ``refine`` that fit ``spec``; sizes default to the maxima."""
    rows = spec.answer_rows if answer_rows is None else answer_rows
    context = spec.max_context if context_rows is None else context_rows
    if spec.answer == "tokens":
        return {
            "x": rng.integers(0, spec.vocab_size, rows).astype(np.int32),
            "y0": None,
            "puzzle_id": int(rng.integers(spec.num_puzzles)),
        }
    arguments: dict[str, Any] = {"x": _normal(rng, context, spec.context_size)}
    if spec.answer == "actions":
        arguments["y0"] = _normal(rng, rows, spec.dof)
        if spec.feature_size:
            arguments["features"] = _normal(rng, rows, spec.feature_size)
        return arguments
    count = spec.max_candidates if candidates is None else candidates
    mask = rng.random((rows, count)) < 0.7
    draft = [int(rng.choice(np.flatnonzero(row))) if row.any() and rng.random() < 0.7 else -1 for row in mask]
    arguments |= {"slots": _normal(rng, rows, spec.slot_size), "candidates": _normal(rng, count, spec.candidate_size)}
    return arguments | {"mask": mask, "y0": np.asarray(draft, np.int32)}


def run_reference(model: ReferenceModel, inputs: Inputs, steps: int) -> list[StepOutput]:
    """Run ``steps`` refinement steps of the oracle."""
    outputs = []
    carry = model.begin(inputs)
    for _ in range(steps):
        carry, output = model.step(carry)
        outputs.append(output)
    return outputs


def record_golden(
    spec: TrmSpec,
    tensors: Mapping[str, Array],
    arguments: Sequence[Mapping[str, Any]],
    steps: int = 4,
) -> list[GoldenCase]:
    """Run the oracle on each set of ``refine`` arguments and record a golden case of it."""
    exact, rounded = ReferenceModel(spec, tensors), ReferenceModel(spec, tensors, np.float32)
    cases = []
    for call in arguments:
        inputs = check_inputs(spec, **call)
        truth = _stack(run_reference(exact, inputs, steps))
        plain = _stack(run_reference(rounded, inputs, steps))
        if spec.answer == "actions":
            truth["projected"] = _projected(tensors, truth["y"])
        truth["fp32_error"] = np.max([_errors(spec, plain, truth, k) for k in range(steps)], axis=1)
        given = {name: np.asarray(value) for name, value in call.items() if value is not None}
        if "puzzle_id" in given:
            given["puzzle_id"] = given["puzzle_id"].astype(np.int32)
        cases.append(GoldenCase(given, truth))
    return cases


def record_quantized_error(
    spec: TrmSpec, tensors: Mapping[str, Array], cases: Sequence[GoldenCase], quantization: Quantization
) -> list[GoldenCase]:
    """Return golden cases that carry ``quantized_error [K]``, the error of the fake-quantised oracle by step.

    It is the largest of several runs: where these round a value near a tie apart, the recursion carries that on.
    """
    errors = _quantized_errors(spec, tensors, cases, quantization)
    return [
        replace(case, outputs={**case.outputs, "quantized_error": error})
        for case, error in zip(cases, errors, strict=True)
    ]


@dataclass(frozen=True)
class StepCheck:
    """Comparison of one step: largest relative error, what is allowed, and answers that differ beyond a tie.

    ``output`` is ``step`` for a step's answer, logits and halt logit, ``projected`` for the answer inside the limits.
    """

    case: int
    step: int
    output: str
    error: float
    tolerance: float
    mismatches: int

    @property
    def passed(self) -> bool:
        """Whether the step is within tolerance; NaN is not."""
        return self.error <= self.tolerance and self.mismatches == 0


def golden_arguments(case: GoldenCase) -> dict[str, Any]:
    """Return the recorded ``refine`` arguments of ``case``, or raise :class:`TrmBundleError`."""
    try:
        return stored_arguments(case.inputs, _INPUTS)
    except TrmInputError as error:
        raise TrmBundleError(f"golden inputs: {error}") from None


def verify(refiner: Any, bundle: Bundle) -> list[StepCheck]:
    """Run every golden case through ``refiner`` (a :class:`~trm_edge.Refiner`) and compare each step with the oracle.

    A step passes in float32 when its relative error is at most ``max(1e-5, 4 * fp32_error[step])``. A refiner of lower
    precision may err in any step by 1.5 times the largest error of the fake-quantised oracle over the trajectory, where
    that is more, since two roundings of one recursion part at a tie and meet again. It is the recorded error where the
    refiner runs what the bundle was calibrated to, else that of every matrix in its precision. Projection moves no two
    answers farther apart, so the projected answer may err by as much, taken absolutely. Chosen indices are compared
    where the oracle's margin between the two best logits exceeds the tolerance. An unrolled graph of fewer steps than
    were recorded is compared in those.
    """
    checks = []
    spec = bundle.spec
    recorded_steps = [_golden_steps(spec, number, case) for number, case in enumerate(bundle.golden)]
    rounded = [_rounding(bundle, quantization) for quantization in _quantizations_of(refiner.precision, bundle)]
    for number, case in enumerate(bundle.golden):
        steps = min(recorded_steps[number], refiner.most_steps)
        allowed = np.maximum(FP32_TOLERANCE, 4 * case.fp32_error[:steps])
        for errors_by_case in rounded:
            allowed = np.maximum(allowed, QUANTIZED_MARGIN * errors_by_case[number][:steps].max())
        out = refiner.refine(**golden_arguments(case), steps=steps, trajectory=True)
        got: dict[str, Array] = {"y": out.trajectory, "halt_logits": out.halt_logits}
        if out.logits is not None:
            got["logits"] = out.logits
        for k in range(steps):
            tolerance = float(allowed[k])
            if out.steps_run != steps:
                checks.append(StepCheck(number, k + 1, "step", float("inf"), tolerance, 0))
                continue
            errors = _errors(spec, got, case.outputs, k)
            mismatches = 0 if spec.answer == "actions" else _mismatches(got, case.outputs, k, tolerance)
            error = float(np.max(errors))  # max() would lose a NaN
            checks.append(StepCheck(number, k + 1, "step", error, tolerance, mismatches))
        if spec.answer == "actions" and out.steps_run == steps:
            error = relative_error(out.y, case.outputs["projected"][steps - 1])
            if rounded:
                tolerance *= _shrinkage(case, steps)
            checks.append(StepCheck(number, steps, "projected", error, tolerance, 0))
    return checks


def _quantizations_of(precision: str, bundle: Bundle) -> list[Quantization]:
    """Return how a refiner of ``precision`` may round ``bundle``, and nothing where it does not.

    Of a bundle that keeps some matrices in bf16 and others in fp32 it runs either that or, where bf16 was asked for,
    all in bf16; both are "bf16". ``fp16``, whose numbers have three bits more, is held to what ``bf16`` may err.
    """
    own = bundle.quantization
    if precision == "fp8":
        raise TrmUnsupportedError("verify: there is no oracle of fp8 yet; compare answers with trm-edge refine")
    precision = "bf16" if precision == "fp16" else precision
    found = [own] if own is not None and own.summary == precision else []
    if precision in ("int8", "w8a16", "bf16") and (not found or (precision == "bf16" and found[0].matrices("fp32"))):
        found.append(uniform(bundle.spec, precision))
    return found


def _shrinkage(case: GoldenCase, step: int) -> float:
    """How much smaller a step's answer is inside the limits; what an error is relative to shrinks with it."""
    before, after = (float(np.abs(case.outputs[name][step - 1]).max()) for name in ("y", "projected"))
    return max(1.0, before / after) if after > 0 else 1.0


def _rounding(bundle: Bundle, quantization: Quantization) -> list[Array]:
    """Return the errors [K] of the fake-quantised oracle in every golden case, recorded or found now."""
    recorded = [case.outputs["quantized_error"] for case in bundle.golden if "quantized_error" in case.outputs]
    if quantization is bundle.quantization and len(recorded) == len(bundle.golden):
        return recorded
    return _quantized_errors(bundle.spec, bundle.tensors, bundle.golden, quantization)


def _quantized_errors(
    spec: TrmSpec, tensors: Mapping[str, Array], cases: Sequence[GoldenCase], quantization: Quantization
) -> list[Array]:
    """Return by case the largest error [K] of several runs of the fake-quantised oracle."""
    errors: list[Array] = [np.zeros(len(case.fp32_error)) for case in cases]
    for model in _rounded_models(spec, tensors, quantization):
        for number, case in enumerate(cases):
            steps = len(case.fp32_error)
            run = _stack(run_reference(model, check_inputs(spec, **golden_arguments(case)), steps))
            found = [max(_errors(spec, run, case.outputs, k)) for k in range(steps)]
            errors[number] = np.maximum(errors[number], found)
    return errors


def _rounded_models(
    spec: TrmSpec, tensors: Mapping[str, Array], quantization: Quantization
) -> Iterator[QuantizedModel]:
    """Yield the fake-quantised oracle in float64 and float32, and NUDGES whose block matrices are off by a rounding.

    Which way a tie falls is chance, and a recursion makes much of it: two runs tell too little of what may come.
    """
    for dtype in (np.float64, np.float32):
        yield QuantizedModel(spec, tensors, quantization, dtype)
    rng = np.random.default_rng(0)
    for _ in range(NUDGES):
        nudged = {
            name: value * (1 + rng.uniform(-NUDGE, NUDGE, value.shape)).astype(np.float32)
            for name, value in tensors.items()
            if name.startswith("blocks.")
        }
        yield QuantizedModel(spec, {**tensors, **nudged}, quantization, np.float32)


def _golden_steps(spec: TrmSpec, number: int, case: GoldenCase) -> int:
    """Return K of a golden case, after checking that its outputs fit the spec and its own inputs."""
    inputs = check_inputs(spec, **golden_arguments(case))
    steps = case.fp32_error.shape[0] if case.fp32_error.ndim == 1 else 0
    answer: tuple[int, ...] = (inputs.answer_rows, spec.dof) if spec.answer_is_float else (inputs.answer_rows,)
    shapes = {"fp32_error": (steps,), "halt_logits": (steps,), "y": (steps, *answer)}
    if spec.answer_is_float:
        shapes["projected"] = (steps, *answer)
    else:
        width = spec.logits_width(0 if inputs.candidates is None else len(inputs.candidates))
        shapes["logits"] = (steps, inputs.answer_rows, width)
    for name, shape in shapes.items():
        if steps == 0 or name not in case.outputs or case.outputs[name].shape != shape:
            raise TrmBundleError(f"golden case {number}: {name}: expected shape {list(shape)}, with at least one step")
    for name in ("fp32_error", "quantized_error"):
        error = case.outputs.get(name, case.fp32_error)
        if error.shape != (steps,) or not (np.isfinite(error) & (error >= 0)).all():
            raise TrmBundleError(
                f"golden case {number}: {name}: expected {steps} finite errors, as they set the tolerance"
            )
    return steps


def _normal(rng: np.random.Generator, rows: int, width: int) -> Array:
    return rng.standard_normal((rows, width)).astype(np.float32)


def _stack(outputs: Sequence[StepOutput]) -> dict[str, Array]:
    stacked = {
        "y": np.stack([o.y for o in outputs]),
        "halt_logits": np.asarray([o.halt_logit for o in outputs], np.float64),
    }
    logits = [o.logits for o in outputs if o.logits is not None]
    if logits:
        stacked["logits"] = np.stack(logits)
    return stacked


def _projected(tensors: Mapping[str, Array], steps: Array) -> Array:
    limits = [tensors[f"limits.{name}"] for name in ("lower", "upper", "velocity")]
    return np.stack([project_limits(y.astype(np.float32), *limits)[0] for y in steps])


def _errors(spec: TrmSpec, got: Mapping[str, Array], truth: Mapping[str, Array], k: int) -> list[float]:
    name = "y" if spec.answer == "actions" else "logits"
    halt, true_halt = float(got["halt_logits"][k]), float(truth["halt_logits"][k])
    # A logit passes through 0, where an error relative to it says nothing; below 1 it counts as it is.
    return [relative_error(got[name][k], truth[name][k]), abs(halt - true_halt) / max(abs(true_halt), 1.0)]


def _mismatches(got: Mapping[str, Array], truth: Mapping[str, Array], k: int, tolerance: float) -> int:
    logits = truth["logits"][k]
    finite = logits[np.isfinite(logits)]
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    ordered = np.sort(logits, axis=-1)
    clear = np.ones(len(logits), bool)
    if logits.shape[-1] > 1:
        with np.errstate(invalid="ignore"):
            clear = ~(ordered[:, -1] - ordered[:, -2] <= 2 * tolerance * scale)
    return int((clear & (got["y"][k] != truth["y"][k])).sum())
