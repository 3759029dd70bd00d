"""How gradients become weights: AdamW, its rate over time, and the average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import TrainConfig
from .model import TrmHead

OUTER_MAPS = (
    *("context_encoder", "slot_encoder", "features_encoder", "answer_encoder", "key"),
    *("query", "answer_decoder", "halt_head"),
)
"""Maps between rows and inputs or answers, which ``train.encoder_rate`` is for."""


def make_optimizer(head: TrmHead, train: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW; weight decay is for the matrices of linear maps only. Each group has its rate as ``scale``."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        kind = name.endswith(".weight"), name.split(".")[0] in OUTER_MAPS
        groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": train.weight_decay if decayed else 0.0,
                "scale": train.encoder_rate if outer else 1.0,
            }
            for (decayed, outer), parameters in groups.items()
        ],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        fused=True,
    )


def learning_rate(train: TrainConfig, update: int) -> float:
    """Return the rate of weight update number ``update`` (from 0): a linear warm-up, then constant or a cosine."""
    if update < train.warmup_updates:
        return train.learning_rate * (update + 1) / train.warmup_updates
    if train.schedule == "constant":
        return train.learning_rate
    progress = (update - train.warmup_updates) / max(1, train.max_updates - train.warmup_updates)
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def update_average(averaged: TrmHead, head: TrmHead, decay: float, updates: int) -> None:
    """Move ``averaged`` towards ``head`` after weight update number ``updates`` (from 1).

    The decay starts small and grows to ``decay``: with it from the beginning, the random start would weigh
    ``decay ** updates``, a quarter after 700 updates at 0.998.
    """
    weights: list[Tensor] = list(averaged.parameters())
    share = 1 - min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(weights, [p.detach() for p in head.parameters()], share)
