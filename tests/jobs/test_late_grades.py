"""kill -9 a driver whose grader is slow: the next one grades what was decoded, and decodes it not again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster.test_faults import Run, all_gone
from tiny import save_tiny

from seer_ray.config.compose import from_yaml, to_yaml
from seer_ray.driver.again import GRADES
from seer_ray.results.folder import RunFolder
from seer_ray.results.keys import Key
from seer_ray.results.ungraded import key_of

PROBLEMS, LONGEST = 6, 60


class SlowRun(Run):
    """A run whose grader waits."""

    def __init__(self, tmp_path: Path, name: str, model: Path, data: Path, pace: float) -> None:
        super().__init__(tmp_path, name, model, data, pace, LONGEST)
        config = from_yaml(self.text)
        config.task.grader, config.task.grade_timeout = "faults_driver:late", 600.0
        config.cluster.workers = 1
        self.text = to_yaml(config)
        self.config.write_text(self.text)

    def late(self) -> dict[Key, dict[str, Any]]:
        """The rows that wait on disk."""
        with RunFolder.open(str(self.folder), from_yaml(self.text)) as folder:
            return {key_of(row): row for row in folder.ungraded().take()}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rows_that_wait_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, grades = save_tiny(tmp_path / "model", "qwen3"), tmp_path / "data.jsonl", tmp_path / "grades"
    rows = ({"id": f"p{n}", "question": f"{n} + 1?", "answer": str(n + 1)} for n in range(PROBLEMS))
    data.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("GRADES", str(grades))

    run = SlowRun(tmp_path, "killed", model, data, 0.02)
    run.start()
    files = run.folder / "ungraded"
    run.wait_for(lambda: files.exists() and any(files.glob("*.rows")), "rows that wait")
    family = run.descendants("ray::Worker", "raylet", "gcs_server")
    run.process.kill()
    run.process.wait()
    run.wait_for(partial(all_gone, family), "the end of what a driver leaves")
    late = run.late()
    assert 0 < len(late) < 2 * PROBLEMS, "the job was too short for this test"
    assert RunFolder.view(str(run.folder)).committed() == set()

    grades.touch()
    begun = run.start()
    run.wait_for(lambda: run.process.poll() is not None, "the end")
    assert run.process.returncode == 0, run.output()
    decoded, waited = set(run.begun(begun)), {f"{problem}/{sample}" for problem, sample in late}
    assert not waited & decoded and len(waited | decoded) == 2 * PROBLEMS
    found = run.rows().to_pylist()
    assert [key_of(row) for row in found] == [(f"p{n}", sample) for n in range(PROBLEMS) for sample in (0, 1)]
    for row in found:
        assert row["correct"] is not None
        for column, value in late.get(key_of(row), {}).items():
            if column not in GRADES:
                assert row[column] == (value.tolist() if column == "token_ids" else value), column
    assert not any(files.iterdir())
