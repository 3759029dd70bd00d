"""The frozen base: a small flow-matching policy that proposes action chunks (Lipman et al., arXiv 2210.02747).

It stands in for a VLA: an encoder makes a scene latent of one observation, and a velocity field, integrated by a few
Euler steps, turns noise into the next 12 actions. Its chunks are fair and imperfect: sampling noise stays in them, and
nothing tells it which action came last or what the limits are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import DOF, TASKS, Episode
from torch import nn

HORIZON = 12  # actions the base predicts
LATENT = 48  # width of the scene latent
EULER_STEPS = 5
_WIDTH = 256
_OBSERVATION = 39

Array = np.ndarray[Any, np.dtype[Any]]


class FlowPolicy(nn.Module):
    """Velocity field of a chunk ``[HORIZON, DOF]`` given the scene latent of an observation."""

    def __init__(self) -> None:
        super().__init__()
        chunk = HORIZON * DOF
        self.register_buffer("mean", torch.zeros(_OBSERVATION))
        self.register_buffer("std", torch.ones(_OBSERVATION))
        self.encoder = nn.Sequential(
            nn.Linear(_OBSERVATION + len(TASKS), _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(),
            nn.Linear(_WIDTH, LATENT), nn.LayerNorm(LATENT, elementwise_affine=False),
        )  # fmt: skip
        self.field = nn.Sequential(
            nn.Linear(LATENT + chunk + 1, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(),
            nn.Linear(_WIDTH, chunk),
        )  # fmt: skip

    def encode(self, observations: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Return the scene latent [N, 48] of observations [N, 39] and task numbers [N]."""
        one_hot = nn.functional.one_hot(task, len(TASKS)).float()
        return self.encoder(torch.cat([(observations - self.mean) / self.std, one_hot], dim=1))

    def velocity(self, chunk: torch.Tensor, time: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Return d chunk / d time [N, 48] at ``chunk`` [N, 48] and ``time`` [N, 1] in 0 (noise) .. 1 (actions)."""
        return self.field(torch.cat([latent, chunk, time], dim=1))

    @torch.no_grad()
    def propose(self, observations: Array, task: int, seed: int) -> tuple[Array, Array]:
        """Return scene latents [N, 48] and chunks [N, 12, 4], both float32, of observations [N, 39]."""
        seen = torch.from_numpy(observations).float()
        latent = self.encode(seen, torch.full((len(seen),), task))
        generator = torch.Generator().manual_seed(seed)
        chunk = torch.randn(len(seen), HORIZON * DOF, generator=generator)
        for i in range(EULER_STEPS):
            time = torch.full((len(seen), 1), i / EULER_STEPS)
            chunk = chunk + self.velocity(chunk, time, latent) / EULER_STEPS
        return latent.numpy(), chunk.reshape(-1, HORIZON, DOF).numpy()


def train(episodes: list[Episode], updates: int, seed: int, batch: int = 512) -> FlowPolicy:
    """Fit the policy to the demonstrators' own next actions, by conditional flow matching along straight lines."""
    torch.manual_seed(seed)
    seen, task, chunks = (torch.from_numpy(a) for a in _pairs(episodes))
    policy = FlowPolicy()
    policy.mean, policy.std = seen.mean(0), seen.std(0)
    policy.std[policy.std < 1e-4] = 1.0  # columns that Meta-World pads
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        row = torch.randint(len(seen), (batch,))
        noise, time = torch.randn(batch, HORIZON * DOF), torch.rand(batch, 1)
        between = (1 - time) * noise + time * chunks[row]
        velocity = policy.velocity(between, time, policy.encode(seen[row], task[row]))
        loss = nn.functional.mse_loss(velocity, chunks[row] - noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


def save(path: Path, policy: FlowPolicy) -> None:
    """Write the weights."""
    torch.save(policy.state_dict(), path)


def load(path: Path) -> FlowPolicy:
    """Read what :func:`save` wrote."""
    policy = FlowPolicy()
    policy.load_state_dict(torch.load(path, weights_only=True))
    return policy.eval()


def _pairs(episodes: list[Episode]) -> tuple[Array, Array, Array]:
    """Return observations [N, 39], task [N] and the next HORIZON actions [N, 48]; the last action is held."""
    chunks = []
    for episode in episodes:
        index = np.arange(len(episode.actions))[:, None] + np.arange(HORIZON)
        chunks.append(episode.actions[np.minimum(index, len(episode.actions) - 1)])
    seen = np.concatenate([e.observations for e in episodes]).astype(np.float32)
    task = np.concatenate([np.full(len(e.actions), e.task) for e in episodes])
    return seen, task, np.concatenate(chunks).reshape(len(seen), -1)
