"""One of two processes that train together; importable there."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from training.toy import Toy

from seer_ray.config.training import TrainConfig
from seer_ray.training.loop import fit

SETTINGS: dict[str, Any] = {
    "steps": 8,
    "lr": 0.05,
    "warmup": 2,
    "clip": 0.5,
    "dtype": "float32",
    "log_every": 2,
    "eval_every": 4,
    "checkpoint_every": 3,
}


def worker(rank: int, folder: str, stop_at: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    toy = Toy(seed=rank, dropout=0.0)  # the second one's weights must not matter
    stop = None if stop_at is None else lambda step, _: step >= stop_at
    result = fit(toy, TrainConfig(**SETTINGS), folder, stop if rank == 0 else None)
    torch.save((result.step, [p.detach() for p in toy.module.parameters()]), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
