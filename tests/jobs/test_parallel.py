"""A job whose one worker is two processes, each with one of the model's two KV heads. Real Ray and engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.test_faults import SAME
from jobs.conftest import MakeConfig

from seer_ray.cluster.worker import build_engine
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, RunConfig
from seer_ray.jobs import run as run_job
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter
from seer_ray.sweeps.sweep import _groups

pytestmark = pytest.mark.usefixtures("local_ray")


class Killer(NullReporter):
    """Kills rank 1 with SIGKILL when so many tokens are made."""

    def __init__(self, pids: Path, tokens: int) -> None:
        self.pids, self.tokens = pids, tokens
        self.notes: list[str] = []

    def update(self, live: LiveStats) -> None:
        if live.new_tokens >= self.tokens:
            self.tokens = 10**9
            os.kill(int((self.pids / "1").read_text()), signal.SIGKILL)

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def config(letters: MakeConfig) -> RunConfig:
    config = letters(tokens=90)
    config.engine.block_size, config.engine.max_batch, config.engine.exact = 16, 4, True
    config.selector.name, config.selector.budget = "quest", 48
    config.cluster.num_cpus = 0.5
    return config


def rows(config: RunConfig) -> list[dict[str, Any]]:
    table = RunFolder.view(f"{config.results.folder}/{config.name}").read()
    return sorted(table.select(SAME).to_pylist(), key=lambda row: (row["problem_id"], row["sample"]))


@pytest.mark.slow
def test_two_ranks_make_the_rows_of_one_process_though_one_of_them_dies(
    config: RunConfig, tmp_path: Path
) -> None:
    run_job.main(config)
    expected = rows(config)
    assert len(expected) == 6 and not any(row["error"] for row in expected)

    def build(config: RunConfig, group: Any) -> Any:
        Path(tmp_path, str(group.rank)).write_text(str(os.getpid()))
        return build_engine(config, group)

    config.name, config.engine.tensor_parallel = "ranks", 2
    killer = Killer(tmp_path, 80)
    summary = run_job.main(config, killer, build)
    assert rows(config) == expected
    assert len(killer.notes) == 1 and "worker w0 died" in killer.notes[0]
    assert summary.metrics["speed/engine_decode_of_copy_rate"] > 0


def test_points_on_other_ranks_have_workers_of_their_own() -> None:
    points: Any = [
        SimpleNamespace(config=RunConfig(engine=EngineConfig(tensor_parallel=ranks))) for ranks in (1, 2, 1)
    ]
    assert _groups(points) == [[points[0], points[2]], [points[1]]]


def test_a_model_that_cannot_be_cut_is_a_bad_option(config: RunConfig) -> None:
    config.engine.tensor_parallel = 3
    with pytest.raises(ConfigError, match=r"engine.tensor_parallel=3: must divide .* num_key_value_heads=2"):
        run_job.main(config)
