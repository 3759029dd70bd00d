"""The command ``trm-edge train CONFIG.toml``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trm_edge.cli import add_command
from trm_edge.extras import import_extra
from trm_edge.plain import plain

DETAILS = """\
Train a head on recorded examples and leave OUT/model.pt, which `trm-edge export` takes.

  trm-edge train push.toml                          writes runs/push/
  trm-edge train push.toml --resume                 goes on after a stop, a crash or a power cut, to the same bits
  trm-edge export runs/push/model.pt push.trm
  torchrun --nproc-per-node 2 -m trm_edge.train push.toml

OUT also holds state.pt (to resume), log.jsonl and curve.png. SIGINT, SIGTERM and SIGHUP finish the batch at hand, save,
and exit with 130; a validation is given up, and made up for by --resume. Needs pip install 'trm-edge[train]'."""


def register(commands: Any) -> None:
    """Add the command to the command line; called through the entry point group ``trm_edge.commands``."""
    parser = add_command(commands, "train", run, "train a head on recorded examples", DETAILS)
    parser.add_argument("config", type=Path, help="a TOML file: [spec], [data], [train], [loss], [limits]")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME-OF-CONFIG)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and no progress")


def run(arguments: argparse.Namespace) -> int:
    """Train and return the exit code."""
    import_extra("torch", "training", "train")
    from .config import load_config
    from .evaluation import summary
    from .parallel import process_group
    from .trainer import Trainer

    config = load_config(arguments.config)
    out = arguments.out or Path("runs") / arguments.config.stem
    with process_group() as group:
        result = Trainer(config, out, resume=arguments.resume, group=group, quiet=arguments.json).run()
    if group.leads and arguments.json:
        print(json.dumps(plain(asdict(result) | {"model": str(result.model)})))
    elif group.leads:
        if result.evaluation is not None:
            print(summary(result.evaluation))
        what = "interrupted, go on with --resume" if result.interrupted else "done"
        print(f"{result.model}: {what}; {result.updates} updates, {result.seconds:.0f} s")
    return 130 if result.interrupted else 0
