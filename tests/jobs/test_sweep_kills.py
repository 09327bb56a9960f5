"""kill -9 a sweep at random moments: the same command finishes it, and nothing is decoded twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from cluster.test_faults import SAME, Run, all_gone
from tiny import save_tiny

from seer_ray.compose import from_yaml, to_yaml
from seer_ray.config import RunConfig, SweepConfig
from seer_ray.points import expand, points_of
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder

PROBLEMS, SAMPLES = 5, 2
KILLS = ("driver", "worker", "driver", "worker", "driver")


class SweepRun(Run):
    """A sweep folder and the processes that come and go on it."""

    patience = 300.0

    def __init__(self, tmp_path: Path, name: str, model: Path, data: Path, pace: float) -> None:
        super().__init__(tmp_path, name, model, data, pace)
        base = SweepConfig(**vars(from_yaml(self.text, job=RunConfig)))
        base.samples, base.sampling.max_new_tokens = SAMPLES, 60
        base.cluster.workers, base.sweep.round, base.results.report = 1, 2, False
        self.sweep = expand(["selector=quest,window", "selector.budget=32"], base)
        self.config.write_text(to_yaml(self.sweep))

    def folders(self) -> dict[str, Path]:
        return {point.slug: self.folder / "points" / point.slug for point in points_of(self.sweep)}

    def plans(self) -> dict[str, str]:
        """Slug -> layer plan in the journal."""
        return {point["slug"]: point["plan"] for point in SweepFolder.view(str(self.folder)).points}

    def committed(self) -> set[str]:
        """Ids of the committed requests, as the journal has them."""
        found: set[str] = set()
        for slug, folder in self.folders().items():
            if (folder / "run.json").exists():
                plan = self.plans()[slug]
                keys = RunFolder.view(str(folder)).committed()
                found |= {f"{plan}|{problem}/{sample}" for problem, sample in keys}
        return found

    def saved(self) -> dict[str, int]:
        """Tokens on disk of the chains that are not done."""
        found: dict[str, int] = {}
        for slug, folder in self.folders().items():
            if (folder / "run.json").exists():
                text = (folder / "config.yaml").read_text()
                with RunFolder.open(str(folder), text) as opened:
                    chains = opened.progress().load()
                found |= {
                    f"{self.plans()[slug]}|{id}": len(p.tokens) for id, (p, _) in chains.items() if p.tokens
                }
        return found  # fmt: skip

    def done(self) -> bool:
        assert self.process.poll() in (None, 0), self.output()
        return self.process.poll() == 0

    def more_rows(self, than: int) -> bool:
        return self.done() or len(self.committed()) > than

    def point_rows(self) -> dict[str, pa.Table]:
        keys = [("problem_id", "ascending"), ("sample", "ascending")]
        return {
            slug: RunFolder.view(str(folder)).read(SAME).sort_by(keys)
            for slug, folder in self.folders().items()
        }


@pytest.mark.timeout(1200)
def test_a_killed_sweep_is_finished_with_no_request_repeated(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "qwen3", max_position_embeddings=2048)
    data = tmp_path / "data.jsonl"
    data.write_text(
        "\n".join(
            json.dumps({"id": f"p{n}", "question": f"What is {n} + {n * n}?", "answer": str(n + n * n)})
            for n in range(PROBLEMS)
        )
    )
    calm = SweepRun(tmp_path, "calm", model, data, pace=0.0)
    calm.start()
    calm.wait_for(calm.done, "the end")
    expected = calm.point_rows()
    assert {slug: table.num_rows for slug, table in expected.items()} == dict.fromkeys(
        ("dense", "quest-32", "window-32"), PROBLEMS * SAMPLES
    )

    run, chance = SweepRun(tmp_path, "killed", model, data, pace=0.03), random.Random(5)
    committed: set[str] = set()
    begun = run.start()
    for victim in KILLS:
        before = len(run.committed()) if run.folder.exists() else 0
        run.wait_for(partial(run.more_rows, before), "another row")
        time.sleep(chance.uniform(0.0, 1.5))
        assert run.process.poll() is None, f"too short for all kills: {run.output()}"
        if victim == "worker":
            for pid in run.descendants("ray::Worker"):
                os.kill(pid, signal.SIGKILL)
            continue
        family = run.descendants("ray::Worker", "raylet", "gcs_server")
        run.process.kill()
        run.process.wait()
        run.wait_for(partial(all_gone, family), "the end of what a driver leaves")
        assert not set(run.begun(begun)) & committed, "a committed request was decoded again"
        committed, saved = run.committed(), run.saved()
        begun = run.start()
        run.wait_for(lambda start=begun: bool(run.begun(start)), "work")  # type: ignore[misc]
        for id, lengths in run.begun(begun).items():
            assert lengths[0] >= saved.get(id, 0), f"{id} lost tokens that were on disk"
    run.pace = 0.0
    run.wait_for(run.done, "the end")
    assert not set(run.begun(begun)) & committed, "a committed request was decoded again"
    found = run.point_rows()
    for slug, table in expected.items():
        for column in SAME:
            assert found[slug][column].to_pylist() == table[column].to_pylist(), (slug, column)
    assert {point["state"] for point in SweepFolder.view(str(run.folder)).points} == {"done"}
