"""Models with layers of several kinds: their plans, their training, and what is measured at the end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mixed import TRAINED
from training.pretrain.test_objective import curve
from training.small import small
from transformers import Qwen3ForCausalLM

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, ModelConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import load_model
from seer_ray.training.loop import fit
from seer_ray.training.pretrain.alone import pretrain_alone
from seer_ray.training.pretrain.batch import NO_TARGET
from seer_ray.training.pretrain.model import mixers_of, relaxed_layers
from seer_ray.training.pretrain.objective import Pretraining, check_pretraining
from seer_ray.training.pretrain.recall import Recall, recall_tokenizer

TABLE_11 = {
    "even": range(2, 25, 2),
    "odd": range(1, 25, 2),
    "top": range(1, 13),
    "middle": [*range(1, 7), *range(19, 25)],
    "bottom": range(13, 25),
    "quarter": range(4, 25, 4),
    "first": [1],
    "last": [24],
    "bilateral": [1, 24],
}
"""Of Xue et al. 2025: the layers of 24 that stay attention, counted from 1."""


def laid(*overrides: str, layers: int = 8) -> list[str]:
    config = small(f"architecture.layers={layers}", *overrides)
    return mixers_of(config.architecture, config.plan)


@pytest.mark.parametrize("name", TABLE_11)
def test_named_placements_are_those_of_the_paper(name: str) -> None:
    found = laid(f"plan.named={name}", "plan.cheap=mlp", layers=24)
    assert [i + 1 for i, mixer in enumerate(found) if mixer == "attention"] == list(TABLE_11[name])


def test_a_plan_lays_out_mixers() -> None:
    gla, full = "gla", "attention"
    assert laid() == [full] * 8
    assert laid("plan.anchor=gla") == laid("plan={ratio: inf, cheap: gla}") == [gla] * 8
    assert laid("plan={ratio: 3, cheap: gla}") == [*[gla] * 3, full] * 2
    assert laid("plan={ratio: 3, cheap: gla, phase: first}") == [full, *[gla] * 3] * 2
    assert laid("plan={ratio: 3, cheap: gla, phase: '1'}") == [gla, full, gla, gla] * 2
    assert laid("plan={ratio: 2, cheap: gla, anchor: sliding}")[2::3] == ["sliding"] * 2
    assert laid("plan.repeat=[mlp,gla,attention]")[:4] == ["mlp", gla, full, "mlp"]
    assert laid("plan={ratio: 0, cheap: gla}", "architecture.mixers={'0-1': mlp}")[:3] == ["mlp", "mlp", full]
    config = small("architecture.layers=4", "plan={ratio: 1, cheap: gla}")
    assert relaxed_layers(config.architecture, config.plan) == [0, 2]
    config = small("plan.anchor=gla")
    assert relaxed_layers(config.architecture, config.plan) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["plan={ratio: 24, cheap: gla}"],
            r"^plan\.ratio=24: needs 25 layers, architecture\.layers=2; lower",
        ),
        (
            ["plan={named: quarter, cheap: gla}"],
            r"^plan\.named=quarter: leaves no anchor in architecture\.lay",
        ),
        (["plan={ratio: 1, cheap: glaa}"], r"^plan\.cheap=glaa: must be one of .*\(did you mean 'gla'\?\)"),
        (["plan={ratio: 1, cheap: parallel}"], r"^plan\.cheap=parallel: must be one of"),
        (["plan.ratio=1"], r"^plan\.ratio=1: needs plan\.cheap, the mixer of the layers that are no anchors"),
        (["plan.cheap=gla"], r"^plan\.cheap=gla: means nothing without plan\.ratio or plan\.named"),
        (["plan.repeat=[gla,mlp,gla]"], r"^plan\.repeat=.*: is for 3 layers; architecture\.layers=2"),
        (["plan={ratio: 1, named: even, cheap: gla}"], r"^plan\.named=even: plan\.ratio is given as well"),
        (["plan={ratio: 1, cheap: gla, phase: '2'}"], r"^plan\.phase=2: must be first, last, or a place"),
        (
            ["plan.anchor=gated_deltanet", "architecture.state_dim=64"],
            r"^architecture\.state_dim=64: leaves gated_deltanet no weights for values",
        ),
        (["plan.anchor=retnet", "architecture.state_dim=5"], r"^architecture\.state_dim=5: must be even"),
        (
            ["plan.anchor=gla", "architecture={heads: 16, kv_heads: 16, head_dim: 2, state_dim: 2}"],
            r"^architecture\.\w+=\d+: (a layer of gla would have|leaves gla no weights)",
        ),
        (
            ["data.generator=mqar", "data={start: 2, end: 80}"],
            r"^data\.end=80: needs 80 keys, data\.vocabulary",
        ),
        (
            ["data={generator: mqar, end: 16}", "train.length=40"],
            r"^data\.end=16: 16 pairs and their questions need 48 tokens, train\.length=40",
        ),
        (["evaluation.contexts=[0]"], r"^evaluation\.contexts=\[0\]: 0 is no length"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check_pretraining(small(*overrides))
    assert "\n" not in str(error.value)


def test_attention_alone_stays_what_transformers_has() -> None:
    assert isinstance(Pretraining(small(), "cpu").module, Qwen3ForCausalLM)
    mixed = Pretraining(small("architecture.conv=4"), "cpu").module
    assert mixed.config.model_type == "seer_mixed" and mixed.config.mixers == ["attention"] * 2


EVERY = (
    "architecture={layers: 14, conv: 3, heads: 2, kv_heads: 2, head_dim: 16}",
    f"plan.repeat=[{','.join(TRAINED)}]",
    "evaluation={lengths: [3], problems: 2, answers: 2}",
)


def test_resumed_training_of_every_kind_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    config = small(*EVERY, "train={dtype: bfloat16, steps: 4, batch_tokens: 200, eval_every: 9}")
    pretrain_alone(config, tmp_path / "whole")
    first = pretrain_alone(config, tmp_path / "halves", report=lambda step, _: step >= 1)
    assert first.step == 2
    result = pretrain_alone(config, tmp_path / "halves")
    assert curve(tmp_path / "halves") == curve(tmp_path / "whole")
    assert result.metrics["eval/3_steps_skip/loss"] > 0 and "eval/3_steps/answers" in result.metrics
    made = [(tmp_path / half / "model" / "model.safetensors").read_bytes() for half in ("whole", "halves")]
    assert made[0] == made[1]


def texts(folder: Path) -> tuple[str, ...]:
    file = folder / "text.jsonl"
    file.write_text("".join(f'{{"text": "{n} and {n * n} and {n + 3} or so {n}"}}\n' for n in range(300)))
    return (f"data.text={file}", "train={length: 64, batch_tokens: 512}")


def test_loss_by_context_and_without_the_relaxed_layers(tmp_path: Path) -> None:
    hybrid = small(*texts(tmp_path), "plan={ratio: 1, cheap: mlp}", "evaluation.contexts=[1,4,64]")
    found = pretrain_alone(hybrid, tmp_path / "hybrid").metrics
    losses = [found[f"eval/text_context_{size}/loss"] for size in (1, 4, 64)]
    assert losses[2] == pytest.approx(found["eval/text/loss"], abs=1e-6) and losses[0] != losses[2]
    assert found["eval/text/perplexity"] == pytest.approx(math.exp(found["eval/text/loss"]))
    assert found["eval/text_skip/loss"] > 0
    card = (tmp_path / "hybrid" / "model" / "README.md").read_text()
    assert "| text context 4 |" in card and "| text skip |" in card and "perplexity" in card

    uniform = small(*texts(tmp_path), "plan.anchor=mlp", "evaluation.contexts=[1,4,64]", "train.steps=2")
    found = pretrain_alone(uniform, tmp_path / "uniform").metrics
    same = [found[f"eval/text_context_{size}/perplexity"] for size in (1, 4, 64)]
    assert same == pytest.approx([found["eval/text/perplexity"]] * 3, rel=1e-6)
    assert "eval/text_skip/loss" not in found


MQAR = (
    "data={generator: mqar, start: 2, end: 4, growth: 0.5, vocabulary: 16}",
    "train={length: 16, batch_tokens: 64}",
    "evaluation={lengths: [2, 4], problems: 8}",
)


def test_every_key_is_asked_for_once_and_nothing_else_is(tmp_path: Path) -> None:
    data = Recall(small(*MQAR))
    batch = data.batch(5, 0, 1)
    assert batch.steps == 4 and batch.documents.lengths == (16,) * 4
    assert torch.equal(batch.tokens, data.batch(5, 0, 1).tokens)
    assert not torch.equal(batch.tokens, data.batch(5, 1, 1).tokens)
    for tokens, targets in zip(batch.tokens.view(4, 16), batch.targets.view(4, 16), strict=True):
        keys, values = tokens[:8:2].tolist(), tokens[1:8:2].tolist()
        assert len(set(keys)) == 4 and max(keys) < 8 <= min(values)
        asked = (targets != NO_TARGET).nonzero().flatten()
        assert min(asked) >= 8 and sorted(tokens[asked].tolist()) == sorted(keys)
        wanted = [values[keys.index(int(key))] for key in tokens[asked]]
        assert targets[asked].tolist() == wanted
        assert all(token >= 8 for at, token in enumerate(tokens) if at >= 8 and at not in asked)
    assert [name for name, _ in data.held_out()] == ["2_pairs", "4_pairs"]
    assert data.batch(0, 0, 1).steps == 2


def test_a_model_of_recall_is_a_folder_that_decodes(tmp_path: Path) -> None:
    config = small(
        *MQAR,
        "plan={ratio: 1, cheap: gated_deltanet, phase: first}",
        "architecture={conv: 2, heads: 2, kv_heads: 2, head_dim: 16}",
    )
    found = fit(Pretraining(config, "cpu"), config.train, tmp_path).metrics
    assert 0 <= found["eval/4_pairs/token_accuracy"] <= 1 and "eval/4_pairs_skip/token_accuracy" in found
    card = (tmp_path / "model" / "README.md").read_text()
    assert "# A small model of associative recall" in card and "| 4 pairs skip |" in card
    assert "Layers mix tokens by: attention, gated_deltanet. transformers knows" in card
    model = load_model(ModelConfig(name=str(tmp_path / "model")))
    prompt = model.tokenizer("k1 v2 k3 v4 k1")["input_ids"]
    assert prompt == [1, 10, 3, 12, 1] and len(recall_tokenizer(16, 32)) == 20
    engine = Engine(model, EngineConfig(block_size=16))
    engine.submit(Request("a", tuple(prompt), SamplingParams(3)))
    assert [len(done.tokens) for done in engine.run()] == [3]
