"""Write the small bundles of ``tests/golden/bundles``, which the C++ and Python tests read.

Run it after the format or the oracle has changed: ``python tests/golden/make_bundles.py``. One file for each kind and
family of mixer; the weights are random, the golden vectors are real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from models import make_bundle

from trm_edge.bundle import write_bundle

BUNDLES = Path(__file__).parent / "bundles"
FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "actions_attention": ("actions", "rope", {"feature_size": 2, "draft": "optional"}),
    "actions_mlp_t": ("actions", "mlp_t_learned", {}),
    "slots_attention": ("slots", "learned", {}),
    "tokens_attention": ("tokens", "rope", {}),
    "tokens_mlp_t": ("tokens", "mlp_t", {}),
}


def main() -> None:
    """Write every file."""
    BUNDLES.mkdir(exist_ok=True)
    for seed, (name, (kind, mixer, changes)) in enumerate(FILES.items()):
        write_bundle(BUNDLES / f"{name}.trm", make_bundle(kind, mixer, seed=seed, **changes))


if __name__ == "__main__":
    main()
