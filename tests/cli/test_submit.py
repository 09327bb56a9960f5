"""``seer-ray submit``: options in, the job's exit code out."""

from __future__ import annotations

from typing import Any

import pytest

from seer_ray.cluster import submit
from seer_ray.config.compose import compose, run_name, to_yaml
from seer_ray.config.errors import JobError
from seer_ray.config.measuring import GatesEvalConfig, GatesSharesConfig
from seer_ray.config.options import JobConfig, RunConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.sweeps.points import points_of

from .conftest import make_run, one_error


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_job_s_exit_code_is_the_command_s(invoke, monkeypatch, code):
    seen: list[tuple[RunConfig, str]] = []

    def send(config: RunConfig, address: str) -> int:
        seen.append((config, address))
        return code

    monkeypatch.setattr(submit, "submit", send)
    result = invoke("submit", "selector=dense", "--address", "http://head:8265")
    assert result.exit_code == code
    (config, address), expected = seen[0], compose(["selector=dense"])
    assert address == "http://head:8265"
    assert config.selector == expected.selector and config.name == run_name(expected)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (JobError("the cluster refused the job: no"), 1, "error: the cluster refused the job: no\n"),
        (
            KeyboardInterrupt(),
            130,
            "no longer following; the job goes on, and the same command follows it again\n",
        ),
    ],
)
def test_failures(invoke, monkeypatch, error, code, message):
    def send(*_: object) -> int:
        raise error

    monkeypatch.setattr(submit, "submit", send)
    result = invoke("submit")
    assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")


def test_nobody_at_the_address(invoke):
    # Port 1 of this machine: nothing listens there.
    assert one_error(invoke("submit", "--address", "http://127.0.0.1:1")).startswith(
        "address=http://127.0.0.1:1: no "
    )


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, Any]]:
    """(command, options) of what is submitted."""
    seen: list[tuple[str, Any]] = []

    def send(config: JobConfig, address: str) -> int:
        seen.append((config.command, config))
        return 0

    monkeypatch.setattr(submit, "submit", send)
    return seen


def test_a_sweep(invoke, sent, tmp_path):
    assert invoke("submit", "sweep", "selector=quest", "selector.budget=256,512").exit_code == 0
    ((command, config),) = sent
    points = points_of(config)
    assert command == "sweep" and config.name
    assert [point.slug for point in points] == ["dense", "quest-256", "quest-512"]
    # There it is read from a file, as it is from one here.
    (tmp_path / "job.yaml").write_text(to_yaml(config))
    assert invoke("submit", "sweep", "--config", "job.yaml").exit_code == 0
    assert points_of(sent[1][1]) == points
    assert one_error(invoke("submit", "sweep", "selector=quest")).startswith("nothing to sweep")


@pytest.mark.parametrize(
    ("words", "kind", "option"),
    [
        (("pretrain", "train.steps=7"), PretrainConfig, ("train", "steps", 7)),
        (("distill", "data=texts.jsonl", "train.steps=8"), DistillConfig, ("train", "steps", 8)),
        (("run", "engine.max_batch=9"), RunConfig, ("engine", "max_batch", 9)),
        (("gates eval", "runs/a/gates", "data=t.jsonl"), GatesEvalConfig, ("", "sets", ["runs/a/gates"])),
        (("gates shares", "gates", "data=t.jsonl", "length=512"), GatesSharesConfig, ("", "length", 512)),
    ],
)
def test_other_jobs(invoke, sent, words, kind, option):
    assert invoke("submit", *words[0].split(), *words[1:]).exit_code == 0
    ((command, config),) = sent
    section, name, value = option
    assert command == words[0] and type(config) is kind and config.name
    assert getattr(getattr(config, section) if section else config, name) == value


def test_no_such_job(invoke, sent):
    assert one_error(invoke("submit", "sweeep", "selector=quest")) == (
        "sweeep: no such job; must be one of run, sweep, pretrain, distill, gates eval, gates shares, "
        "gates calibrate, gates prompts, study probe, study train, study plan (did you mean 'sweep'?)"
    )
    assert sent == []


def test_a_resumption(invoke, sent):
    make_run("name=mine", "selector=dense")
    assert invoke("submit", "resume", "mine", "cluster.workers=2").exit_code == 0
    ((command, config),) = sent
    assert (command, config.name, config.cluster.workers) == ("run", "mine", 2)
    assert one_error(invoke("submit", "resume")) == (
        "resume: must be resume RUN, one folder or name, and no --config"
    )


def test_what_would_be_sent(invoke, sent):
    assert "selector:\n  name: dense\n" in invoke("submit", "selector=dense", "--print-config").stdout
    assert sent == []
