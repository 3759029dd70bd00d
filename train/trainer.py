"""The loop: deep supervision with a detached carry, averaged weights, and a state that survives any death."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trm_edge.bundle import read_bundle
from trm_edge.errors import TrmBundleError, TrmError, TrmInputError, TrmIOError
from trm_edge.export.checkpoint import load_checkpoint, save_checkpoint
from trm_edge.files import StrPath, remove_unfinished
from trm_edge.inputs import Array
from trm_edge.limits import NAMES
from trm_edge.quantization import Quantization, uniform
from trm_edge.spec import TrmSpec, check_statistics, identity_statistics

from .config import RunConfig
from .data import (
    Arrays,
    Examples,
    batch_index,
    check_arrays,
    describe_asking,
    split,
    statistics,
    to_tensors,
)
from .evaluation import Evaluation, evaluate, summary
from .hooks import call_hook, find_hook, fresh_features
from .limits import describe_limits
from .load import load_examples
from .log import JsonLines, LogSums, Progress, describe, is_log, plot_curve
from .losses import step_loss
from .model import Batch, Carry, StepOutput, TrmHead
from .optimizer import learning_rate, make_optimizer, update_average
from .parallel import Group
from .signals import Stopped, StopRequest
from .state import check_same_run, read_state, restore_random, seed_everything, write_state
from .targets import reveal_order, step_target


@dataclass(frozen=True)
class RunResult:
    """How a run ended. ``evaluation`` is of the averaged weights that ``model`` holds, None where there was none."""

    model: Path
    updates: int
    seconds: float
    interrupted: bool
    evaluation: Evaluation | None


class Trainer:
    """One run in a folder: ``state.pt`` (to resume), ``model.pt`` (to export), ``log.jsonl``, ``curve.png``.

    Parameters
    ----------
    config
        What to train, on what, and how.
    out
        The run's folder; made where it does not exist.
    resume
        Go on from ``state.pt``, or start where there is none yet. Without it a folder that holds a run is refused.
    group
        The processes that train together.
    quiet
        Print nothing.
    """

    def __init__(
        self, config: RunConfig, out: StrPath, *, resume: bool = False, group: Group | None = None, quiet: bool = False
    ) -> None:
        if not isinstance(config, RunConfig):
            raise TrmInputError(f"config: expected a RunConfig, as load_config reads one, got {type(config).__name__}")
        self.config, self.out, self.group = config, Path(out), group or Group()
        self.quiet = quiet or not self.group.leads
        torch.set_num_threads(config.train.threads)
        seed_everything(config.train.seed)
        self.augment = find_hook("data.augment", config.data.augment, config.folder)
        self.features_fn = find_hook("data.features_fn", config.data.features_fn, config.folder)
        self.train_set, self.validation_set = load_data(config)
        if config.train.batch_size % self.group.size or config.train.batch_size > len(self.train_set):
            raise TrmInputError(
                f"train.batch_size: expected a multiple of {self.group.size} process(es) and at most the "
                f"{len(self.train_set)} training examples, got {config.train.batch_size}"
            )
        begun = resume and (self.out / "state.pt").exists()  # and holds all weights: train.start may be gone
        head = TrmHead(config.spec, fake_quantization(config)) if begun else new_head(config, self.train_set)
        self.head = head.to(usable_device(config.train.device))
        self.averaged = copy.deepcopy(self.head).requires_grad_(False)
        self.optimizer = make_optimizer(self.head, config.train)
        self.updates = self.batches = 0
        self.seconds = 0.0
        self.evaluation: Evaluation | None = None
        self._sums = LogSums()
        self._evaluated_at = 0
        self._saved: tuple[int, int] | None = None  # updates and _evaluated_at of the last checkpoint of this process
        self._digests = {
            "train": self.train_set.digest(),
            "validation": None if self.validation_set is None else self.validation_set.digest(),
        }
        self._log = self._open(resume)

    def run(self) -> RunResult:
        """Train until ``max_updates``, ``max_seconds``, SIGINT or SIGTERM; the batch at hand is finished and saved.

        A validation is given up at a signal, and made up for when the run goes on.
        """
        train, progress = self.config.train, Progress(self.config.train.max_updates, self.updates, self.quiet)
        lines = [*describe_asking(self.train_set), *describe_limits(self.head, self.train_set)]
        if train.warmup_updates > train.max_updates:
            lines.append(f"the learning rate rises over {train.warmup_updates} updates, longer than this run")
        for line in () if self.quiet else lines:
            progress.say(line)
        interrupted = False
        with StopRequest() as stop:
            started = time.monotonic() - self.seconds
            self._validate_if_due(progress, stop)  # the run to resume may have ended within its validation
            while self.updates < train.max_updates and not self.group.any(self.seconds >= train.max_seconds):
                if self.group.any(stop.requested):
                    interrupted = True
                    break
                before = self.updates
                self._train_batch()
                self.seconds = time.monotonic() - started
                progress.advance(self.updates - before)
                self._report(before, progress)
                if crossed(before, self.updates, train.checkpoint_every):
                    self._save_news()
                self._validate_if_due(progress, stop)
            if not interrupted and self._evaluated_at != self.updates:
                interrupted = self.group.any(not self._validate(progress, stop))
            self._save_news()
        progress.close()
        if self._log is not None:
            self._log.close()
            plot_curve(self.out / "log.jsonl", self.out / "curve.png")
        evaluation = self.evaluation if self._evaluated_at == self.updates else None
        return RunResult(self.out / "model.pt", self.updates, self.seconds, interrupted, evaluation)

    def save(self) -> None:
        """Write state and model. The state comes first: a model is never ahead of what can be resumed."""
        if self._log is None:
            return
        state = {
            "config": self.config.to_dict(),
            "data": self._digests,
            "quantization": _plain(self.head.quantization),
            "head": self.head.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "batches": self.batches,
            "seconds": self.seconds,
            "evaluated_at": self._evaluated_at,
            "evaluation": None if self.evaluation is None else asdict(self.evaluation),
            "log_sums": self._sums.state(),
            "log_length": self._log.length(),
        }
        self._saved = self.updates, self._evaluated_at
        write_state(self.out / "state.pt", state)
        save_checkpoint(self.out / "model.pt", self.config.spec, self.averaged.state_dict(), provenance(self.config))

    def _save_news(self) -> None:
        """Save unless the last checkpoint holds all there is."""
        if self._saved != (self.updates, self._evaluated_at):
            self.save()

    def _open(self, resume: bool) -> JsonLines | None:
        """Prepare the folder, take up the state where there is one, and open the log; only one process has a log."""
        path = self.out / "state.pt"
        if path.exists() and not resume:
            raise TrmInputError(f"{self.out}: holds a run; go on with --resume, or name another folder with --out")
        if not path.exists():
            self._refuse_to_overwrite()
        log = self._own_folder() if self.group.leads else None
        length = 0
        if path.exists():
            state = read_state(path)
            try:
                length = self._restore(state)
            except TrmError:
                raise
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                raise TrmBundleError(f"{path}: not as training wrote it ({reason}); start anew with --out") from error
        if log is not None:
            log.cut(length)
        return log

    def _refuse_to_overwrite(self) -> None:
        """Raise where the folder holds what no run that can go on has left: a model without its state, another log."""
        model, log = self.out / "model.pt", self.out / "log.jsonl"
        if model.exists():
            raise TrmInputError(
                f"{model}: is there without its state.pt, so that the run cannot go on, and would be overwritten; "
                f"name another folder with --out, and train.start = '{model}' to begin from it"
            )
        if log.is_file() and not is_log(log):
            raise TrmInputError(f"{log}: is no log of a run, and would be overwritten; name another folder with --out")

    def _own_folder(self) -> JsonLines:
        """Make the folder, keep other runs out of it, and tidy it up."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrmIOError(f"{self.out}: cannot be made: {error.strerror or error}") from None
        log = JsonLines(self.out / "log.jsonl")
        remove_unfinished(self.out)
        return log

    def _restore(self, state: dict[str, Any]) -> int:
        """Take up ``state`` and return the length that the log had."""
        check_same_run(state["config"], self.config.to_dict())
        for part, digest in self._digests.items():
            if state["data"][part] != digest:
                raise TrmInputError(f"data.{part}: the examples are not those that the run was started on")
        if state["quantization"] != _plain(self.head.quantization):
            raise TrmInputError(
                f"train.start: {self.config.train.start} is calibrated otherwise than when the run was started; "
                "start anew in another folder with --out"
            )
        self.head.load_state_dict(state["head"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.batches, self.seconds = state["updates"], state["batches"], state["seconds"]
        self._evaluated_at = state["evaluated_at"]
        self.evaluation = None if state["evaluation"] is None else Evaluation(**state["evaluation"])
        self._sums = LogSums(state["log_sums"])
        restore_random(state["random"])
        return int(state["log_length"])

    def _train_batch(self) -> None:
        """Supervise K steps of one batch; the carry is detached between them (TRM, section 4.1)."""
        train = self.config.train
        batch = self.batch(self.batches)
        weights, at_once = self.config.loss.step_weights or (1.0,) * train.steps, train.update == "step"
        carry, losses, norm, updates = self.head.begin(batch), [], 0.0, self.updates
        for k in range(train.steps):
            carry, out = self._step(carry, batch)
            target = step_target(self.head, batch, k + 1, train.steps, batch.get("order"))
            loss = step_loss(self.head, out, target, batch, self.config.loss)
            share = weights[k] / sum(weights)
            losses.append(loss)
            if weights[k] or not at_once:  # a step of weight 0 is no update
                torch.autograd.backward(loss.total * (weights[k] if at_once else share))
            if weights[k] if at_once else k == train.steps - 1:
                norm += self._update()
            carry = carry.detach()
            if self.features_fn is not None and k < train.steps - 1:
                with torch.no_grad():
                    batch["features"] = fresh_features(self.features_fn, out.y.detach(), batch)
        self.batches += 1
        self._sums.add(losses, norm / (self.updates - updates))

    def _step(self, carry: Carry, batch: Batch) -> tuple[Carry, StepOutput]:
        train = self.config.train
        with torch.autocast(train.device.split(":")[0], torch.bfloat16, enabled=train.precision == "bfloat16"):
            return self.head.step(carry, batch, train.grad_cycles)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return this process's share of batch ``number``: augmented, with what the loss draws at random.

        It is a function of the seed and of ``number`` alone, so that a run goes on after any death as it would have.
        A subclass that keeps to this may draw its batches in another order.
        """
        train, seed = self.config.train, self.config.train.seed
        index = batch_index(len(self.train_set), train.batch_size, number, seed, self.train_set.lengths)
        rng = np.random.default_rng([seed, 1, number])
        arrays = self.train_set.take(index)
        if self.augment is not None:
            arrays = self._augmented(arrays, rng)
        if self.config.data.draft_dropout and "y0" in arrays:
            arrays["y0"] = self._drop_drafts(arrays["y0"], rng)
        if self.config.loss.targets == "schedule":
            arrays["order"] = reveal_order(arrays, rng)
        return to_tensors(self.group.slice(arrays), train.device)

    def _augmented(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        assert self.augment is not None
        augmented = call_hook("data.augment", self.augment, batch=arrays, rng=rng)
        try:
            if not isinstance(augmented, Mapping):
                raise TrmInputError(f"expected a dictionary of arrays, got {type(augmented).__name__}")
            checked = check_arrays(self.config.spec, augmented)
            if len(checked["x"]) != len(arrays["x"]):
                raise TrmInputError(f"x: expected {len(arrays['x'])} examples, got {len(checked['x'])}")
            return checked
        except TrmInputError as error:
            raise TrmInputError(f"data.augment: {self.config.data.augment} returned a wrong batch: {error}") from None

    def _drop_drafts(self, y0: Array, rng: np.random.Generator) -> Array:
        """Take away some drafts: slots then start empty, actions at the mean."""
        absent = rng.random(len(y0)) < self.config.data.draft_dropout
        if self.config.spec.answer == "slots":
            return np.where(absent[:, None], y0.dtype.type(-1), y0)
        mean = self.head.w("normalization.y0.mean").cpu().numpy()
        return np.where(absent[:, None, None], mean, y0)

    def _update(self) -> float:
        """Apply the gradients once; returns their norm."""
        train = self.config.train
        parameters = list(self.head.parameters())
        self.group.average(p.grad for p in parameters if p.grad is not None)
        norm = float(nn.utils.clip_grad_norm_(parameters, train.max_grad_norm))
        if not math.isfinite(norm):
            saved = (self.out / "state.pt").exists()
            model = (self.out / "model.pt").resolve()
            begin = f", in another folder; train.start = '{model}' begins from it" if saved else ""
            raise TrmError(
                f"training diverged: the gradient of update {self.updates} is {norm}; {self.out} "
                f"{'keeps the last checkpoint' if saved else 'holds no checkpoint yet'}. Try a lower "
                f"train.learning_rate, a longer train.warmup_updates, or look at the data{begin}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate(train, self.updates)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        update_average(self.averaged, self.head, train.ema, self.updates)
        return norm

    def _report(self, before: int, progress: Progress) -> None:
        train = self.config.train
        if crossed(before, self.updates, train.log_every):
            record = {"kind": "train", "update": self.updates, "batch": self.batches, **self._sums.record(self.group)}
            record["learning_rate"] = learning_rate(train, self.updates - 1)
            if self._log is not None:
                self._log.write(record)
            progress.say(f"update {self.updates}  {describe(record)}  {self.seconds:.0f} s")

    def _validate_if_due(self, progress: Progress, stop: StopRequest) -> None:
        if crossed(self._evaluated_at, self.updates, self.config.train.eval_every):
            self._validate(progress, stop)

    def _validate(self, progress: Progress, stop: StopRequest) -> bool:
        """Evaluate the averaged weights, in one process, and log it; returns False where a stop ended that.

        What was trained is saved before, so that no death meanwhile loses any of it. That state is also the one to
        resume from where the evaluation is given up: hooks may have drawn random numbers in it.
        """
        if self.validation_set is not None and self._log is not None:
            self._save_news()
            steps, hook = self.config.train.eval_steps, self.features_fn
            try:
                evaluation = evaluate(self.averaged, self.validation_set, steps, features_fn=hook, poll=stop.check)
            except Stopped:
                return False
            self.evaluation = evaluation
            self._log.write({"kind": "validation", "update": self.updates, **asdict(evaluation)})
            progress.say(f"update {self.updates}  validation {summary(evaluation)}")
        self._evaluated_at = self.updates
        return True


def usable_device(name: str) -> torch.device:
    """Return the device of ``train.device``, or raise :class:`TrmInputError` where torch has none of that name here."""
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        reason = str(error).partition("\n")[0]
        raise TrmInputError(f"train.device: expected 'cpu' or a GPU of this machine, got {name!r}: {reason}") from None
    if device.type == "meta":
        raise TrmInputError(
            f"train.device: expected 'cpu' or a GPU of this machine, got {name!r}, which holds no values"
        )
    return device


def load_data(config: RunConfig) -> tuple[Examples, Examples | None]:
    """Return training and validation examples; None where the configuration names none."""
    data = config.data
    examples = load_examples(config.folder / data.train, config.spec)
    if config.loss.left_out and "omit" not in examples.arrays:
        raise TrmInputError(
            f"{data.train}: loss.left_out needs the array omit [N, M]: candidates that leave a slot out"
        )
    if data.draft_dropout and "y0" not in examples.arrays:
        raise TrmInputError(f"{data.train}: data.draft_dropout takes drafts away, and there are none: y0 is missing")
    if data.validation:
        return examples, load_examples(config.folder / data.validation, config.spec)
    if data.validation_share:
        return split(examples, data.validation_share, config.train.seed)
    return examples, None


def new_head(config: RunConfig, examples: Examples) -> TrmHead:
    """Return a head from ``train.start``, or a random one with the statistics of ``examples``; limits of ``config``."""
    head = TrmHead(config.spec, fake_quantization(config))
    if config.train.start:
        found = start_tensors(config.folder / config.train.start, config.spec)
    else:
        found = statistics(examples) if config.data.normalize else {}
        if config.train.zero_init_residual:
            head.zero_residuals()
    for name, values in asdict(config.limits).items():
        if values:
            found[f"limits.{name}"] = np.asarray(values, np.float32)
    check_statistics({**identity_statistics(config.spec), **found})
    head.load_state_dict({name: torch.from_numpy(value) for name, value in found.items()}, strict=False)
    if config.loss.limits and not any(bool(head.w(f"limits.{name}").isfinite().any()) for name in NAMES):
        raise TrmInputError(
            f"loss.limits: {config.train.start} has no limits to exceed; give [limits], or leave it out"
        )
    return head


def fake_quantization(config: RunConfig) -> Quantization | None:
    """Return how ``train.fake_quant`` rounds, or None where it does not."""
    train, path = config.train, config.folder / config.train.start
    if train.fake_quant == "none":
        return None
    if train.fake_quant == "int8":
        return uniform(config.spec, "int8")
    quantization = read_bundle(path).quantization
    if quantization is None:
        raise TrmInputError(
            f"train.fake_quant: {path} is not calibrated; run `trm-edge calibrate {path} CALIBRATED.trm --scheme "
            "static` and name the result in train.start, or use 'int8', whose scales need no calibration"
        )
    return quantization


def start_tensors(path: Path, spec: TrmSpec) -> Arrays:
    """Return the tensors of a checkpoint or bundle, which must be of ``spec``."""
    if path.suffix == ".trm":
        bundle = read_bundle(path)
        own, tensors = bundle.spec, dict(bundle.tensors)
    else:
        own, tensors = load_checkpoint(path)
    for name, value in own.to_dict().items():
        if value != getattr(spec, name):
            raise TrmInputError(f"train.start: {path} has {name} = {value!r}, [spec] says {getattr(spec, name)!r}")
    return {name: np.array(value) for name, value in tensors.items()}


def provenance(config: RunConfig) -> dict[str, str]:
    """Return what the bundle of a head repeats of its training: what whoever runs it has to keep to."""
    refreshed = {"features_fn": config.data.features_fn} if config.data.features_fn else {}
    return {"trained_steps": str(config.train.steps), **refreshed}


def _plain(quantization: Quantization | None) -> dict[str, Any] | None:
    """Return a quantization as plain containers, which a state can hold and compare."""
    if quantization is None:
        return None
    scales = {name: scale.tolist() for name, scale in quantization.input_scale.items()}
    return {"scheme": quantization.scheme, "precision": dict(quantization.precision), "input_scale": scales}


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return after // every > before // every
