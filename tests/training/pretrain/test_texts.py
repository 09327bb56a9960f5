"""Text as training data: packed, split, and refused where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import save_tiny, tiny_tokenizer
from training.small import small

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.config.training import PretrainConfig
from seer_ray.models.load import load_model
from seer_ray.training.loop import fit
from seer_ray.training.pretrain.batch import NO_TARGET
from seer_ray.training.pretrain.objective import Pretraining, check_pretraining
from seer_ray.training.pretrain.texts import Texts


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    rows = [{"id": i, "text": f"{i} " + "the whole value of the sum is 7. " * (1 + i % 4)} for i in range(40)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    save_tiny(tmp_path / "tokenizer", "qwen3")
    return small(
        f"data={{text: {tmp_path}/text.jsonl, held_out: 0.1}}",
        f"architecture.tokenizer={tmp_path}/tokenizer",
        "train={length: 200, batch_tokens: 600, steps: 8}",
    )


def test_rows_are_full_and_every_next_token_of_a_document_is_a_target(config):
    texts = Texts(config, tiny_tokenizer())
    batch = texts.batch(2, 0, 1)
    assert 500 < len(batch.tokens) <= 600 and batch.steps == 0
    lengths = batch.documents.lengths
    for tokens, targets in zip(batch.tokens.split(lengths), batch.targets.split(lengths), strict=True):
        assert torch.equal(targets[:-1], tokens[1:]) and targets[-1] == NO_TARGET
    again = Texts(config, tiny_tokenizer()).batch(2, 0, 1)
    assert torch.equal(batch.tokens, again.tokens)


def test_ranks_have_different_rows_and_held_out_documents_are_not_trained_on(config):
    texts = Texts(config, tiny_tokenizer())
    first, second = texts.batch(3, 0, 3), texts.batch(3, 1, 3)
    assert not torch.equal(first.tokens[:150], second.tokens[:150])
    names, kept = zip(*texts.held_out(), strict=True)
    assert set(names) == {"text"} and all(len(batch.tokens) <= 600 for batch in kept)
    documents = [part for batch in kept for part in batch.tokens.split(batch.documents.lengths)]
    assert 1 <= len(documents) < 20
    held = {tuple(tokens.tolist()[:12]) for tokens in documents}
    seen = [
        batch.tokens.split(batch.documents.lengths) for batch in (texts.batch(s, 0, 1) for s in range(20))
    ]
    starts = {tuple(tokens.tolist()[:12]) for batch in seen for tokens in batch}
    assert len(starts) >= 30 and not starts & held


def test_a_text_can_be_learned_and_the_model_used(config, tmp_path):
    objective = Pretraining(config, "cpu")
    result = fit(objective, config.train, tmp_path / "run")
    assert result.metrics["train/loss"] < 5.0 and result.metrics["eval/text/loss"] < 5.0
    assert "eval/text/solved" not in result.metrics and "train/problem_steps" not in result.metrics
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "text.jsonl" in card and "| text | " in card
    loaded = load_model(ModelConfig(name=str(tmp_path / "run" / "model")))
    assert loaded.tokenizer.decode(loaded.tokenizer("é ok")["input_ids"]) == "é ok"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.text=[]", r"^data\.text: not set"),
        ("train.length=600", r"^train\.length=600: must be at most architecture\.max_positions=512$"),
        ("train.batch_tokens=100", r"^train\.batch_tokens=100: must hold a row of train\.length=200$"),
        ("data.text=null", r"^architecture\.tokenizer=.*: the built-in problems have their own"),
    ],
)
def test_options_that_do_not_go_together_are_refused(config, override, message):
    from seer_ray.config.compose import compose

    with pytest.raises(ConfigError, match=message):
        check_pretraining(compose([override], PretrainConfig, base=config))


def test_missing_text_and_tokenizers_are_refused(config, tmp_path):
    (tmp_path / "numbers.jsonl").write_text('{"number": 3}\n')
    config.data.text = str(tmp_path / "numbers.jsonl")
    with pytest.raises(ConfigError, match=r"^data\.text=.*numbers\.jsonl: no text in .* columns: number"):
        Pretraining(config, "cpu")
    config.architecture.tokenizer = str(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"^architecture\.tokenizer="):
        Pretraining(config, "cpu")
