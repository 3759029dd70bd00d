"""The heads of the study: one per fold and variant, trained once, and kept by the hash of all that made them.

    python benchmarks/function_call/heads.py --folds 0 1 2 3 4                      what study.py would train first
    python benchmarks/function_call/heads.py --folds 0 --variants "one step"

A fold's training examples are made once for the code that makes them (four minutes on one core), a head once for these
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
from trm_edge import json_slots
from trm_edge.export.bundle_writer import export_bundle
from trm_edge.files import write_atomically
from trm_edge.json_slots.features import TOKEN_FLAGS, featurizer_for
from trm_edge.train import RunConfig, Trainer, load_config

HERE = Path(__file__).parent
CACHE = HERE / "cache"
FOLDS = tuple(range(5))
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "head": {},
    "one step": {"train": {"steps": 1}},
    "with texts": {"spec": {"context_size": 134, "slot_size": 444, "candidate_size": 302}},
    "0.1 M": {"spec": {"hidden_size": 48, "inner_size": 144}},
    "0.5 M": {"spec": {"hidden_size": 128, "inner_size": 384}},
    "2 M": {"spec": {"hidden_size": 256, "inner_size": 768}},
    "7 M": {"spec": {"hidden_size": 512, "inner_size": 1536}},
    "seed 2": {"train": {"seed": 2}},
    "seed 3": {"train": {"seed": 3}},
}
"""What differs from head.toml, by table and field."""


def head(fold: int, variant: str, cache: Path = CACHE, updates: int | None = None) -> Path:
    """Return the bundle of a fold's head, trained now if it was not before."""
    config = _config(variant, updates)
    data = _examples(fold, config, cache)
    config = replace(config, data=replace(config.data, train=str(data.resolve())))
    about = config.to_dict() | {"data": data.name}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
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
    tables = {table: replace(getattr(config, table), **fields) for table, fields in VARIANTS[variant].items()}
    config = replace(config, **tables)
    return config if updates is None else replace(config, train=replace(config.train, max_updates=updates))


def _examples(fold: int, config: RunConfig, cache: Path) -> Path:
    """Return a fold's training examples, made now if this code did not make them before."""
    width = config.spec.context_size - TOKEN_FLAGS
    path = cache / f"fold{fold}-{width}-{_made_by()}.npz"
    if not path.exists():
        begun = time.monotonic()
        featurizer = featurizer_for(config.spec)
        counts = write(path, sources(fold), Maker(featurizer, config.spec, fold))
        print(f"fold {fold}: {counts} in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return path


def _made_by() -> str:
    """Return a hash of the code and the drafts that examples are made of."""
    code = [Path(json_slots.__file__).parent, HERE]
    files = [path for folder in code for path in folder.rglob("*") if path.suffix in (".py", ".txt")]
    files = [path for path in files if path.name not in ("heads.py", "study.py", "latency.py", "rules.py")]
    total = hashlib.sha256()
    for path in (*sorted(files), HERE / "folds.json", HERE / "drafts" / "grammar.jsonl"):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def every(folds: Iterable[int], variants: Iterable[str], cache: Path = CACHE) -> dict[tuple[int, str], Path]:
    """Return the bundles of several heads, training those that are missing."""
    return {(fold, variant): head(fold, variant, cache) for fold in folds for variant in variants}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", choices=FOLDS, default=list(FOLDS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["head"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    for (fold, variant), bundle in every(arguments.folds, arguments.variants, arguments.cache).items():
        print(f"fold {fold}, {variant}: {bundle}")


if __name__ == "__main__":
    main()
