"""Distillation of prefill gates: the loss against whole maps, packs, and from a job to a run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import request, tokens
from tiny import make_tiny, save_tiny

from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, ModelConfig, SelectorConfig
from seer_ray.config.selecting import PrefillConfig
from seer_ray.config.training import DistillConfig, ObjectiveConfig
from seer_ray.corpora.pack import Pack
from seer_ray.engine import Engine
from seer_ray.models.load import load_model
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates, load_prefill_gates
from seer_ray.training.gates.distillation import Distillation, check_distill
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.loop import fit

BLOCK = 8
LENGTHS = (61, 16, 1, 33)


def training(**objective: Any) -> GateTraining:
    model: Any = make_tiny("qwen3")
    gates = init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), seed=3)
    return GateTraining(model, gates, (0, 1), ObjectiveConfig(skip=0.25, **objective))


def documents(*lengths: int) -> list[torch.Tensor]:
    return [torch.tensor(tokens(length, seed)) for seed, length in enumerate(lengths)]


def written_out(
    trained: GateTraining, document: torch.Tensor, loss: str, kind: str
) -> tuple[dict[int, torch.Tensor], int]:
    """By layer, summed over blocks of rows, mean over query heads: from the model's own maps."""
    model: Any = make_tiny("qwen3")
    model.set_attn_implementation("eager")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(attention: Any, args: Any, kwargs: Any) -> None:
        x = kwargs["hidden_states"][0]
        shape = (len(x), -1, attention.head_dim)
        q, k = attention.q_proj(x).view(shape), attention.k_proj(x).view(shape)
        seen.append((attention.q_norm(q), attention.k_norm(k)))

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        maps = model(document[None], output_attentions=True).attentions
    blocks = -(-len(document) // BLOCK)
    first, found = int(0.25 * blocks), {}
    for layer, gate in trained.trained.items():
        logits = gate.score(*seen[layer]).double()
        shares, total = logits.softmax(-1), torch.zeros((), dtype=torch.float64)
        for row in range(first, blocks):
            for head in range(4):
                p = maps[layer][0, head].double()[row * BLOCK : (row + 1) * BLOCK]
                pairs = [p[:, c * BLOCK : (c + 1) * BLOCK] for c in range(row + 1)]
                target = torch.stack([pair.max() if kind == "max" else pair.sum() for pair in pairs])
                target, mine = target / target.sum(), shares[head, row, : row + 1]
                one = (
                    ((target - mine) ** 2).sum() if loss == "mse" else (target * (target / mine).log()).sum()
                )
                total = total + one / 4
        found[layer] = total
    return found, blocks - first


@pytest.mark.parametrize(("loss", "kind"), [("kl", "max"), ("mse", "max"), ("kl", "mass")])
def test_loss_and_gradient_are_those_of_whole_maps(loss: str, kind: str) -> None:
    trained, other = training(loss=loss, target=kind, distill=10.0), training(loss=loss)
    _, values = trained.loss([Pack.of(documents(*LENGTHS))])
    sums, rows = dict.fromkeys((0, 1), torch.zeros((), dtype=torch.float64)), 0
    for document in documents(*LENGTHS):
        found, count = written_out(other, document, loss, kind)
        rows += count
        sums = {layer: sums[layer] + found[layer] for layer in sums}
    for layer in (0, 1):
        assert values[f"kl/layer_{layer:02d}"] == pytest.approx(sums[layer].item() / rows, rel=1e-4)
    (10 * sum(sums.values()) / rows).backward()
    for (name, mine), theirs in zip(
        trained.module.named_parameters(), other.module.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_documents_in_packs_do_not_see_each_other() -> None:
    trained = training()
    packed = trained.distill([Pack.of(documents(*LENGTHS))])
    apart = trained.distill([Pack.of([document]) for document in documents(*LENGTHS)])
    assert packed == pytest.approx(apart, rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prefill")
    save_tiny(place / "model", "qwen3")
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(("the", "cat", "sat", "on"), k=60))} for _ in range(20)]
    (place / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def config(folder: Path, *overrides: str) -> DistillConfig:
    usual = (
        "gates=prefill",
        f"model.name={folder / 'model'}",
        f"data={folder / 'texts.jsonl'}",
        "gates.block_size=16",
        "train={steps: 8, batch_tokens: 800, length: 256, warmup: 2, log_every: 2, eval_every: 4, lr: 0.02}",
        "train={checkpoint_every: 4, dtype: float32}",
        "evaluation={held_out: 0.1, documents: 2, densities: [0.3]}",
    )
    return compose([*usual, *overrides], DistillConfig)


def test_from_training_to_decoding(folder: Path, tmp_path: Path) -> None:
    made = config(folder)
    assert (made.gates.kind, made.objective.skip, made.objective.distill) == ("prefill", 0.25, 10.0)
    assert fit(Distillation(made, "cpu"), made.train, tmp_path, product="gates").finished
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    curve = [record["train/loss"] for record in records if "train/loss" in record]
    assert curve[-1] < 0.9 * curve[0]
    last = {name: value for record in records for name, value in record.items()}
    assert 0.5 < last["eval/of_oracle/0.3"] < 1.2 and 0 < last["eval/mass/0.3/layer_01"] <= 1
    gates = tmp_path / "gates"
    assert "model.prefill_gates=THIS_FOLDER" in (gates / "README.md").read_text()
    loaded = load_model(ModelConfig(name=str(folder / "model"), prefill_gates=str(gates)))
    assert load_prefill_gates(str(gates), loaded.hf_config, 16)[0] is not None
    engine = Engine(
        loaded,
        EngineConfig(block_size=16, prefill_chunk=64),
        SelectorConfig(prefill=PrefillConfig(density=0.3)),
    )
    engine.submit(request("a/0", tokens(300), 4))
    assert [len(done.tokens) for done in engine.run()] == [4]
    stats = engine.stats()
    assert 0 < stats["prefill_attended"] < 0.6 * stats["prefill_available"]
    again = config(folder, f"model.prefill_gates={gates}", "train.steps=1")
    assert torch.equal(
        Distillation(again, "cpu").gates[0].mask_linear_k.weight,
        load_prefill_gates(str(gates), loaded.hf_config, 16)[0].mask_linear_k.weight,
    )
    with pytest.raises(ConfigError, match=r"gates.dim=8: the gates of model.prefill_gates=.* have 16"):
        Distillation(config(folder, f"model.prefill_gates={gates}", "gates.dim=8"), "cpu")


def test_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective.lm=0.5: soft gates are those of decoding"):
        check_distill(config(folder, "objective.lm=0.5"))
    with pytest.raises(ConfigError, match="seerattn_gate_type=Qproj_Kmaxminavg: must be Q, _K"):
        Distillation(config(folder, "gates.q_pooling=Qproj"), "cpu")
