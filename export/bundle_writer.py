"""From a checkpoint to a ``.trm`` bundle with golden vectors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import trm_edge
from trm_edge.bundle import Bundle, write_bundle
from trm_edge.errors import TrmInputError
from trm_edge.files import StrPath
from trm_edge.golden import random_inputs, record_golden
from trm_edge.inputs import Array, check_int
from trm_edge.spec import MAX_STEPS, TrmSpec

from .checkpoint import parse_checkpoint, read_torch, source_name
from .official import load_official


def export_bundle(
    src: StrPath,
    dst: StrPath,
    official: StrPath | None = None,
    dataset: StrPath | None = None,
    golden_cases: int = 2,
    steps: int = 4,
    seed: int = 0,
    exporter: str | None = None,
) -> Bundle:
    """Write a bundle from a checkpoint.

    Parameters
    ----------
    src
        Checkpoint of ``trm_edge.train``, or of the official trainer if ``official`` and ``dataset`` are given.
    dst
        The ``.trm`` file, written atomically.
    official, dataset
        ``all_config.yaml`` and ``dataset.json`` of the official trainer; both or neither.
    golden_cases, steps, seed
        How many random calls are recorded for ``trm-edge verify``, of how many steps each, and their seed. Even cases
        have the largest sizes, odd ones smaller sizes where the head takes them.
    exporter
        Version to record as the exporter's; the package's own by default.

    Returns
    -------
    Bundle
        What was written, except for the hash.

    Raises
    ------
    TrmIOError
        A file cannot be read or written.
    TrmBundleError
        The checkpoint does not fit.
    TrmInputError
        An argument is wrong.
    """
    _check_arguments(official, dataset, golden_cases, steps, seed)
    spec, tensors, provenance = _read(src, official, dataset)
    provenance["exporter"] = exporter or str(getattr(trm_edge, "__version__", "unknown"))
    calls = golden_inputs(spec, golden_cases, seed)
    bundle = Bundle(spec, tensors, record_golden(spec, tensors, calls, steps), provenance)
    write_bundle(dst, bundle)
    return bundle


def golden_inputs(spec: TrmSpec, cases: int, seed: int) -> list[dict[str, Any]]:
    """Draw arguments of ``refine``: even cases at the maxima, odd ones smaller, and without a draft where one may."""
    rng = np.random.default_rng(seed)
    calls = []
    for case in range(cases):
        sizes = _smaller_sizes(spec) if case % 2 else {}
        call = random_inputs(spec, rng, **sizes)
        if case % 2 and spec.draft == "optional":
            call["y0"] = None
        calls.append(call)
    return calls


def _check_arguments(
    official: StrPath | None, dataset: StrPath | None, golden_cases: int, steps: int, seed: int
) -> None:
    if (official is None) != (dataset is None):
        lacking = "dataset (its dataset.json)" if dataset is None else "official (its all_config.yaml)"
        raise TrmInputError(f"a checkpoint of the official trainer needs both files; {lacking} is missing")
    if not 0 <= check_int("golden_cases", golden_cases) <= 100:
        raise TrmInputError(f"golden_cases: expected 0..100, got {golden_cases}")
    if not 1 <= check_int("steps", steps) <= MAX_STEPS:
        raise TrmInputError(f"steps: expected 1..{MAX_STEPS}, got {steps}")
    if check_int("seed", seed) < 0:
        raise TrmInputError(f"seed: expected at least 0, got {seed}")


def _read(
    src: StrPath, official: StrPath | None, dataset: StrPath | None
) -> tuple[TrmSpec, dict[str, Array], dict[str, str]]:
    if official is not None and dataset is not None:
        return load_official(src, official, dataset)
    content, digest = read_torch(src)
    spec, tensors, trained = parse_checkpoint(content, os.fspath(src))
    return spec, tensors, {**trained, "source": source_name(src), "checkpoint_sha256": digest}


def _smaller_sizes(spec: TrmSpec) -> dict[str, int]:
    """Odd sizes below the maxima, where they may vary."""
    if spec.mixer == "mlp_t" or spec.answer == "tokens":
        return {}
    sizes = {"context_rows": _odd_below(spec.max_context)}
    if spec.answer == "slots":
        sizes["answer_rows"] = max(1, _odd_below(spec.answer_rows))
        sizes["candidates"] = max(1, _odd_below(spec.max_candidates))
    return sizes


def _odd_below(size: int) -> int:
    """Return an odd number at about two thirds of ``size`` and below it, or 0 where there is none."""
    return min(size * 2 // 3 | 1, (size - 2) | 1) if size > 1 else 0
