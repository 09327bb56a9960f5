"""``seer-ray resume``: the same run goes on, and only as the same run."""

from __future__ import annotations

import pytest

from .conftest import make_run, one_error


def test_by_name_by_path_and_from_elsewhere(invoke, job, tmp_path, monkeypatch):
    name = make_run("seed=3", "selector=dense")
    assert invoke("resume", name, "cluster.workers=2").exit_code == 0
    assert (job.config.name, job.config.results.folder) == (name, "runs")
    assert (job.config.seed, job.config.selector.name, job.config.cluster.workers) == (3, "dense", 2)

    assert invoke("resume", f"runs/{name}/", "cluster=gpu").exit_code == 0
    assert (job.config.name, job.config.results.folder) == (name, "runs")
    assert job.config.cluster.num_gpus == 1

    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert invoke("resume", f"../runs/{name}").exit_code == 0
    assert (job.config.name, job.config.results.folder) == (name, "../runs")
    assert invoke("resume", name, "results.folder=../runs").exit_code == 0
    assert (job.config.name, job.config.results.folder) == (name, "../runs")


@pytest.mark.parametrize("override", ["seed=4", "selector=seer", "selector.budget=512", "task.limit=2"])
def test_what_decides_the_rows_stays(invoke, job, override):
    name = make_run()
    error = one_error(invoke("resume", name, override))
    assert "made with other settings" in error and override.partition("=")[0] in error
    assert job.config is None


def test_the_name_stays(invoke, job):
    name = make_run()
    assert one_error(invoke("resume", name, "name=other")).startswith("name=other: ")


def test_a_missing_run_names_the_near_miss(invoke, job):
    make_run("name=first")
    make_run("name=second")
    assert one_error(invoke("resume", "frist")) == (
        "frist: no such run in runs (did you mean 'first'?); it has first, second"
    )


def test_a_folder_that_is_no_run(invoke, job, tmp_path):
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    assert one_error(invoke("resume", "notes")).startswith("notes: no such run in runs")
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "run.json").write_text('{"version": 1')
    assert "run.json" in one_error(invoke("resume", "torn"))


def test_a_config_that_was_edited_by_hand(invoke, job, tmp_path):
    name = make_run()
    config = tmp_path / "runs" / name / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: zero"))
    assert one_error(invoke("resume", name)) == f"runs/{name}/config.yaml: seed=zero: must be a whole number"
    config.write_text(config.read_text().replace("seed: zero", "seed: 1"))
    assert one_error(invoke("resume", name)) == (
        f"runs/{name}/config.yaml: not what the job was begun with: seed: 1 here, 0 in the folder; "
        "delete it to go on"
    )
    config.unlink()
    assert invoke("resume", name).exit_code == 0
