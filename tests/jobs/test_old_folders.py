"""Interrupted jobs of before the move into rooms (written by the code at cc923fe) go on where they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_engine import build_fake, expected_tokens, make_request
from tiny import save_tiny

from seer_ray.config.errors import ConfigError
from seer_ray.jobs import pretrain, sweep
from seer_ray.jobs import run as run_job
from seer_ray.jobs.load import resumed
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder
from seer_ray.status.live import NullReporter

pytestmark = pytest.mark.usefixtures("local_ray")

OLD = Path(__file__).parents[1] / "fixtures" / "old_folders"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of the folders, their data and the model that they name."""
    shutil.copytree(OLD, tmp_path / "runs")
    (tmp_path / "runs" / "data.jsonl").rename(tmp_path / "data.jsonl")
    save_tiny(tmp_path / "model", "qwen3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(uri: str) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["problem_id"], row["sample"]): row for row in RunFolder.view(uri).read().to_pylist()}


def options(uri: str) -> Any:
    return resumed(uri, [])


def tokens(problem: str, sample: int, length: int) -> list[int]:
    return expected_tokens(make_request(problem, sample, length))


def test_a_run(here: Path) -> None:
    before = rows("runs/job")
    assert 0 < len(before) < 6 and list((here / "runs/job/progress").iterdir())
    run_job.main(options("runs/job"), NullReporter(), build_fake)
    after = rows("runs/job")
    assert len(after) == 6 and before.items() <= after.items()
    assert all(row["token_ids"] == tokens(*key, 30) for key, row in after.items())
    assert {row["attempts"] for key, row in after.items() if key not in before} >= {2}, "chains went on"


def test_a_sweep(here: Path) -> None:
    slugs = [point["slug"] for point in SweepFolder.view("runs/sw").points]
    before = {slug: rows(f"runs/sw/points/{slug}") for slug in slugs}
    assert 0 < sum(map(len, before.values())) < 12
    summary = sweep.main(options("runs/sw"), NullReporter(), build_fake)
    assert not summary.failed
    for slug in slugs:
        after = rows(f"runs/sw/points/{slug}")
        assert len(after) == 6 and before[slug].items() <= after.items()
        assert all(row["token_ids"] == tokens(*key, 20) for key, row in after.items())


@pytest.mark.long
def test_a_training(here: Path) -> None:
    steps = len((here / "runs/tr/metrics.jsonl").read_text().splitlines())
    summary = pretrain.main(options("runs/tr"))
    assert summary.step == 40 and summary.metrics["train/tokens"] > 0
    assert 0 < steps < len((here / "runs/tr/metrics.jsonl").read_text().splitlines())


def test_other_settings_are_refused_as_in_a_new_folder() -> None:
    run, training = options("runs/job"), options("runs/tr")
    run.seed, training.train.lr = 5, 0.5
    with pytest.raises(ConfigError, match="made with other settings: seed: 5 here, 0 in the folder"):
        run_job.main(run, NullReporter(), build_fake)
    with pytest.raises(ConfigError, match=r"made with other settings: train\.lr: 0\.5 here, 0\.01 in the"):
        pretrain.main(training)
