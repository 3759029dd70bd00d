"""A baseline without recursion: an MLP that corrects the draft in one go, from the same inputs and data as the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]


class OneShot(nn.Module):
    """``y = y0 + std * mlp(x, y0, features)``; the last layer starts at zero, as the head's decoder does."""

    def __init__(self, inputs: Array, drafts: Array, width: int) -> None:
        super().__init__()
        outputs = drafts[0].size
        self.register_buffer("mean", torch.from_numpy(inputs.mean(0)))
        self.register_buffer("std", torch.from_numpy(inputs.std(0)).clamp_min(1e-2))
        self.register_buffer("scale", torch.from_numpy(drafts.std((0, 1))))
        self.layers = nn.Sequential(
            nn.Linear(inputs.shape[1], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs),
        )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, inputs: torch.Tensor, draft: torch.Tensor) -> torch.Tensor:
        """Return corrected chunks [B, T, dof] of flat inputs [B, n] and drafts [B, T, dof]."""
        return draft + self.scale * self.layers((inputs - self.mean) / self.std).reshape(draft.shape)


def train(data: dict[str, Array], updates: int, batch: int, seed: int, width: int = 224) -> OneShot:
    """Fit the baseline to the expert's chunks by mean squared error."""
    torch.manual_seed(seed)
    inputs, draft, target = _flat(data), data["y0"], data["target"]
    model = OneShot(inputs, draft, width)
    tensors = [torch.from_numpy(a) for a in (inputs, draft, target)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        row = torch.randint(len(inputs), (batch,))
        given, start, wanted = (t[row] for t in tensors)
        loss = nn.functional.mse_loss(model(given, start) / model.scale, wanted / model.scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: OneShot, data: dict[str, Array]) -> Array:
    """Return corrected chunks [N, T, dof]."""
    result: Array = model(torch.from_numpy(_flat(data)), torch.from_numpy(data["y0"])).numpy()
    return result


def _flat(data: dict[str, Array]) -> Array:
    return np.concatenate([data[name].reshape(len(data["y0"]), -1) for name in ("x", "y0", "features")], axis=1)
