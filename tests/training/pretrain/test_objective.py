"""Pretraining as an objective of the loop, with a model that trains in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training.small import small
from transformers import AutoModelForCausalLM, AutoTokenizer

from seer_ray.config.command import training_command
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.load import generation_defaults, load_model
from seer_ray.training.loop import fit
from seer_ray.training.pretrain.objective import Pretraining
from seer_ray.training.pretrain.problems import held_out, pack

TIMES = ("speed/tokens_per_s", "time/eta_s")


def curve(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that ran through."""
    folder = tmp_path_factory.mktemp("trained")
    config = small("train.steps=20", "data={start: 3, end: 3, growth: 0}")
    fit(Pretraining(config, "cpu"), config.train, folder)
    return folder


def test_the_loss_goes_down(trained):
    losses = [record["train/loss"] for record in curve(trained) if "train/loss" in record]
    assert losses[0] > 6.0 and losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resumed_training_is_the_same_to_the_last_bit(tmp_path, dtype):
    config = small(f"train.dtype={dtype}", "evaluation.answers=0")
    whole = Pretraining(config, "cpu")
    fit(whole, config.train, tmp_path / "whole")
    first = fit(Pretraining(config, "cpu"), config.train, tmp_path / "halves", lambda step, _: step >= 2)
    assert first.step == 3
    again = Pretraining(config, "cpu")
    fit(again, config.train, tmp_path / "halves")
    assert curve(tmp_path / "halves") == curve(tmp_path / "whole")
    pairs = zip(whole.module.parameters(), again.module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_product_is_an_ordinary_model_folder(trained):
    folder = trained / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is x3?"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**prompt, max_new_tokens=4).shape[1] > prompt["input_ids"].shape[1]
    loaded = load_model(ModelConfig(name=str(folder)))
    assert loaded.dtype == torch.bfloat16 and loaded.max_context == 512
    assert generation_defaults(ModelConfig(name=str(folder))).eos_token_ids == (tokenizer.eos_token_id,)
    card = (folder / "README.md").read_text()
    assert all(part in card for part in ("seer-ray pretrain", "| 3 steps | ", "| 7 steps | ", "\n20 steps, "))


def test_evaluation_knows_when_every_token_is_right():
    objective = Pretraining(small("evaluation={lengths: [3, 5, 400], problems: 3}"), "cpu")
    found = objective.evaluate()
    assert set(found) == {
        f"{n}_steps/{name}" for n in (3, 5) for name in ("loss", "token_accuracy", "solved")
    }
    assert found["3_steps/solved"] == 0.0 and found["3_steps/loss"] > 6.0

    def knows_all_but_one(batch):
        targets = batch.targets[batch.targets >= 0]
        logits = torch.nn.functional.one_hot(targets, 2368).float() * 50
        logits[-2] = 0.0
        return logits, targets

    objective._predict = knows_all_but_one
    found = objective.evaluate()
    count = int((pack(held_out(objective.config.data, 3, 3), objective.tokenizer).targets >= 0).sum())
    assert found["3_steps/solved"] == pytest.approx(2 / 3)
    assert found["3_steps/token_accuracy"] == pytest.approx(1 - 1 / count)


def test_loss_is_the_cross_entropy_of_the_solution(trained):
    """Against transformers' own loss on each problem alone."""
    config = small()
    objective = Pretraining(config, "cpu")
    batch = objective.batch(4, 0, 1)
    mine, values = objective.loss(batch)
    stock = AutoModelForCausalLM.from_config(objective.module.config)
    stock.load_state_dict(objective.module.state_dict())
    total = count = 0.0
    lengths = batch.documents.lengths
    for tokens, targets in zip(batch.tokens.split(lengths), batch.targets.split(lengths), strict=True):
        logits = stock(tokens.unsqueeze(0)).logits[0].float()
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        count += int((targets >= 0).sum())
    assert mine.item() == pytest.approx(total / count, rel=1e-4)
    assert values["tokens"] == sum(lengths)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("architecture.kv_heads=3", r"^architecture\.kv_heads=3: must divide architecture\.heads=4$"),
        ("architecture.head_dim=9", r"^architecture\.head_dim=9: must be even$"),
        ("architecture.mixers.0=mamba", r"^architecture\.mixers\.0=mamba: must be one of attention, sliding"),
        ("data.end=2", r"^data\.end=2: must be at least data\.start=3$"),
        ("data.end=100", r"^data\.end=100: such a problem has about \d+ tokens, train\.length is 512"),
        ("train.batch_tokens=100", r"^train\.batch_tokens=100: must hold a problem of data\.end=6 steps"),
    ],
)
def test_options_that_do_not_go_together_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        Pretraining(small(override), "cpu")


def test_the_command_in_the_card_gives_the_same_options():
    import shlex

    from seer_ray.config.compose import compose
    from seer_ray.config.training import PretrainConfig

    assert training_command(compose([], PretrainConfig), "pretrain") == "seer-ray pretrain"
    config = compose(
        ["train.lr=0.5", "architecture.mixers={0-1: sliding}", "evaluation.lengths=[3, 4]"], PretrainConfig
    )
    words = shlex.split(training_command(config, "pretrain"))
    assert words[:2] == ["seer-ray", "pretrain"] and compose(words[2:], PretrainConfig) == config
