"""Two processes train as one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from training.toy import Toy
from training.two_ranks import SETTINGS, worker

from seer_ray.config.training import TrainConfig
from seer_ray.training.loop import fit


def spawn(folder: Path, stop_at: int | None = None) -> list[tuple[int, list[torch.Tensor]]]:
    """What each rank has at the end: steps done and weights."""
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    mp.spawn(worker, (str(folder), stop_at), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["train/loss"] for record in records if "train/loss" in record]


def test_gradients_averaged_over_two_processes_are_those_of_one(tmp_path):
    alone = Toy(dropout=0.0)
    result = fit(alone, TrainConfig(**SETTINGS), tmp_path / "alone")
    (first_step, first), (second_step, second) = spawn(tmp_path / "pair")
    assert first_step == second_step == 8
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for mine, theirs in zip(alone.module.parameters(), first, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses(tmp_path / "alone"), losses(tmp_path / "pair"), rtol=1e-4, atol=1e-5)
    records = [json.loads(x) for x in (tmp_path / "pair" / "metrics.jsonl").read_text().splitlines()]
    assert [r["train/tokens"] for r in records if "train/tokens" in r][-1] == result.tokens == 64


@pytest.mark.long
def test_two_processes_stop_together_and_go_on_together(tmp_path):
    (first_step, _), (second_step, _) = spawn(tmp_path / "halves", stop_at=4)
    assert first_step == second_step == 5
    halves = spawn(tmp_path / "halves")
    whole = spawn(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(halves[1][1], whole[1][1], strict=True))
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
