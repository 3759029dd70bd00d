"""What a bundle says of its head's training, for whoever runs it: ``provenance.trained_steps`` and ``.features_fn``."""

from __future__ import annotations

from .spec import MAX_STEPS

STEPS = 4  # of a call, where neither the caller nor the file says


def steps_to_run(given: int | None, trained_steps: str | None, most: int = MAX_STEPS) -> int:
    """Return ``given``, or else the steps of training where the file says, else STEPS; these are at most ``most``.

    The text is free and nobody's file is trusted: one that is no number of steps says nothing.
    """
    if given is not None:
        return given
    text = trained_steps or ""
    known = text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MAX_STEPS
    return min(int(text) if known else STEPS, most)


def refreshed_note(features_fn: str | None) -> str | None:
    """Return what to say where a head that was trained with fresh features keeps those it is given; None for others."""
    if not features_fn:
        return None
    return (
        f"note: this head was trained with features that {features_fn} makes anew from every answer; here all steps "
        "have the first ones. To refresh them call Refiner.begin, then step(features=...)"
    )
