"""The loop of gates for one's own runs: a dense run, gates from its completions, a run with these gates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_tiny

from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.config.training import DistillConfig
from seer_ray.jobs import distill
from seer_ray.jobs import run as run_job
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import NullReporter

pytestmark = pytest.mark.usefixtures("local_ray")


class Notes(NullReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.long  # test_hybrid_gates.py goes the same way
def test_run_distill_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the data begins where the command is given."""
    save_tiny(tmp_path / "model", "qwen3")
    monkeypatch.chdir(tmp_path)
    usual = (
        f"model.name={tmp_path / 'model'}",
        "cluster={workers: 1, num_cpus: 1}",
        "tracking.enabled=false",
    )
    run = (*usual, "task=registers", "task.limit=3", "samples=1", "sampling.max_new_tokens=60")
    run = (*run, "engine={block_size: 16, max_batch: 2}", "task.generator.steps=4")
    run_job.main(compose([*run, "selector=dense", "name=dense"], RunConfig))
    settings = (*usual, "data=runs/dense", "gates={block_size: 16, dim: 8}", "name=own")
    train = "train={steps: 3, batch_tokens: 300, length: 300, dtype: float32, log_every: 1}"
    notes = Notes()
    summary = distill.main(compose([*settings, train], DistillConfig), notes)
    assert summary.product.endswith("runs/own/gates") and summary.step == 3
    assert summary.metrics["train/kl/layer_01"] > 0 and summary.metrics["eval/loss"] > 0
    assert notes.notes[0].startswith("computed peak memory of a worker: 0.")
    again = distill.main(compose([*settings, train], DistillConfig))
    assert again.metrics == summary.metrics

    gated = (
        "selector=seer",
        "selector.budget=64",
        f"model.gates={tmp_path / summary.product}",
        "name=sparse",
    )
    run_job.main(compose([*run, *gated], RunConfig))
    rows = RunFolder.view(str(tmp_path / "runs" / "sparse")).read().to_pylist()
    assert len(rows) == 3 and all(row["error"] is None for row in rows)
    assert all(0 < row["attended_kv"] < row["available_kv"] for row in rows)

    with pytest.raises(ConfigError, match=r"^data=nothing.jsonl: no such file"):
        distill.main(compose([*settings, train, "data=nothing.jsonl", "name=other"], DistillConfig))
