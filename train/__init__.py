"""Training: the head in torch, deep supervision, and the command ``trm-edge train``.

    from trm_edge.train import TrmHead, load_config, Trainer

    Trainer(load_config("push.toml"), "runs/push").run()      # what `trm-edge train push.toml` does

The frozen model in front stays outside: training reads its recorded outputs. :class:`TrmHead` is differentiable in
``x`` and ``y0`` for those who want to go on into it. Needs ``pip install 'trm-edge[train]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trm_edge.extras import import_extra, lazy_attribute

if TYPE_CHECKING:
    from .config import RunConfig as RunConfig
    from .config import load_config as load_config
    from .config import parse_config as parse_config
    from .evaluation import evaluate as evaluate
    from .model import TrmHead as TrmHead
    from .model import load_weights as load_weights
    from .trainer import Trainer as Trainer

_HOMES = {
    "RunConfig": "config",
    "load_config": "config",
    "parse_config": "config",
    "evaluate": "evaluation",
    "TrmHead": "model",
    "load_weights": "model",
    "Trainer": "trainer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name's module at its first use, so that the command line does not wait for torch."""
    if name in _HOMES:
        import_extra("torch", "training", "train")
    return lazy_attribute(__name__, _HOMES, name)
