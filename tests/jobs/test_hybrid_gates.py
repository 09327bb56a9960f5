"""Gates of a hybrid by the commands of the guide: dense run, distillation, measurements, sparse run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from families import save_family
from typer.testing import CliRunner

from seer_ray.cli.app import app
from seer_ray.results.folder import RunFolder

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow]

CLUSTER = "cluster={workers: 1, num_cpus: 1}"
RUN = (
    *("run", CLUSTER, "task=registers", "task.limit=4", "samples=1", "sampling.max_new_tokens=150"),
    *("engine={block_size: 16, max_batch: 2}", "task.generator.steps=4"),
)


def seer_ray(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


OWN = {"mixers": ["gla", "static", "retnet", "attention"], "num_hidden_layers": 4}


@pytest.mark.parametrize(("family", "sizes"), [("qwen3_next", {}), ("seer_mixed", OWN)])
def test_from_a_dense_run_to_a_sparse_one(
    family: str, sizes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers 1 and 3 attend. The others are linear: they have neither gates nor a part of the budget."""
    usual = (f"model.name={save_family(tmp_path / 'model', family, **sizes)}", "tracking.enabled=false")
    monkeypatch.chdir(tmp_path)
    seer_ray(*RUN, *usual, "selector=dense", "name=dense")
    train = "train={steps: 4, batch_tokens: 400, length: 400, dtype: float32, lr: 0.01}"
    seer_ray(
        *("distill", *usual, CLUSTER, "data=runs/dense", "gates={block_size: 16, dim: 8}", "name=own", train),
        *("objective.lm=0.1", "evaluation={held_out: 0.3, documents: 1}"),
    )
    gates = tmp_path / "runs" / "own" / "gates"
    assert json.loads((gates / "config.json").read_text())["seerattn_gate_layers"] == [1, 3]
    assert "2 of 4 layers" in (gates / "README.md").read_text()

    text = ("data=runs/dense", "length=160", "documents=2", "held_out=0.5", "--json")
    found = json.loads(
        seer_ray("gates", "eval", "runs/own/gates", *usual, *text, "budgets=[64]", "name=eval")
    )
    assert {row["layer"] for row in found["layers"]} == {1, 3}
    found = json.loads(
        seer_ray("gates", "shares", "runs/own/gates", *usual, *text, "budgets=[48]", "name=shares")
    )
    assert [row["layer"] for row in found["layers"]] == [1, 3]

    shared = ("selector.allocation=runs/shares", f"model.gates={gates}", "selector=seer")
    seer_ray(*RUN, *usual, *shared, "selector.budget=48", "name=sparse")
    rows = RunFolder.view("runs/sparse").read().to_pylist()
    assert len(rows) == 4 and all(row["error"] is None for row in rows)
    assert all(0 < row["attended_kv"] < row["available_kv"] for row in rows)
