"""``python -m trm_edge.train CONFIG.toml``: the command ``trm-edge train``, as ``torchrun`` starts it."""

from __future__ import annotations

import sys

from trm_edge.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
