"""Checkpoints of the official trainer (SamsungSAILMontreal/TinyRecursiveModels, arXiv 2510.04871).

The trainer writes ``step_N`` (a state dict) and ``all_config.yaml``; ``dataset.json`` of the training data holds the
sizes that the checkpoint does not. The model becomes a ``tokens`` spec; its weights absorb these conventions:

- embeddings (tokens, puzzle, positions) are scaled by sqrt(D), with learned positions by a further 0.707106781;
- ``q_head`` has two rows, of which row 0 is the halt logit;
- with token-mixing blocks rotary positions are built but never applied, so ``rope`` there means none.

A config that asks for something else is refused by the name of its key: a silent guess would give wrong answers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_edge.errors import TrmBundleError
from trm_edge.extras import import_extra
from trm_edge.files import StrPath, read_file
from trm_edge.inputs import Array
from trm_edge.spec import TrmSpec, check_statistics

from .checkpoint import read_torch, source_name, to_float32

ARCH = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
PREFIXES = ("_orig_mod.model.inner.", "model.inner.")  # with and without torch.compile's wrapper

_UNUSED = {"name", "loss", "H_layers", "halt_exploration_prob"}  # no part in inference
_LEARNED_SCALE = 0.707106781  # the trainer's constant, short of 1/sqrt(2)


def load_official(
    checkpoint: StrPath, config_yaml: StrPath, dataset_json: StrPath
) -> tuple[TrmSpec, dict[str, Array], dict[str, str]]:
    """Read a checkpoint of the official trainer.

    Parameters
    ----------
    checkpoint
        ``step_N``: the state dict, with or without the prefix of ``torch.compile``, in any float dtype.
    config_yaml
        ``all_config.yaml``, which the trainer writes beside it.
    dataset_json
        ``dataset.json`` of the training data: ``vocab_size``, ``seq_len``, ``num_puzzle_identifiers``.

    Returns
    -------
    spec, tensors, provenance
        A ``tokens`` model, its float32 tensors, and strings on where it came from.

    Raises
    ------
    TrmIOError
        A file cannot be read.
    TrmBundleError
        The file, the key or the tensor that does not fit is named.
    """
    arch = _within(config_yaml, lambda: _read_arch(_read_yaml(config_yaml)))
    sizes = _within(dataset_json, lambda: _read_sizes(read_file(dataset_json)))
    official = _within(config_yaml, lambda: _interpret(arch, sizes))
    content, digest = read_torch(checkpoint)
    tensors = _within(checkpoint, lambda: _fold(official, _raw_tensors(official, content)))
    provenance = {
        "source": source_name(checkpoint),
        "checkpoint_sha256": digest,
        "trainer": "SamsungSAILMontreal/TinyRecursiveModels",
        "arch": ARCH,
        "forward_dtype": official.forward_dtype,
    }
    if official.steps:
        provenance["trained_steps"] = str(official.steps)
    return official.spec, tensors, provenance


@dataclass(frozen=True)
class _Official:
    """The spec, and what of the config its tensors do not show."""

    spec: TrmSpec
    expansion: float
    forward_dtype: str
    steps: int  # of training, and of the trainer's evaluation; 0 where the config does not say


def swiglu_width(expansion: float, width: int) -> int:
    """Return the inner size of the trainer's SwiGLU on rows of ``width``: 2/3 of the expansion, up to 256s."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


def _within(path: StrPath, read: Any) -> Any:
    """Run ``read`` and put the file's name before its complaint."""
    try:
        return read()
    except TrmBundleError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def _read_yaml(path: StrPath) -> Any:
    yaml = import_extra("yaml", "reading all_config.yaml", "export")
    try:
        return yaml.safe_load(read_file(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TrmBundleError(f"not readable as YAML: {error}") from None


def _read_arch(config: Any) -> dict[str, Any]:
    arch = config.get("arch") if isinstance(config, dict) else None
    if not isinstance(arch, dict):
        raise TrmBundleError("expected the trainer's all_config.yaml, with a mapping 'arch'")
    if arch.get("name") != ARCH:
        raise TrmBundleError(f"arch.name: only {ARCH} can be exported, got {arch.get('name')!r}")
    return arch


def _read_sizes(data: bytes) -> dict[str, int]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TrmBundleError(f"not readable as JSON: {error}") from None
    if not isinstance(values, dict):
        raise TrmBundleError("expected the dataset's dataset.json: a JSON object")
    reader = _Reader(values, "")
    return {name: reader.integer(name, least=1) for name in ("vocab_size", "seq_len", "num_puzzle_identifiers")}


class _Reader:
    """Takes typed values out of a mapping and remembers which keys were asked for."""

    def __init__(self, values: Mapping[Any, Any], prefix: str) -> None:
        self.values = values
        self.prefix = prefix
        self.asked: set[Any] = set()

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._refuse(name, f"expected an integer >= {least}", value)
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        try:  # YAML 1.1 reads 1e-5, without a point, as a string
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 < number < math.inf:
            self._refuse(name, "expected a positive number", value)
        return number

    def boolean(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            self._refuse(name, "expected true or false", value)
        return bool(value)

    def choice(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self._get(name, default)
        if value not in choices:
            self._refuse(name, f"expected one of {', '.join(choices)}", value)
        return str(value)

    def refuse_others(self, ignored: set[str]) -> None:
        unknown = sorted(str(name) for name in set(self.values) - self.asked - ignored)
        if unknown:
            raise TrmBundleError(f"{self.prefix}{unknown[0]}: unknown key; what it changes in the model is not known")

    def _get(self, name: str, default: Any) -> Any:
        self.asked.add(name)
        value = self.values.get(name, default)
        if name not in self.values and default is None:
            raise TrmBundleError(f"{self.prefix}{name}: missing")
        return value

    def _refuse(self, name: str, expected: str, value: Any) -> None:
        raise TrmBundleError(f"{self.prefix}{name}: {expected}, got {value!r}")


def _interpret(arch: Mapping[str, Any], sizes: Mapping[str, int]) -> _Official:
    """Translate the trainer's config to a spec; its defaults are those of the trainer."""
    read = _Reader(arch, "arch.")
    if not read.boolean("no_ACT_continue", True):
        raise TrmBundleError(
            "arch.no_ACT_continue: expected true; a model that halts by comparing two logits has no place"
        )
    hidden = read.integer("hidden_size", least=1)
    expansion = read.number("expansion")
    token_mixing = read.boolean("mlp_t", False)
    heads = read.integer("num_heads", least=1)
    positions = read.choice("pos_encodings", ("rope", "learned", "none"))
    if not token_mixing and hidden % (2 * heads):
        raise TrmBundleError(f"arch.num_heads: expected an even head size, got {heads} heads for hidden_size {hidden}")
    registers, puzzle_size = _registers(read, hidden)
    spec = TrmSpec(
        answer="tokens",
        hidden_size=hidden,
        inner_size=swiglu_width(expansion, hidden),
        l_cycles=read.integer("L_cycles", least=1),
        h_cycles=read.integer("H_cycles", least=1),
        registers=registers,
        answer_rows=sizes["seq_len"],
        num_layers=read.integer("L_layers", least=1),
        mixer="mlp_t" if token_mixing else "attention",
        num_heads=0 if token_mixing else heads,
        token_inner_size=swiglu_width(expansion, registers + sizes["seq_len"]) if token_mixing else 0,
        positions="none" if token_mixing and positions == "rope" else positions,
        rope_theta=read.number("rope_theta", 10000.0),
        norm_eps=read.number("rms_norm_eps", 1e-5),
        vocab_size=sizes["vocab_size"],
        num_puzzles=sizes["num_puzzle_identifiers"],
        puzzle_size=puzzle_size,
    )
    forward_dtype = read.choice("forward_dtype", ("bfloat16", "float16", "float32", "float64"), "bfloat16")
    steps = read.integer("halt_max_steps", 0)
    read.refuse_others(_UNUSED)
    return _Official(spec, expansion, forward_dtype, steps)


def _registers(read: _Reader, hidden: int) -> tuple[int, int]:
    """Return how many rows the puzzle embedding fills, and its width."""
    width = read.integer("puzzle_emb_ndim", 0)
    rows = read.integer("puzzle_emb_len", 16)
    rows = rows or -(-width // hidden)
    if width == 0 and rows:
        raise TrmBundleError(
            f"arch.puzzle_emb_len: expected 0 where puzzle_emb_ndim is 0, got {rows}; "
            "the trainer's code would drop as many answer rows"
        )
    if width > rows * hidden:
        raise TrmBundleError(
            f"arch.puzzle_emb_ndim: expected at most puzzle_emb_len * hidden_size = {rows * hidden}, got {width}"
        )
    return rows, width


def _official_shapes(spec: TrmSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the trainer's tensors, without the prefix."""
    d = spec.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"H_init": (d,), "L_init": (d,)}
    shapes |= {"embed_tokens.embedding_weight": (spec.vocab_size, d), "lm_head.weight": (spec.vocab_size, d)}
    shapes |= {"q_head.weight": (2, d), "q_head.bias": (2,)}
    if spec.registers:
        shapes["puzzle_emb.weights"] = (spec.num_puzzles, spec.puzzle_size)
    if spec.positions == "learned":
        shapes["embed_pos.embedding_weight"] = (spec.max_rows, d)
    ours = spec.tensor_shapes()
    return shapes | {theirs: ours[name] for name, theirs in _block_names(spec).items()}


def _block_names(spec: TrmSpec) -> dict[str, str]:
    """Map our names of the blocks' weights to the trainer's; the layouts are the same."""
    parts = {"mlp.gate_up": "mlp.gate_up_proj", "mlp.down": "mlp.down_proj"}
    if spec.mixer == "mlp_t":
        parts |= {"token_mixer.gate_up": "mlp_t.gate_up_proj", "token_mixer.down": "mlp_t.down_proj"}
    else:
        parts |= {"attention.qkv": "self_attn.qkv_proj", "attention.out": "self_attn.o_proj"}
    return {
        f"blocks.{i}.{ours}.weight": f"L_level.layers.{i}.{theirs}.weight"
        for i in range(spec.num_layers)
        for ours, theirs in parts.items()
    }


def _raw_tensors(official: _Official, content: Any) -> dict[str, Array]:
    """Check the state dict against the config and return it without prefix."""
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise TrmBundleError("not a checkpoint of the official trainer: expected a state dict")
    prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in content)), None)
    if prefix is None:
        stray = next(name for name in content if not name.startswith(PREFIXES[0]))
        raise TrmBundleError(f"tensor {stray}: expected every name to start with {' or with '.join(PREFIXES)}")
    shapes = _official_shapes(official.spec)
    given = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    missing, unknown = sorted(set(shapes) - set(given)), sorted(set(given) - set(shapes))
    if missing:
        raise TrmBundleError(f"tensor {prefix}{missing[0]}: missing (of {len(missing)}); the config asks for it")
    if unknown:
        raise TrmBundleError(f"tensor {prefix}{unknown[0]}: unknown (of {len(unknown)}) to a model of this config")
    for name in shapes:
        if name.endswith("_proj.weight") and tuple(getattr(given[name], "shape", ())) != shapes[name]:
            _refuse_shape(official, prefix + name, given[name], shapes[name])
    return {name: to_float32(prefix + name, given[name], shape) for name, shape in shapes.items()}


def _refuse_shape(official: _Official, name: str, tensor: Any, shape: tuple[int, ...]) -> None:
    spec = official.spec
    width = spec.token_inner_size if ".mlp_t." in name else spec.inner_size
    raise TrmBundleError(
        f"tensor {name}: expected shape {list(shape)} (expansion {official.expansion:g} gives an inner size of "
        f"{width}, L is {spec.max_rows}), got {list(getattr(tensor, 'shape', ()))}"
    )


def _fold(official: _Official, raw: Mapping[str, Array]) -> dict[str, Array]:
    """Rename the trainer's tensors to ours and fold the embeddings' scale into them."""
    spec = official.spec
    scale = math.sqrt(spec.hidden_size) * (_LEARNED_SCALE if spec.positions == "learned" else 1.0)
    tensors = {
        "y_init": raw["H_init"],
        "z_init": raw["L_init"],
        "token_embedding": _scaled(raw["embed_tokens.embedding_weight"], scale),
        "answer_decoder.weight": raw["lm_head.weight"],
        "halt_head.weight": raw["q_head.weight"][:1],
        "halt_head.bias": raw["q_head.bias"][:1],
    }
    if spec.registers:
        tensors["puzzle_embedding"] = _scaled(raw["puzzle_emb.weights"], scale)
    if spec.positions == "learned":
        tensors["position_embedding"] = _scaled(raw["embed_pos.embedding_weight"], scale)
    tensors |= {name: raw[theirs] for name, theirs in _block_names(spec).items()}
    ordered = {name: tensors[name] for name in spec.tensor_shapes()}
    check_statistics(ordered)
    return ordered


def _scaled(values: Array, scale: float) -> Array:
    return (values.astype(np.float64) * scale).astype(np.float32)
