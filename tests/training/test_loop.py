"""The training loop on a toy: what it computes, keeps and refuses."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training.toy import Toy

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import TrainConfig
from seer_ray.training import checkpoint
from seer_ray.training.loop import TrainingError, fit
from seer_ray.training.optim import Optimizer, lr_at

TIMES = ("speed/tokens_per_s", "time/eta_s")


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 12,
        "lr": 0.05,
        "warmup": 2,
        "dtype": "float32",
        "log_every": 5,
        "eval_every": 4,
        "checkpoint_every": 3,
    }
    return TrainConfig(**(settings | changes))


def curve(folder: Path) -> list[dict[str, float]]:
    """The recorded metrics without what the clock says."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def weights(toy: Toy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in toy.module.parameters()]


def test_training_learns_and_leaves_curve_checkpoints_and_product(tmp_path):
    toy, told = Toy(dropout=0.0), []
    result = fit(
        toy,
        config(steps=60),
        tmp_path,
        lambda step, metrics: told.append((step, metrics)) if metrics else None,
    )
    assert result.finished and result.step == 60 and result.tokens == 60 * 8
    records = curve(tmp_path)
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert len(losses) == 12 and losses[-1] < 0.2 * losses[0]
    assert [r["step"] for r in records if "eval/loss" in r] == [*range(4, 60, 4), 60]
    assert [step for step, _ in told] == [record["step"] for record in records]
    assert (tmp_path / "model" / "toy.txt").read_text() == "toy"
    assert toy.saved is not None and toy.saved["metrics"]["eval/loss"] == result.metrics["eval/loss"]
    assert result.metrics["final/size"] == 3.0
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000057.pt",
        "step-00000060.pt",
    ]


@pytest.mark.parametrize(
    ("stop_at", "optimizer"), [(1, "adamw"), (4, "adamw"), (5, "muon"), (7, "adamw"), (9, "muon")]
)
def test_interrupted_and_resumed_gives_the_same_bits(tmp_path, stop_at, optimizer):
    whole, halves = Toy(), Toy()
    fit(whole, config(optimizer=optimizer), tmp_path / "whole")
    # The step after the one that was asked to stop is the last of the session.
    first = fit(
        halves,
        config(optimizer=optimizer),
        tmp_path / "halves",
        lambda step, metrics: step >= stop_at,
    )
    assert not first.finished and first.step == stop_at + 1
    again = Toy(seed=5)  # its own weights must not matter
    assert fit(again, config(optimizer=optimizer), tmp_path / "halves").finished
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))
    assert curve(tmp_path / "halves") == curve(tmp_path / "whole")


def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path):
    class Killed(BaseException):
        pass

    def kill(step: int, metrics: dict[str, float]) -> None:
        if step == 11:
            raise Killed

    whole = Toy()
    fit(whole, config(), tmp_path / "whole")
    with pytest.raises(Killed):
        fit(Toy(), config(), tmp_path / "killed", kill)
    assert curve(tmp_path / "killed")[-1]["step"] == 10  # after the checkpoint of step 9: computed again
    resumed = Toy()
    fit(resumed, config(), tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_finished_job_trains_no_further(tmp_path):
    fit(Toy(), config(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    again = Toy()
    assert fit(again, config(), tmp_path).finished
    assert again.saved is not None
    trained = [json.loads(line) for line in before.splitlines() if "train/loss" in line]
    after = [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines() if "train/loss" in x
    ]
    assert trained == after


def test_a_loss_that_is_no_number_is_refused_with_its_step(tmp_path):
    toy = Toy()
    toy.poison = 7
    with pytest.raises(TrainingError, match=r"^step 7: the loss is nan; lower train\.lr"):
        fit(toy, config(), tmp_path)
    assert checkpoint.names(checkpoint_store(tmp_path)) == ["step-00000003.pt", "step-00000006.pt"]


def checkpoint_store(folder: Path) -> Any:
    from seer_ray.results.store import open_store

    return open_store(str(folder))


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    fit(Toy(), config(), tmp_path)
    other = Toy()
    other.module = torch.nn.Linear(4, 2)
    with pytest.raises(ConfigError, match="its checkpoint has other weights than this model"):
        fit(other, config(), tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000012.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"step-00000012\.pt: cannot be read .* delete it"):
        fit(Toy(), config(), tmp_path)
    newest.unlink()
    assert fit(Toy(), config(), tmp_path).finished


def test_gradients_that_the_objective_made_itself_train_alike(tmp_path):
    class Own(Toy):
        def loss(self, batch: Any) -> Any:
            loss, values = super().loss(batch)
            loss.backward()
            return loss.detach(), values

    usual, own = Toy(), Own()
    fit(usual, config(), tmp_path / "usual")
    fit(own, config(), tmp_path / "own")
    assert all(torch.equal(a, b) for a, b in zip(weights(usual), weights(own), strict=True))


def test_learning_rate_warms_up_holds_and_ends_at_its_minimum():
    plain = config(steps=101, warmup=10, lr=1.0, min_lr=0.1)
    rates = [lr_at(step, plain) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    held = config(steps=101, warmup=10, lr=1.0, min_lr=0.1, hold=0.6)
    assert {lr_at(step, held) for step in range(10, 61)} == {1.0}
    assert lr_at(80, held) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 19 / 39)))
    assert lr_at(0, config(steps=1, warmup=0)) == 0.05


def test_norms_and_biases_do_not_decay():
    groups = Optimizer(Toy().module, config(weight_decay=0.3)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.3, 2), (0.0, 2)]


def test_muon_takes_the_matrices_of_the_layers_and_nothing_else():
    module = torch.nn.Module()
    module.embed = torch.nn.Embedding(5, 4)
    module.layer = torch.nn.Linear(4, 4)
    module.lm_head = torch.nn.Linear(4, 5, bias=False)
    module.lm_head.weight = module.embed.weight
    optimizer = Optimizer(module, config(optimizer="muon", weight_decay=0.3))
    adamw, muon = optimizer.parts
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    kept = [(group["weight_decay"], [id(p) for p in group["params"]]) for group in adamw.param_groups]
    assert kept == [(0.3, [id(module.embed.weight)]), (0.0, [id(module.layer.bias)])]
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(module.layer.weight)]
    # An update has the size of AdamW's: 0.2 of the learning rate in the mean square, up to what the five
    # Newton-Schulz steps leave (singular values of 0.7 to 1.2 instead of 1).
    before = module.layer.weight.detach().clone()
    module.layer.weight.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    muon.param_groups[0]["weight_decay"] = 0.0
    optimizer.step(0.01)
    moved = (module.layer.weight.detach() - before).square().mean().sqrt().item()
    assert 0.6 * 0.002 < moved < 1.3 * 0.002


@pytest.mark.parametrize(("betas", "trained"), [([0.9], True), ([0.9, 1.0], True), ([0.9, 0.98], False)])
def test_what_cannot_be_optimised_is_refused(betas, trained):
    module = Toy().module.requires_grad_(trained)
    with pytest.raises(ConfigError, match="betas" if trained else "no parameter"):
        Optimizer(module, config(betas=betas))
