"""The TOML file of a training run, as frozen dataclasses.

Tables: ``[spec]`` (the fields of :class:`trm_edge.spec.TrmSpec`), ``[data]``, and optionally ``[train]``, ``[loss]``
and ``[limits]``. A field that nothing reads is refused by its name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trm_edge.errors import TrmBundleError, TrmInputError
from trm_edge.extras import import_extra
from trm_edge.files import StrPath, read_file
from trm_edge.spec import MAX_STEPS, TrmSpec

_BEYOND = float.fromhex("0x1.ffffffp127")  # the least that float32 rounds to infinity


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where examples come from. Paths are relative to the configuration file."""

    train: str  # an .npz file or a folder of .safetensors shards
    validation: str = ""  # the same; empty: validation_share of the training examples is held out
    validation_share: float = 0.0
    normalize: bool = True  # take the statistics of float inputs from the training examples; else the identity
    augment: str = ""  # "module:function", called with (batch of NumPy arrays, rng) for every training batch
    features_fn: str = ""  # "module:function", called with (y_hat, batch) between steps; returns fresh features
    draft_dropout: float = 0.0  # share of training examples whose draft is taken away (slots, optional drafts)

    def check(self, spec: TrmSpec) -> None:
        """Raise :class:`TrmInputError` where a value cannot be meant."""
        _between("data.validation_share", self.validation_share, 0, 0.9)
        _between("data.draft_dropout", self.draft_dropout, 0, 1)
        if self.validation and self.validation_share:
            raise TrmInputError("data.validation_share: has no meaning beside data.validation; leave one out")
        if self.features_fn and not spec.feature_size:
            raise TrmInputError("data.features_fn: this head has no features (spec.feature_size is 0)")
        if self.draft_dropout and not (spec.answer == "slots" or spec.draft == "optional"):
            raise TrmInputError("data.draft_dropout: only for slots, and for actions with spec.draft = 'optional'")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop and the optimiser. The defaults are those with which the Sudoku example learns.

    ``start`` and ``fake_quant`` together fine-tune a trained head for int8: every forward, also of the validation,
    rounds as :mod:`trm_edge.quantization` defines, and gradients pass the rounding as if it were not there.
    ``fake_quant = "int8"`` is the ``dynamic`` scheme. ``"calibrated"`` is what the bundle ``start`` was calibrated to,
    its scheme, precisions and input scales, which stay as they are; a value beyond its scale's range is clipped and
    gets no gradient. What is exported stays float32; ``trm-edge calibrate`` measures it.
    """

    steps: int = 8  # K, supervised refinement steps per batch
    update: str = "step"  # "step": an optimiser update after every step (TRM); "sum": one per batch, over all steps
    grad_cycles: str = "all"  # "all" h_cycles of a step carry gradients, or the "last" one only (TRM)
    batch_size: int = 128
    max_updates: int = 2000  # weight updates; the batch that reaches it is finished
    max_seconds: float = math.inf  # training time, over all resumed runs
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0  # learning rate of the maps between rows and inputs or answers, by learning_rate
    schedule: str = "constant"  # after the warm-up: "constant" or "cosine" down to 0 at max_updates
    warmup_updates: int = 100
    weight_decay: float = 0.1  # of matrices; vectors and embeddings are left alone
    beta1: float = 0.9
    beta2: float = 0.95
    max_grad_norm: float = 1.0
    ema: float = 0.998  # decay of the averaged weights, which are what is evaluated and exported
    zero_init_residual: bool = False  # blocks begin as norms of their input, and learn what linear maps do not do
    start: str = ""  # a .pt checkpoint or .trm bundle whose weights and statistics training starts from
    fake_quant: str = "none"  # "int8": a scale per row; "calibrated": the scales of the bundle that start names
    precision: str = "float32"  # "bfloat16" runs the matrix products of training in it; evaluation stays float32
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    eval_steps: int = 16  # refinement steps of an evaluation
    log_every: int = 50  # updates
    eval_every: int = 400
    checkpoint_every: int = 400

    def check(self, spec: TrmSpec) -> None:
        """Raise :class:`TrmInputError` where a value cannot be meant."""
        _choice("train.update", self.update, ("step", "sum"))
        _choice("train.grad_cycles", self.grad_cycles, ("all", "last"))
        _choice("train.schedule", self.schedule, ("constant", "cosine"))
        _choice("train.precision", self.precision, ("float32", "bfloat16"))
        _choice("train.fake_quant", self.fake_quant, ("none", "int8", "calibrated"))
        if self.fake_quant == "calibrated" and not self.start.endswith(".trm"):
            raise TrmInputError(
                "train.fake_quant: 'calibrated' takes the scales of train.start, which must be a .trm bundle that "
                f"`trm-edge calibrate` wrote, got {self.start!r}"
            )
        if self.zero_init_residual and self.start:
            raise TrmInputError("train.zero_init_residual: only for a head that starts anew, and train.start names one")
        for name in ("steps", "eval_steps"):
            _between(f"train.{name}", getattr(self, name), 1, MAX_STEPS)
        _between("train.threads", self.threads, 1, 1024)
        for name in ("batch_size", "max_updates", "log_every", "eval_every", "checkpoint_every"):
            _between(f"train.{name}", getattr(self, name), 1, 1 << 40)
        for name in ("warmup_updates", "seed", "weight_decay"):
            _between(f"train.{name}", getattr(self, name), 0, 1 << 40)
        for name in ("learning_rate", "encoder_rate", "max_grad_norm", "max_seconds"):
            if not getattr(self, name) > 0:
                raise TrmInputError(f"train.{name}: expected > 0, got {getattr(self, name)}")
        for name in ("learning_rate", "encoder_rate"):
            if not math.isfinite(getattr(self, name)):
                raise TrmInputError(f"train.{name}: expected a finite number, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "ema"):
            _between(f"train.{name}", getattr(self, name), 0, 0.999999)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the loss of one step, and their weights."""

    targets: str = "final"  # "final": every step aims at the answer; "schedule": at a way from the draft to it
    step_weights: tuple[float, ...] = ()  # one weight per step; empty: all 1
    halt: float = 0.5
    halt_tolerance: float = 0.1  # actions: root mean square error, in units of std, below which an answer is right
    cross_entropy: str = "softmax"  # slots and tokens: "softmax" or "stablemax" (arXiv 2501.04697)
    left_out: float = 0.0  # slots: penalty for putting an "omit" candidate into a required slot
    smoothness: float = 0.0  # actions: second differences
    limits: float = 0.0  # actions: what exceeds bounds and velocity

    def check(self, spec: TrmSpec, steps: int) -> None:
        """Raise :class:`TrmInputError` where a value cannot be meant."""
        _choice("loss.targets", self.targets, ("final", "schedule"))
        _choice("loss.cross_entropy", self.cross_entropy, ("softmax", "stablemax"))
        for name in ("halt", "halt_tolerance", "left_out", "smoothness", "limits"):
            _between(f"loss.{name}", getattr(self, name), 0, 1e9)
        if self.step_weights and (len(self.step_weights) != steps or not sum(self.step_weights) > 0):
            raise TrmInputError(f"loss.step_weights: expected train.steps = {steps} weights, not all 0")
        for weight in self.step_weights:
            if not 0 <= weight < math.inf:
                raise TrmInputError(f"loss.step_weights: expected finite weights, none below 0, got {weight}")
        own = {"left_out": ["slots"], "cross_entropy": ["slots", "tokens"]}
        own |= {name: ["actions"] for name in ("smoothness", "limits", "halt_tolerance")}
        defaults = {f.name: f.default for f in fields(self)}
        for name, kinds in own.items():
            if getattr(self, name) != defaults[name] and spec.answer not in kinds:
                raise TrmInputError(f"loss.{name}: only for {', '.join(kinds)}, and this is a head for {spec.answer}")


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits of actions, one number per dimension; empty: none. They become the bundle's."""

    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    velocity: tuple[float, ...] = ()

    def check(self, spec: TrmSpec) -> None:
        """Raise :class:`TrmInputError` where a value cannot be meant."""
        for name, values in asdict(self).items():
            if values and len(values) != spec.dof:
                raise TrmInputError(f"limits.{name}: expected spec.dof = {spec.dof} numbers, got {len(values)}")
            for value in values:
                if _BEYOND <= abs(value) < math.inf:
                    raise TrmInputError(f"limits.{name}: expected numbers that float32 holds, or inf, got {value}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: the model, its data, how it is trained. ``folder`` is what paths are relative to."""

    spec: TrmSpec
    data: DataConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    folder: Path = Path(".")

    def __post_init__(self) -> None:
        self.data.check(self.spec)
        self.train.check(self.spec)
        self.loss.check(self.spec, self.train.steps)
        self.limits.check(self.spec)
        if self.loss.limits and not self.train.start and not any(asdict(self.limits).values()):
            raise TrmInputError("loss.limits: there are none to exceed; give [limits] lower, upper, velocity")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the tables as plain dictionaries."""
        tables = ("spec", "data", "train", "loss", "limits")
        return {name: asdict(getattr(self, name)) for name in tables}


def load_config(path: StrPath) -> RunConfig:
    """Read a configuration, or raise :class:`TrmInputError` that names the file and the field."""
    tomllib = import_extra("tomllib" if sys.version_info >= (3, 11) else "tomli", "reading a configuration", "train")
    data = read_file(path)
    try:
        return parse_config(tomllib.loads(data.decode()), Path(path).parent)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrmInputError(f"{path}: not a TOML file: {error}") from None
    except (TrmInputError, TrmBundleError) as error:
        raise TrmInputError(f"{path}: {error}") from None


def parse_config(tables: Mapping[str, Any], folder: Path = Path(".")) -> RunConfig:
    """Build a configuration from nested dictionaries, as a TOML file holds them."""
    known = {"data": DataConfig, "train": TrainConfig, "loss": LossConfig, "limits": LimitsConfig}
    for name, table in tables.items():
        if name not in ("spec", *known):
            raise TrmInputError(f"unknown table [{name}]; known: spec, {', '.join(known)}")
        if not isinstance(table, Mapping):
            raise TrmInputError(f"{name}: expected a table [{name}], got {table!r}")
    for name in ("spec", "data"):
        if name not in tables:
            raise TrmInputError(f"lacks the table [{name}]")
    parts = {name: _from_table(kind, name, tables.get(name, {})) for name, kind in known.items()}
    return RunConfig(spec=TrmSpec.from_dict(tables["spec"]), folder=folder, **parts)


def _from_table(kind: Any, name: str, table: Mapping[str, Any]) -> Any:
    types = {f.name: str(f.type) for f in fields(kind)}
    for key in table:
        if key not in types:
            raise TrmInputError(f"{name}.{key}: unknown field; known: {', '.join(types)}")
    try:
        return kind(**{key: _value(f"{name}.{key}", types[key], value) for key, value in table.items()})
    except TypeError as error:
        raise TrmInputError(f"[{name}] is incomplete: {error}") from None


def _value(name: str, kind: str, value: Any) -> Any:
    """Return ``value`` as the type ``kind`` of a field, or raise."""
    if kind.startswith("tuple"):
        if not isinstance(value, (list, tuple)):
            raise TrmInputError(f"{name}: expected a list of numbers, got {value!r}")
        return tuple(_value(name, "float", item) for item in value)
    accepted: tuple[type[Any], ...] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind != "bool"):
        raise TrmInputError(f"{name}: expected {kind}, got {value!r}")
    return float(value) if kind == "float" else value


def _choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise TrmInputError(f"{name}: expected one of {', '.join(choices)}, got {given!r}")


def _between(name: str, given: float, least: float, most: float) -> None:
    if not least <= given <= most:
        raise TrmInputError(f"{name}: expected {least}..{most}, got {given}")
