"""``seer-ray compare`` on run folders that the writers made."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from analysis import made_runs
from analysis.made_runs import make_run
from typer.testing import CliRunner, Result

from seer_ray.analysis.comparison import against
from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.analysis.recommend import Keeps
from seer_ray.analysis.runs import expand, load
from seer_ray.cli.app import app
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SweepConfig
from seer_ray.results.sweep import SweepFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, budget, skill in (("seer", 96, 0.9), ("dense", 2048, 0.9), ("quest", 48, 0.1)):
        make_run(Path("runs"), name, budget, problems=40, skill=skill)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["compare", *args], catch_exceptions=False)


def test_dense_is_the_baseline_wherever_it_stands(folder: Path) -> None:
    found = against(["runs/seer-96", "runs/quest-48", "runs/dense"])
    assert found.baseline == "dense"
    by_name = {one.name: one for one in found.assessments}
    assert by_name["quest 48"].keeps is Keeps.NO and by_name["quest 48"].difference.value < -0.2
    assert by_name["seer 96"].difference.pairs == 80, "errors are pairs: wrong in both"


def test_without_dense_the_first_is_the_baseline(folder: Path) -> None:
    assert against(["runs/seer-96", "runs/quest-48"]).baseline == "seer 96"
    assert against(["runs/quest-48", "runs/seer-96"]).baseline == "quest 48"
    for name in ("seer 96", "seer-96", "runs/seer-96"):
        assert against(["runs/quest-48", "runs/dense", "runs/seer-96"], name).baseline == "seer 96"


def test_a_sweep_stands_for_its_points(folder: Path) -> None:
    for name, budget in (("dense", 2048), ("seer", 96)):
        make_run(Path("runs/all/points"), name, budget, problems=10)
    with SweepFolder.open("runs/all", SweepConfig(name="all")) as sweep:
        sweep.write_points([{"slug": "dense"}, {"slug": "seer-96"}, {"slug": "not-begun"}])
    assert expand(["runs/all"]) == [(f"runs/all/points/{slug}", "runs/all") for slug in ("dense", "seer-96")]
    assert [one.job for one in load(["runs/all"])] == ["runs/all"] * 2
    assert against(["runs/all"]).assessments[0].speed.lacks == "not measured"
    assert against(["runs/all"]).assessments[0].keeps is Keeps.UNKNOWN
    decision = Decision(Verdict.WORSE, "plainly", 10, 0.001, 1.0)
    with SweepFolder.open("runs/all", SweepConfig(name="all")) as sweep:
        sweep.write_points([{"slug": "dense"}, {"slug": "seer-96", "decision": asdict(decision)}])
    assert against(["runs/all"]).assessments[0].keeps is Keeps.NO, "what racing decided stands"
    both = load(["runs/all", "runs/seer-96"])
    assert [one.job for one in both] == ["runs/all", "runs/all", "runs/seer-96"]


def test_the_table_fits_80_columns(folder: Path) -> None:
    shown = run("runs/dense", "runs/seer-96", "quest-48").stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    row = next(line for line in shown.splitlines() if line.strip().startswith("quest 48"))
    assert row.rstrip().endswith("no") and "%" in row
    assert "Rests on 80 pairs of 40 problems" in shown


def test_json(folder: Path) -> None:
    said = json.loads(run("runs/dense", "runs/seer-96", "--json", "--margin", "50").stdout)
    assert (said["answer"], said["choice"], said["margin"]) == ("take", "seer 96", 0.5)
    assert said["assessments"][0]["difference"]["pairs"] == 80


@pytest.mark.parametrize(
    "args, message",
    [
        (["runs/dense"], "one run alone"),
        (["runs/dense", "runs/dens"], "no such run"),
        (["runs/dense", "runs/seer-96", "--baseline", "seer"], "did you mean 'seer 96'?"),
        (["runs/dense", "runs/seer-96", "--margin", "0"], "--margin 0: must be above 0"),
        (["runs/dense", "runs/seer-96", "--confidence", "100"], "--confidence 100: must be"),
    ],
)
def test_refusals_are_one_line(folder: Path, args: list[str], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_other_problems_of_the_same_ids_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids such as row numbers are the same in every dataset."""
    row = made_runs._row
    monkeypatch.setattr(made_runs, "_row", lambda *args: {**row(*args), "reference": "another"})
    make_run(Path("runs"), "window", 96, problems=3)
    with pytest.raises(ConfigError, match="not the same problems"):
        against(["runs/dense", "runs/window-96"])
