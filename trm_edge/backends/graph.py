"""What backends share that run an exported graph: ONNX Runtime's, and TensorRT's engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import TrmInputError
from ..graph import GraphInfo
from ..inputs import Array, Inputs, check_steps
from ..reference import StepOutput
from ..refinement import Refinement
from ..spec import TrmSpec
from .host import Arrays, HostBackend


class GraphBackend(HostBackend):
    """A graph whose metadata is ``info``; ``any_steps`` is how to export one for any number of steps."""

    info: GraphInfo
    any_steps: str

    @property
    def most_steps(self) -> int:
        """K of an unrolled graph; others run any number."""
        return self.info.steps if self.info.loop == "unrolled" else super().most_steps

    def provenance(self, name: str) -> str | None:
        """Return what the graph repeats of its bundle; None where that says nothing."""
        return self.info.provenance.get(name)

    def refine(self, arrays: Arrays, puzzle_id: object, steps: int, halt: float | None, trajectory: bool) -> Refinement:
        """Run up to ``steps`` steps from the start; an unrolled graph has a largest number."""
        count = check_steps(steps, self.spec.answer)
        if count > self.most_steps:
            raise TrmInputError(
                f"steps: this one was exported with --steps {self.most_steps}, got {count}; "
                f"export it with more, or with {self.any_steps} for any number"
            )
        return super().refine(arrays, puzzle_id, count, halt, trajectory)

    def feeds(self, inputs: Inputs) -> dict[str, Array]:
        """Return the arrays of one call under the graph's names."""
        return graph_feeds(self.spec, inputs, self._draft(inputs))


def step_outputs(inputs: Inputs, out: Mapping[str, Array], steps: int) -> Iterator[StepOutput]:
    """Yield the steps of a graph that computes all of them in one call."""
    for k in range(steps):
        logits = out["logits_steps"][k] if "logits_steps" in out else None
        yield graph_output(inputs, out["y_steps"][k], logits, out["halt_logits"][k])


def graph_feeds(spec: TrmSpec, inputs: Inputs, draft: Array) -> dict[str, Array]:
    """Return the arrays of one call under a graph's names; ``draft`` stands for one that is optional and missing."""
    if spec.answer == "tokens":
        feeds = {"x": inputs.x}
        return feeds | {"puzzle_id": np.asarray(inputs.puzzle_id, np.int32)} if spec.registers else feeds
    feeds = {"x": inputs.x} if spec.max_context else {}
    feeds["y0"] = draft
    if inputs.features is not None:
        feeds["features"] = inputs.features
    if inputs.mask is not None and inputs.slots is not None and inputs.candidates is not None:
        candidates, mask = inputs.candidates, inputs.mask
        if not len(candidates):  # the graph wants one at least: one that no slot may take
            candidates, mask = np.zeros((1, spec.candidate_size), np.float32), np.zeros((len(mask), 1), np.bool_)
        feeds |= {"slots": inputs.slots, "candidates": candidates, "mask": mask}
    return feeds


def graph_output(inputs: Inputs, y: Array, logits: Array | None, halt_logit: Array) -> StepOutput:
    """Return one step of a graph, without what :func:`graph_feeds` added."""
    if logits is not None and inputs.mask is not None:
        logits = logits[:, : inputs.mask.shape[1]]
    return StepOutput(y, logits, float(halt_logit))
