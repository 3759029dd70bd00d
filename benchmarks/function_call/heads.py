"""The heads of the study: one per fold and variant, trained once, and kept by the hash of all that made them.

    python benchmarks/function_call/heads.py --folds 0 1 2 3 4                      what study.py would train first
    python benchmarks/function_call/heads.py --folds 0 --variants "one step"
    python benchmarks/function_call/heads.py --ship        one trained on all examples: trm_edge/data/tool_calls.trm

A fold's training examples are made once for the code that makes them (two minutes on one core), a head once for these
examples and its configuration. A run that was interrupted goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.calls import Maker, sources, write
from function_call.folds import EVERY, FOLDS, split
from function_call.llm import as_bf16, model_file
from trm_edge import json_slots
from trm_edge.bundle import bundle_bytes, read_bundle
from trm_edge.export.bundle_writer import export_bundle
from trm_edge.files import write_atomically
from trm_edge.json_slots import ContextProvider, HashedNgrams, Joined, JsonSlots
from trm_edge.json_slots.features import CANDIDATE_FLAGS, FLAGS_WIDTH, SLOT_FLAGS, TOKEN_FLAGS, featurizer_for
from trm_edge.json_slots.llama import LlamaStates
from trm_edge.spec import TrmSpec
from trm_edge.train import RunConfig, Trainer, load_config, packed, tool_calls
from trm_edge.train.tool_calls import for_tool_calls

HERE = Path(__file__).parent
CACHE = HERE / "cache"
SHIPPED = HERE.parents[1] / "trm_edge" / "data" / "tool_calls.trm"
MAY_DECLINE = "may decline"  # the variant that ships
FEW = {"values": 2, "repeats": 1}  # a language model reads every query and value: a second each, on a busy core
HALF = {"hidden_size": 128, "inner_size": 384}  # half a million parameters
STATE_WIDTH = 576  # of SmolLM2-135M's states


def _sizes(width: int) -> dict[str, int]:
    """Return what a head takes whose rows have vectors of this width beside their flags."""
    return {
        "context_size": width + TOKEN_FLAGS,
        "slot_size": 3 * width + SLOT_FLAGS,
        "candidate_size": width + CANDIDATE_FLAGS,
    }


TEXTS, STATES = _sizes(FLAGS_WIDTH), _sizes(FLAGS_WIDTH + STATE_WIDTH)  # of n-grams, and of states beside them
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "head": {},
    "one step": {"train": {"steps": 1}},
    "random blocks": {"train": {"zero_init_residual": False}},
    "linear": {"train": {"learning_rate": 1e-7, "encoder_rate": 2e4}},  # blocks stay norms of their input
    "with texts": {"spec": TEXTS},
    MAY_DECLINE: {"examples": {"declining": True}},
    "few values": {"examples": FEW},
    "few values, with texts": {"spec": TEXTS, "examples": FEW},
    "few values, with states": {"spec": STATES, "examples": FEW},
    "few values, with thoughts": {"spec": STATES | {"max_context": 128}, "examples": FEW | {"thoughts": True}},
    "0.1 M": {"spec": {"hidden_size": 48, "inner_size": 144}},
    "0.5 M": {"spec": HALF},
    "0.5 M, seed 2": {"spec": HALF, "train": {"seed": 2}},
    "0.5 M, seed 3": {"spec": HALF, "train": {"seed": 3}},
    "2 M": {"spec": {"hidden_size": 256, "inner_size": 768}},
    "7 M": {"spec": {"hidden_size": 512, "inner_size": 1536}},
    "seed 2": {"train": {"seed": 2}},
    "seed 3": {"train": {"seed": 3}},
}
"""What differs from head.toml, by table and field; ``examples`` are made with other arguments of ``sources``, or, where
they are ``declining``, with strangers, or with ``thoughts``, as they then are asked."""


def head(fold: int, variant: str, cache: Path = CACHE, updates: int | None = None) -> Path:
    """Return the bundle of a fold's head, trained now if it was not before."""
    config = _config(variant, updates)
    data = _examples(fold, config.spec, variant, cache)
    config = replace(config, data=replace(config.data, train=str(data.resolve())))
    about = config.to_dict() | {"data": data.name}
    name = hash_of(sorted(Path(packed.__file__).parent.glob("*.py")), json.dumps(about, sort_keys=True))
    bundle = cache / f"head-{name}.trm"
    if not bundle.exists():
        print(f"fold {fold}, {variant}: training {bundle.name}", file=sys.stderr)
        done = Trainer(config, cache / f"head-{name}", resume=True).run()
        if done.interrupted:
            raise SystemExit("interrupted; the same command goes on from here")
        export_bundle(done.model, bundle)
        made = {"fold": fold, "variant": variant, "updates": done.updates, "seconds": round(done.seconds)}
        write_atomically(bundle.with_suffix(".json"), (json.dumps(made | {"config": about}, indent=1) + "\n").encode())
    return bundle


def _config(variant: str, updates: int | None) -> RunConfig:
    config = load_config(HERE / "head.toml")
    changes = {table: fields for table, fields in VARIANTS[variant].items() if table != "examples"}
    config = replace(config, **{table: replace(getattr(config, table), **fields) for table, fields in changes.items()})
    return config if updates is None else replace(config, train=replace(config.train, max_updates=updates))


def provider_for(spec: TrmSpec, cache: Path = CACHE) -> ContextProvider | None:
    """Return what reads texts for a head: beside n-grams a language model, where its rows are wider; else None."""
    if spec.context_size <= TEXTS["context_size"]:
        return None
    return Joined(HashedNgrams(FLAGS_WIDTH), LlamaStates(as_bf16(model_file(), cache)))


def _examples(fold: int, spec: TrmSpec, variant: str, cache: Path) -> Path:
    """Return a fold's training examples, made now if this code did not make them before."""
    drawn = dict(VARIANTS[variant].get("examples", {}))
    what = "-".join([f"{spec.context_size - TOKEN_FLAGS}", *(f"{name}={value}" for name, value in drawn.items())])
    path = cache / f"fold{fold}-{what}-{_made_by()}.npz"
    if not path.exists():
        begun = time.monotonic()
        strangers = split(fold).tools if drawn.pop("declining", False) else ()
        maker = Maker(
            featurizer_for(spec, provider_for(spec, cache)), spec, fold, strangers, drawn.pop("thoughts", False)
        )
        counts = write(path, sources(fold, **drawn), maker)
        print(f"fold {fold}: {counts} in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return path


def _made_by() -> str:
    """Return a hash of the code and the drafts that examples are made of."""
    apart = ("heads.py", "study.py", "latency.py", "rules.py")
    training = [Path(module.__file__) for module in (packed, tool_calls)]
    return hash_of([*training, *(path for path in code() if path.name not in apart)])


def code() -> list[Path]:
    """Return the files that examples and answers depend on: the package's part, this folder, folds and drafts."""
    folders = Path(json_slots.__file__).parent, HERE
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".txt")]
    return [*files, HERE / "folds.json", *(HERE / "drafts" / f"{arm}.jsonl" for arm in ("grammar", "cot"))]


def hash_of(files: Iterable[Path], more: str = "") -> str:
    """Return what names something made of these files, and of ``more``."""
    total = hashlib.sha256(more.encode())
    for path in files:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def ship(cache: Path = CACHE) -> Path:
    """Write the head that was trained on every example, for tools of anybody's; no example can tell how good it is."""
    example = next(one for one in split(EVERY).train if len(one.tools) > 1)
    slots = [JsonSlots(tool) for tool in example.tools]
    made = read_bundle(head(EVERY, MAY_DECLINE, cache))
    made = for_tool_calls(made, slots, example.query, example.name, "{}", declines=True)
    write_atomically(SHIPPED, bundle_bytes(made))
    return SHIPPED


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", choices=range(FOLDS), default=list(range(FOLDS)))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["head"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--ship", action="store_true", help="train on all examples, and write the head of the package")
    arguments = parser.parse_args()
    if arguments.ship:
        print(ship(arguments.cache))
        return
    for fold in arguments.folds:
        for variant in arguments.variants:
            print(f"fold {fold}, {variant}: {head(fold, variant, arguments.cache)}")


if __name__ == "__main__":
    main()
