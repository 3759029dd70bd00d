"""Data-parallel training under ``torchrun``: equal slices of one global batch, gradients averaged with gloo."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before any group exists: see process_group
from torch import Tensor

from .data import Arrays


@dataclass(frozen=True)
class Group:
    """Place of this process among those that train together; one process alone is rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def slice(self, arrays: Arrays) -> Arrays:
        """Return this process's share of a global batch."""
        return {name: array[self.rank :: self.size] for name, array in arrays.items()} if self.size > 1 else arrays

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one message."""
        if self.size == 1:
            return
        parts = list(tensors)
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat)
        flat /= self.size
        for part, mean in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
            part.copy_(mean.view_as(part))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag))
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value.item())


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, if it did.

    Leaving ends gloo's threads: one that outlives the interpreter aborts the process. ``torch.distributed.nn`` would
    keep the group, and so the threads, alive if it were first imported while the group exists (by an optimiser, say),
    since its functions have the group of that moment as a default argument.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    dist.init_process_group("gloo")
    try:
        yield Group(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
