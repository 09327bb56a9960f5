"""Jobs over problems named by letters, with an engine that needs no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny

from seer_ray.config.options import RunConfig, SweepConfig

MakeConfig = Callable[..., Any]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For its tokenizer and its layers; nobody decodes with it."""
    return save_tiny(tmp_path_factory.mktemp("model"), "qwen3")


@pytest.fixture
def letters(tmp_path: Path, model: Path) -> MakeConfig:
    """Makes the options of a job: two samples of each problem, one worker, no tracking and no report."""

    def make(job: type = RunConfig, ids: Iterable[str] = "abc", tokens: int = 30, name: str = "job") -> Any:
        data = tmp_path / "data.jsonl"
        problems = ({"id": id, "question": f"{id}?", "answer": "4"} for id in ids)
        data.write_text("\n".join(map(json.dumps, problems)))
        config = job(name=name, samples=2)
        config.model.name, config.task.data, config.task.name = str(model), str(data), "letters"
        config.sampling.max_new_tokens = tokens
        config.cluster.workers, config.cluster.num_cpus, config.cluster.report_interval = 1, 1, 0.05
        config.results.folder, config.results.progress_interval = str(tmp_path / "runs"), 0.0
        config.tracking.enabled = config.results.report = False
        return config

    return make


@pytest.fixture
def base(letters: MakeConfig) -> SweepConfig:
    """A sweep without points: three problems, two samples each, 20 tokens; rounds of one problem."""
    config = letters(SweepConfig, tokens=20, name="sw")
    config.engine.block_size, config.results.part_interval, config.sweep.round = 16, 0.0, 1
    return config
