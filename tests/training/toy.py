"""A small regression as an objective: the loop without a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Toy:
    """Learns a fixed linear map from noise that is drawn by step, with dropout."""

    def __init__(self, seed: int = 0, rows: int = 8, dropout: float = 0.1) -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 2))
        self.rows = rows
        self.poison: int | None = None
        self.saved: dict[str, Any] | None = None

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(self.rows, 4, generator=torch.Generator().manual_seed(step))
        if step == self.poison:
            x[0, 0] = torch.nan
        y = x[:, :2] - x[:, 2:]
        return x[rank::world], y[rank::world]

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        x, y = batch
        error = self.module(x) - y
        return error.square().mean(), {"tokens": float(len(x)), "bias": error.mean().item()}

    def evaluate(self) -> dict[str, float]:
        x, y = self.batch(10**6, 0, 1)
        return {"loss": (self.module(x) - y).square().mean().item()}

    def save(self, folder: Path, report: dict[str, Any]) -> dict[str, float]:
        (folder / "toy.txt").write_text("toy")
        self.saved = report
        return {"final/size": 3.0}
