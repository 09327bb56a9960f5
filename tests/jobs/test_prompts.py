"""Rows that cannot be asked, runs of which nothing comes, and prompts that stay as they were."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from jobs.conftest import MakeConfig
from jobs.sweeps import run as run_sweep
from tiny import tiny_tokenizer

from seer_ray.config.errors import ConfigError, Interrupted
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.jobs import run as run_job
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import LiveStats, NullReporter
from seer_ray.status.read import read_status

pytestmark = pytest.mark.usefixtures("local_ray")

BAD = (
    '{"id": "half", "question": "a\\ud800?", "answer": "4"}',
    '{"id": "cut off", ',
    '{"id": NaN, "question": "b?", "answer": "4"}',
    '{"id": "deep", "question": ' + "[" * 100_000 + "}",
)


def folder(config: RunConfig) -> str:
    return f"{config.results.folder}/{config.name}"


def rows(config: RunConfig) -> list[dict[str, Any]]:
    return RunFolder.view(folder(config)).read().to_pylist()


class Stopper(NullReporter):
    """Presses Ctrl-C when there are tokens."""

    pressed = False

    def update(self, live: LiveStats) -> None:
        if live.new_tokens and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def test_rows_that_cannot_be_asked_are_error_rows_and_the_others_go_on(letters: MakeConfig) -> None:
    config = letters()
    data = Path(str(config.task.data))
    data.write_text("\n".join([*data.read_text().splitlines(), *BAD]))
    summary = run_job.main(config, build=fake_engine.build_fake)
    assert (summary.rows, summary.errors) == (14, 8)
    found = rows(config)
    assert Counter((row["problem_id"], row["sample"]) for row in found).most_common(1)[0][1] == 1
    errors = {row["problem_id"]: row for row in found if row["finish_reason"] == "error"}
    assert set(errors) == {"half", f"{data}:5", f"{data}:6", f"{data}:7"}
    for number, row in zip((4, 5, 6, 7), errors.values(), strict=True):
        assert f"{data}:{number}" in row["error"]
        assert (row["completion"], row["answer"], row["correct"], row["attempts"]) == ("", None, None, 0)
    said = "8 of 14 rows are errors, more than results.max_error_rate=0.5 allows"
    assert summary.failure is not None and said in summary.failure
    assert sum(kind["rows"] for kind in summary.error_kinds) == 8
    assert read_status(folder(config)).state == "failed"
    config.results.max_error_rate = 0.6
    assert run_job.main(config, build=fake_engine.build_fake).failure is None
    assert len(rows(config)) == 14


def test_a_run_whose_rows_are_all_errors_has_failed(letters: MakeConfig) -> None:
    config = letters()
    for _ in range(2):  # the second time it only says so
        failure = run_job.main(config, build=fake_engine.build_refusing).failure
        assert failure is not None
        assert "data.jsonl:1: the prompt is too long (all 6 rows); mend it and" in failure
        status = read_status(folder(config))
        assert status.state == "failed"
        assert status.error == failure
    assert all(re.search(r"data.jsonl:\d: the prompt is too long$", row["error"]) for row in rows(config))


def test_a_point_whose_rows_are_all_errors_has_failed(base: SweepConfig) -> None:
    for _ in range(2):
        summary = run_sweep(base, "selector=quest,window", build=fake_engine.build_refusing)
        assert len(summary.failed) == len(summary.points) == 3
        assert all(": the prompt is too long (all" in point["error"] for point in summary.points)


def dated(model: Path, folder: Path, template: str) -> str:
    """A copy of the model with a template of its own."""
    folder.mkdir(exist_ok=True)
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_run_that_goes_on_asks_what_it_has_asked(letters: MakeConfig, model: Path, tmp_path: Path) -> None:
    config = letters(ids="abcdef", tokens=150)
    config.engine.max_batch = 2
    template = "{{ strftime_now('%H:%M:%S.%f') }} {{ messages[0].content }}"
    config.model.name = dated(model, tmp_path / "dated", template)
    with pytest.raises(Interrupted):
        run_job.main(config, Stopper(), build=fake_engine.build_slow)
    assert len(rows(config)) < 12
    noted = json.loads(Path(folder(config), "prompts.json").read_text())
    about = json.loads(Path(folder(config), "run.json").read_text())
    assert noted["clock"] == pytest.approx(about["created_at"])
    before = dated(model, tmp_path / "dated", "Be brief. " + template)
    with pytest.raises(ConfigError, match=r"other files.* model\.tokenizer: chat_template\.jinja"):
        run_job.main(config, build=fake_engine.build_fake)
    Path(folder(config), "sources.json").unlink()  # as of before it was written
    with pytest.raises(ConfigError, match=r"the prompt of problem 'a' and of 5 more is no longer the one"):
        run_job.main(config, build=fake_engine.build_fake)
    dated(model, Path(before), template)
    run_job.main(config, build=fake_engine.build_fake)
    found = rows(config)
    assert len(found) == 12
    assert len({row["prompt"].split()[0] for row in found}) == 1, "all by one clock"
