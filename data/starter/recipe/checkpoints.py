"""Training state that survives a kill: written beside, fsynced, renamed. Knows no model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Checkpoint:
    """Named parts with `state_dict`, and the number of steps done, in one file."""

    def __init__(self, path: Path, **parts: Any) -> None:
        self._path = path
        self.parts = parts

    def load(self) -> int:
        """Put the stored state into the parts; return the steps done, 0 where nothing is stored."""
        if not self._path.exists():
            return 0
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save(self, step: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        state = {"step": step, **{name: part.state_dict() for name, part in self.parts.items()}}
        beside = self._path.with_suffix(".new")
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


def running_average(network: nn.Module, *, memory: float) -> AveragedModel:
    """Exponential average of the weights; its memory grows, since early weights are far from late ones."""

    def blend(old: Tensor, new: Tensor, count: Any) -> Tensor:
        return old.lerp(new, 1 - min(memory, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(network, avg_fn=blend)


def without_prefix(averaged: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of an AveragedModel -> state of the network it averages."""
    return {
        name.removeprefix("module."): value for name, value in averaged.items() if name.startswith("module.")
    }
