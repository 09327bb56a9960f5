"""Distillation as an objective of the loop: resuming, the folder of gates, and what decodes with it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import request
from families import save_family
from tiny import make_tiny, save_tiny

from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, ModelConfig, SelectorConfig
from seer_ray.config.training import DistillConfig, ObjectiveConfig
from seer_ray.corpora.pack import Pack
from seer_ray.engine import Engine
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, load_gates
from seer_ray.models.load import load_model
from seer_ray.selectors.base import Query, StepView
from seer_ray.selectors.seer import Seer
from seer_ray.training.gates import memory
from seer_ray.training.gates.distillation import Distillation
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.gates.teacher import Teacher, teach
from seer_ray.training.loop import fit

TIMES = ("speed/tokens_per_s", "time/eta_s")
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "away", "from", "it")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "qwen3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "texts.jsonl"
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(WORDS, k=draw.randrange(5, 60)))} for _ in range(30)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def config(model: Path, data: Path, *overrides: str) -> DistillConfig:
    usual = (
        f"model.name={model}",
        f"data={data}",
        "gates={block_size: 16, dim: 8}",
        "train={steps: 8, batch_tokens: 400, length: 200, warmup: 2, log_every: 2, eval_every: 4, lr: 0.02}",
        "train={checkpoint_every: 3, dtype: float32}",
        "evaluation={held_out: 0.1, documents: 2, stride: 1}",
        "objective.lm=0.1",
    )
    return compose([*usual, *overrides], DistillConfig)


def curve(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


@pytest.fixture(scope="module")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that ran undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    made = config(model, data)
    assert fit(Distillation(made, "cpu"), made.train, folder, product="gates").finished
    return folder


def test_interrupted_and_resumed_is_the_uninterrupted_curve(
    model: Path, data: Path, trained: Path, tmp_path: Path
) -> None:
    made = config(model, data)
    for stop in (3, 5):
        told: list[int] = []

        def report(step: int, metrics: dict[str, float], stop: int = stop, told: list[int] = told) -> bool:
            told.append(step)
            return step == stop

        assert not fit(Distillation(made, "cpu"), made.train, tmp_path, report, "gates").finished
    assert fit(Distillation(made, "cpu"), made.train, tmp_path, product="gates").finished
    assert curve(tmp_path) == curve(trained)
    for name in ("attn_gate_weights.safetensors", "config.json"):
        assert (tmp_path / "gates" / name).read_bytes() == (trained / "gates" / name).read_bytes()


def test_resumed_between_two_updates_of_one_pass(model: Path, data: Path, tmp_path: Path) -> None:
    """What was kept of the pass is gone: it is made again, and the curve goes on as if it were not."""
    made = config(model, data, "objective={lm: 0, updates: 3}")
    assert fit(Distillation(made, "cpu"), made.train, tmp_path / "whole", product="gates").finished
    stopped = tmp_path / "stopped"
    assert not fit(Distillation(made, "cpu"), made.train, stopped, lambda step, _: step == 4).finished
    assert fit(Distillation(made, "cpu"), made.train, stopped, product="gates").finished
    assert curve(stopped) == curve(tmp_path / "whole")
    steps = [Distillation(made, "cpu").batch(step, 0, 1).share for step in range(7)]
    assert [(share.batch, share.part) for share in steps] == [*product(range(2), range(3)), (2, 0)]


def test_the_curve_has_every_layer_and_what_a_budget_keeps(trained: Path) -> None:
    last = {name: value for record in curve(trained) for name, value in record.items()}
    for name in ("train/loss", "train/distill", "train/lm", "train/kl/layer_01", "eval/kl/layer_00"):
        assert last[name] > 0
    for figure in ("recall", "of_oracle"):
        both = [last[f"eval/{figure}/1_8/layer_0{layer}"] for layer in (0, 1)]
        assert last[f"eval/{figure}/1_8"] == pytest.approx(sum(both) / 2)
    assert last["train/distill"] == pytest.approx(last["train/kl/layer_00"] + last["train/kl/layer_01"])


def test_the_card_says_how(trained: Path, model: Path, data: Path) -> None:
    card = (trained / "gates" / "README.md").read_text()
    assert f"# Attention gates for {model}" in card and "2 of 2 layers" in card
    assert f"| {data} |" in card and "8 steps from random gates" in card
    command = next(line for line in card.splitlines() if line.startswith("seer-ray distill"))
    assert f"data={data}" in command and "train.steps=8" in command
    assert "| layer |" in card


class Recorded:
    """Scores of the ``seer`` selectors in an engine: (position, layer) -> ``[kv_heads, blocks]``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, layers: Sequence[int]) -> None:
        """``layers``: those that have one."""
        self.scores: dict[tuple[int, int], torch.Tensor] = {}
        self.calls, self.layers = 0, layers
        original = Seer.scores

        def scores(seer: Seer, query: Query, view: StepView) -> torch.Tensor:
            found = original(seer, query, view)
            position = int(view.positions[0])
            complete = int(view.lengths[0]) // view.block
            self.scores[position, self.layers[self.calls % len(self.layers)]] = found[0, :, :complete].clone()
            self.calls += 1
            return found

        monkeypatch.setattr(Seer, "scores", scores)


@pytest.mark.parametrize(
    ("family", "gated"),
    [("qwen3", (0, 1)), ("qwen3_next", (1, 3)), ("glm4", (0, 1, 2, 3)), ("gpt_oss", (1, 3))],
)
def test_saved_and_loaded_gates_decode_with_the_scores_of_training(
    family: str,
    gated: tuple[int, ...],
    model: Path,
    data: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chain decoded by the engine, then packed behind another document: the same logits of blocks."""
    if family != "qwen3":
        model, trained = save_family(tmp_path / "model", family), tmp_path
        made = config(model, data, "train.steps=2")
        assert fit(Distillation(made, "cpu"), made.train, trained, product="gates").finished
    loaded = load_model(ModelConfig(name=str(model), device="cpu", gates=str(trained / "gates")))
    engine = Engine(
        loaded, EngineConfig(block_size=16, max_batch=1), SelectorConfig(name="seer", budget=10**6)
    )
    recorded = Recorded(monkeypatch, gated)
    prompt = tuple(b"the cat sat on a mat and looked around, then it slept for a while")
    engine.submit(request("a/0", prompt, new=60))
    (completion,) = engine.run()
    chain = torch.tensor([*prompt, *completion.tokens])

    gates = load_gates(str(trained / "gates"), loaded.hf_config, 16)
    training = GateTraining(loaded.model, gates, gated, ObjectiveConfig())
    pack = Pack.of([torch.tensor(list(b"another document, not seen")), chain])
    seen = {}

    def lesson(layer: int, q: torch.Tensor, k: torch.Tensor, targets: list[torch.Tensor]) -> None:
        gate, (_, d) = training.trained[layer], pack.documents()
        seen[layer] = gate.score(q[d], pack.positions[d], gate.compress_keys(k[d][None]))

    teach(
        loaded.model,
        pack,
        Teacher(pack, training.shape, training.ropes(pack), gated, 16, 0.5, "max", False, lesson),
    )
    positions = {position for position, _ in recorded.scores}
    assert (
        positions == set(range(len(prompt) - 1, len(prompt) + 59)) and len(recorded.scores) == len(gated) * 60
    )
    for (position, layer), scores in recorded.scores.items():
        expected = seen[layer][position, :, : scores.shape[1]]
        torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-4)


def test_going_on_from_gates(model: Path, data: Path, trained: Path) -> None:
    """Their own shape; layers that are not trained stay as they were."""
    gates = trained / "gates"
    made = compose(
        [
            f"model.name={model}",
            f"model.gates={gates}",
            f"data={data}",
            "gates.layers='1'",
            "train.length=64",
        ],
        DistillConfig,
    )
    objective = Distillation(made, "cpu")
    assert objective.shape.block_size == 16 and objective.shape.gate_dim == 8
    assert list(objective.module) == ["1"] and objective.gates[0] is not None
    stored = load_gates(str(gates), objective.loaded.hf_config, 16)
    for gate, before in zip(objective.gates, stored, strict=True):
        assert gate is not None and before is not None
        assert all(torch.equal(a, b) for a, b in zip(gate.parameters(), before.parameters(), strict=True))


def test_saved_in_half_precision_training_goes_on_in_full(model: Path, data: Path, tmp_path: Path) -> None:
    made = config(model, data, "gates.save_dtype=bfloat16", "gates.layers='0'")
    objective = Distillation(made, "cpu")
    before = [p.clone() for p in objective.module.parameters()]
    objective.save(tmp_path, {"step": 1, "tokens": 1.0, "seconds": 1.0, "metrics": {}})
    assert all(torch.equal(a, b) for a, b in zip(before, objective.module.parameters(), strict=True))
    first, second = load_gates(str(tmp_path), objective.loaded.hf_config, 16)
    assert first is not None and first.dtype == torch.bfloat16 and second is None
    assert "There were none." in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=null",), "data: not set; name what to train on"),
        (("train.length=20",), "train.length=20: must be at least two blocks, 32 tokens"),
        (
            ("gates.block_size=200", "train.length=9000"),
            "the longest has .* tokens; .* two blocks of 200, 400",
        ),
        (("gates.layers='5'",), "gates.layers=5: must name layers 0 to 1"),
        (("gates.layers='1-0'",), "gates.layers=1-0: must name layers 0 to 1"),
        (("objective.distill=0", "objective.lm=0"), "nothing to train for"),
        (("objective.updates=4",), "objective.updates=4: objective.lm=0.1 needs a pass"),
        (("objective.skip=1",), "objective.skip=1: leaves no row"),
        (("evaluation.budgets=[x]",), "evaluation.budgets: 'x' must be tokens"),
        (("model.gates={trained}",), "gates.block_size=32: the gates of .* have 16; leave it out"),
        (("model.gates={other}",), "these are gates of .*: layers 3, here 2"),
    ],
)
def test_what_is_refused(
    model: Path, data: Path, trained: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    if "{other}" in overrides[0]:
        other = save_tiny(tmp_path / "other", "qwen3", num_hidden_layers=3)
        made = config(other, data)
        Distillation(made, "cpu").save(
            tmp_path / "gates", {"step": 1, "tokens": 1.0, "seconds": 1.0, "metrics": {}}
        )
    words = [word.format(trained=trained / "gates", other=tmp_path / "gates") for word in overrides]
    if "{trained}" in overrides[0]:
        words.append("gates.block_size=32")
    with pytest.raises(ConfigError, match=message):
        Distillation(config(model, data, *words), "cpu")


def test_short_documents_joined(model: Path, tmp_path: Path) -> None:
    """Each side of the split for itself; they are documents, which see all of themselves."""
    file = tmp_path / "short.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"r{n}", "text": f"{n:02d}" * 10}) for n in range(60)))
    with pytest.raises(ConfigError, match=r"60 documents, the longest has 20 tokens"):
        Distillation(config(model, file), "cpu")
    objective = Distillation(config(model, file, f"data=[{{path: {file}, join: true}}]"), "cpu")
    (corpus,) = objective.corpora
    assert {len(d.tokens) for d in corpus.train[:-1]} == {200}
    train, held_out = (
        {tuple(d.tokens[i : i + 20].tolist()) for d in part for i in range(0, len(d.tokens), 20)}
        for part in (corpus.train, corpus.held_out)
    )
    assert held_out and not train & held_out
    assert objective.batch(0, 0, 1).packs[0].bounds == (0, 200)
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps({"text": "short"}))
    with pytest.raises(ConfigError, match=r"joined, less than two blocks, 32 tokens"):
        Distillation(config(model, few, f"data=[{{path: {few}, join: true}}]"), "cpu")


def test_rows_are_shared_by_workers(model: Path, data: Path) -> None:
    objective = Distillation(config(model, data, "train.batch_tokens=800"), "cpu")
    whole = [pack.tokens.tolist() for pack in objective.batch(3, 0, 1).packs]
    shared = [[p.tokens.tolist() for p in objective.batch(3, rank, 2).packs] for rank in (0, 1)]
    assert len(whole) == 4 and [shared[0][0], shared[1][0], shared[0][1], shared[1][1]] == whole
    with pytest.raises(ConfigError, match=r"holds 4 rows of train.length=200 .* 3 workers .* set 1200"):
        objective.batch(0, 0, 3)


def test_out_of_memory_names_a_length_that_fits(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = Distillation(config(model, data, "objective.lm=0"), "cpu")

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(objective.training, "loss", fail)
    monkeypatch.setattr(memory, "memory_of", lambda device: int(objective.plan(96).total / 0.9) + 2)
    with pytest.raises(
        ConfigError, match=r"train.length=200: out of memory on cpu .*; set train.length=(\d+)"
    ) as e:
        objective.loss(objective.batch(0, 0, 1))
    assert 96 <= int(str(e.value).rpartition("=")[2]) < 200
    monkeypatch.setattr(memory, "memory_of", lambda device: 10**12)
    with pytest.raises(ConfigError, match="others use the device too"):
        objective.loss(objective.batch(0, 0, 1))
    monkeypatch.setattr(memory, "memory_of", lambda device: 1000)
    with pytest.raises(ConfigError, match="no length fits"):
        objective.loss(objective.batch(0, 0, 1))


def test_other_errors_stay_what_they_are(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Distillation(config(model, data), "cpu")

    def fail(*_: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(objective.training, "loss", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        objective.loss(objective.batch(0, 0, 1))


def test_the_teacher_is_the_model() -> None:
    """Hidden states of a packed document are Hugging Face's of that document alone."""
    tiny: Any = make_tiny("llama")
    gates = init_gates(tiny.config, GateConfig(block_size=16, gate_dim=8))
    training = GateTraining(tiny, gates, (1,), ObjectiveConfig())
    a, b = (torch.tensor(list(text)) for text in (b"the first document " * 4, b"and the second one " * 3))
    found: list[torch.Tensor] = []

    def lesson(layer: int, q: torch.Tensor, k: torch.Tensor, targets: list[torch.Tensor]) -> None:
        found.append(k)

    pack = Pack.of([a, b])
    teach(
        tiny, pack, Teacher(pack, training.shape, training.ropes(pack), (1,), 16, 0.0, "max", False, lesson)
    )
    for document, d in zip((a, b), pack.documents(), strict=True):
        with torch.no_grad():
            hidden = tiny(document[None], output_hidden_states=True).hidden_states[1]
            attention = tiny.model.layers[1].self_attn
            k = attention.k_proj(tiny.model.layers[1].input_layernorm(hidden))[0]
        torch.testing.assert_close(found[0][d].flatten(1), k, rtol=1e-4, atol=1e-4)
