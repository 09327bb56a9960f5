"""Sweeps with real Ray, results and grading; only their engine needs no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_engine
import pytest
from fake_engine import expected_tokens, make_request
from jobs.here import command
from jobs.sweeps import Recorder, Stopper, folder, rows, run, states

from seer_ray.analysis.comparison import compare
from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import SweepConfig
from seer_ray.jobs import sweep
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder, point_uri
from seer_ray.status.read import read_status
from seer_ray.sweeps import race
from seer_ray.sweeps.estimate import estimate
from seer_ray.sweeps.points import expand

pytestmark = pytest.mark.usefixtures("local_ray")


def test_every_point_is_a_run_of_its_own_with_its_own_setting(base: SweepConfig) -> None:
    summary = run(base, "selector=quest,window", "selector.budget=32,64")
    names = ["dense", "quest-32", "quest-64", "window-32", "window-64"]
    assert states(base) == dict.fromkeys(names, "done")
    assert summary.failed == []
    for name in names:
        found = rows(base, name)
        assert [(row["problem_id"], row["sample"]) for row in found] == [
            (p, s) for p in "abc" for s in (0, 1)
        ]
        for row in found:
            assert row["token_ids"] == expected_tokens(make_request(row["problem_id"], row["sample"], 20))
            assert row["error"] is None
            wanted = "fake" if name == "dense" else f"fake-{name.replace('-', '')}"
            assert row["selector"] in (wanted, "fake-dense2048")
    for point in summary.points:
        metrics = point["metrics"]
        assert metrics["time/decoding_s"] > 0 and metrics["speed/tokens_per_s"] > 0
        assert (metrics["kv/attended"], metrics["kv/available"]) == (6 * 200, 6 * 400)
        assert metrics["time/decoding_s"] == pytest.approx(metrics["time/engine_s"]), "of one worker"
        assert metrics["speed/tokens_per_s"] == pytest.approx(6 * 20 / metrics["time/engine_s"])
    compared = {one.setting.folder: one.setting.speed for one in compare([folder(base).uri]).runs}
    shown = {point.name: point.tokens_per_s for point in read_status(folder(base).uri).live.points}
    for point in summary.points:
        speed = compared[point_uri(folder(base).uri, point["slug"])]
        assert speed is not None
        told = point["metrics"]["speed/tokens_per_s"]
        assert (speed.tokens_per_s, shown[point["slug"]]) == (told, told), "one measure everywhere"
        assert speed.seconds == point["metrics"]["time/decoding_s"]
    codes = {point["slug"]: point["plan"] for point in folder(base).points}
    assert codes["quest-32"] == "2L:quest32b16" and codes["dense"] == "2L:dense"
    again = run(base, "selector=quest,window", "selector.budget=32,64", build=None)
    assert [point["metrics"] for point in again.points] == [point["metrics"] for point in summary.points]


def test_points_are_decoded_in_rounds(base: SweepConfig) -> None:
    names = ("dense", "quest-32", "window-32")
    with pytest.raises(Interrupted, match="interrupted with 12 of 18 rows"):
        run(
            base, "selector=quest,window", "selector.budget=32", reporter=Stopper(12),
            build=fake_engine.build_stuck_at_c,
        )  # fmt: skip
    before = {name: rows(base, name) for name in names}
    for kept in before.values():
        assert [row["problem_id"] for row in kept] == ["a", "a", "b", "b"], "no point is ahead of another"
    run(base, "selector=quest,window", "selector.budget=32")
    for name, kept in before.items():
        now = rows(base, name)
        assert len(now) == 6 and all(row in now for row in kept)


def test_a_point_that_no_worker_can_have_fails_alone(base: SweepConfig) -> None:
    recorder = Recorder()
    summary = run(base, "selector=seer,quest", "selector.budget=32", reporter=recorder)
    assert states(base) == {"dense": "done", "seer-32": "failed", "quest-32": "done"}
    assert summary.failed == ["seer-32"]
    assert any(note == "seer-32 failed: model.gates: none given" for note in recorder.notes)
    status = RunFolder.view(f"{base.results.folder}/sw/points/seer-32").read_json("status.json")
    assert (status["state"], status["error"]) == ("failed", "model.gates: none given")


def test_points_that_read_the_same_blocks_are_one(base: SweepConfig) -> None:
    recorder = Recorder()
    run(base, "selector=quest", "selector.budget=64,70", reporter=recorder)
    assert states(base) == {"dense": "done", "quest-64": "done"}
    assert "quest-70 reads the same blocks as quest-64: one point" in recorder.notes


def test_a_sweep_grows(base: SweepConfig) -> None:
    run(base, "selector=quest,window", "selector.budget=32")
    kept = rows(base, "quest-32")
    run(base, "selector=quest", "selector.budget=64,96")
    assert set(states(base)) == {"dense", "quest-32", "window-32", "quest-64", "quest-96"}
    assert rows(base, "quest-32") == kept
    assert set(states(base).values()) == {"done"}


def test_the_config_of_the_folder_is_the_sweep(base: SweepConfig) -> None:
    config = expand(["selector=quest,window", "selector.budget=32"], base)
    assert expand([], config) == config
    sweep.main(config, Recorder(), fake_engine.build_fake)
    assert folder(base).config_yaml == to_yaml(config)


@pytest.mark.long  # test_race.py does it with a model
def test_racing_stops_what_is_surely_worse(base: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody grades the fake chains; here racing is told that the window's are worse than dense."""
    asked: list[tuple[set[str], float]] = []

    def decide(outcomes: Any, settings: Any) -> Any:
        asked.append((set(outcomes), settings.alpha))
        return {
            name: Decision(
                Verdict.WORSE if "window" in name else Verdict.KEEP, "far below dense", 1, 0.001, 1.0
            )
            for name in outcomes
        }

    monkeypatch.setattr(race, "decide", decide)
    base.task.grader = "none"
    recorder = Recorder()
    summary = run(
        base,
        "selector=quest,window",
        "selector.budget=32",
        "sweep.racing.enabled=true",
        reporter=recorder,
        build=fake_engine.build_slow,
    )
    assert states(base) == {"dense": "done", "quest-32": "done", "window-32": "stopped early"}
    assert len(rows(base, "window-32")) < 6 == len(rows(base, "quest-32"))
    assert any(note == "window-32 is sampled no more: far below dense" for note in recorder.notes)
    assert summary.saved is not None and summary.saved.startswith("racing stopped 1 point early and saved")
    assert {(*names, alpha) for names, alpha in asked} == {("quest-32", 0.025), ("window-32", 0.025)}
    before = rows(base, "window-32")
    run(base, "selector=quest,window", "selector.budget=32", "sweep.racing.enabled=true")
    assert rows(base, "window-32") == before and states(base)["window-32"] == "stopped early"
    run(base, "selector=quest,window", "selector.budget=32")
    assert len(rows(base, "window-32")) == 6 and states(base)["window-32"] == "done"


def test_a_sweep_is_graded_again(base: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its points and what they come to; none whose points were chosen by the grades that there were."""
    (tmp_path / "judge.py").write_text("def all_right(completion, answer):\n    return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    base.results.report = True
    run(base, "selector=quest,window", "selector.budget=32")
    uri = folder(base).uri
    before = (tmp_path / "runs/sw/report.html").read_text()
    refused = command("grade", uri, "grader=nothing")
    assert refused.exit_code == 2 and (tmp_path / "runs/sw/report.html").read_text() == before
    result = command("grade", uri, "grader=judge:all_right", "--json")
    assert result.exit_code == 0, result.output
    said = {point["slug"]: point["metrics"] for point in json.loads(result.stdout)["points"]}
    assert list(said) == ["dense", "quest-32", "window-32"] and states(base) == dict.fromkeys(said, "done")
    for slug, metrics in said.items():
        assert metrics["accuracy/avg"] == 1.0 and metrics["speed/tokens_per_s"] > 0
        assert all(row["correct"] for row in rows(base, slug))
    after = (tmp_path / "runs/sw/report.html").read_text()
    assert "judge:all_right" in after and "judge:all_right" not in before
    index = folder(base)
    entries = [
        {**entry, "state": "stopped early"} if entry["slug"] != "dense" else entry for entry in index.points
    ]
    monkeypatch.setattr(SweepFolder, "points", entries)
    refused = command("grade", uri, "grader=exact")
    assert (
        refused.exit_code == 2
        and "quest-32 is not done but stopped early; grade its points" in refused.output
    )


def test_an_estimate_says_what_it_rests_on(base: SweepConfig) -> None:
    overrides = ["selector=quest,window", "selector.budget=32"]
    before = estimate(expand(overrides, base))
    assert [(point.name, point.requests, point.tokens) for point in before.points] == [
        ("dense", 6, None), ("quest-32", 6, None), ("window-32", 6, None),
    ]  # fmt: skip
    assert (before.requests, before.tokens, before.seconds) == (18, None, None)
    assert not Path(before.folder).exists()
    run(base, *overrides)
    more = estimate(expand([*overrides[:1], "selector.budget=32,64"], base))
    by_name = {point.name: point for point in more.points}
    assert (by_name["quest-32"].requests, by_name["quest-32"].done, by_name["quest-32"].tokens) == (0, 6, 0)
    assert (by_name["quest-64"].requests, by_name["quest-64"].tokens) == (6, 6 * 20)
    assert by_name["quest-64"].basis == "3 other points of this sweep"
    assert by_name["quest-64"].seconds is not None and by_name["quest-64"].seconds > 0
    base.name, base.seed = "other", 1
    beside = {point.name: point for point in estimate(expand(overrides, base)).points}
    assert beside["quest-32"].tokens == 6 * 20
    assert beside["quest-32"].basis == "1 earlier run of quest with this model, task and sampling"
