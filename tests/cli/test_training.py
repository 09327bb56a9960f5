"""``seer-ray status`` and ``resume`` on folders of training."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import types
from typing import Any

import pytest

from seer_ray.cli import watch
from seer_ray.config.compose import compose, to_yaml
from seer_ray.config.measuring import GatesEvalConfig
from seer_ray.config.options import TrackingConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.results.history import History
from seer_ray.results.job import JobFolder
from seer_ray.results.store import open_store
from seer_ray.status.live import TrainSummary
from seer_ray.status.pulse import StatusFile
from seer_ray.tracking.mlflow_tracker import open_tracker

from .conftest import make_run, one_error

LOSS = {"train/loss": 0.25, "train/lr": 0.001, "speed/tokens_per_s": 4000.0, "time/eta_s": 61.0}
KINDS = {"pretrain": PretrainConfig, "distill": DistillConfig, "gates eval": GatesEvalConfig}


def make_training(
    state: str | None,
    job: str = "pretrain",
    step: int = 6,
    metrics: dict[str, float] | None = None,
    **said: Any,
) -> JobFolder:
    """``runs/mine``: 10 steps, a record of the fourth; ``said`` is in ``status.json`` too."""
    words = ["name=mine", *([] if job == "gates eval" else ["train.steps=10"])]
    config = compose(words, KINDS[job])
    with JobFolder.open("runs/mine", config) as folder:
        history = History(folder.store)
        history.add(4, LOSS)
        history.add(4, {"eval/20_steps/loss": 0.5})
        if state:
            status = StatusFile(folder, lambda: {"step": 6, **said})
            status.end(state)
        if metrics:
            folder.conclude(metrics)
    return folder


def shown(invoke, *args: str) -> str:
    result = invoke("status", "mine", *args)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_while_it_trains(invoke):
    make_training("running")
    text = shown(invoke)
    assert "6 of 10 steps 60%" in text and "loss 0.25 · lr 0.001 · 4,000 tokens/s · about 1:01 left" in text
    assert "held out" in text and "20_steps/loss 0.5" in text
    assert text.endswith(f"mine: running (process {os.getpid()} on {socket.gethostname()})")
    said = json.loads(invoke("status", "mine", "--json").stdout)
    assert (said["command"], said["state"]) == ("pretrain", "running")
    assert (said["live"]["step"], said["live"]["steps"]) == (6, 10)
    assert said["metrics"]["time/eta_s"] == 61.0 and said["metrics"]["train/loss"] == 0.25


@pytest.mark.parametrize(
    ("state", "said", "message"),
    [
        ("interrupted", {}, "interrupted; continue with: seer-ray resume runs/mine"),
        ("failed", {"error": "the loss is nan"}, "failed: the loss is nan; continue with: seer-ray resume"),
        ("running", {"heartbeat": 1000.0}, "stopped without finishing, last heard of"),
        (None, {}, "stopped without finishing; continue with: seer-ray resume runs/mine"),
    ],
)
def test_when_nobody_is_at_it(invoke, state, said, message):
    make_training(state, **said)
    assert f"mine: {message}" in shown(invoke)


def test_done(invoke):
    make_training("running", metrics={"train/loss": 0.125, "eval/20_steps/loss": 0.25})
    text = shown(invoke)
    assert text.endswith("mine: done") and "train/loss │ 0.125" in text and "left" not in text


def test_not_begun(invoke):
    with JobFolder.open("runs/mine", compose(["name=mine"], PretrainConfig)):
        pass
    assert shown(invoke) == "mine: not begun yet; continue with: seer-ray resume runs/mine"


def test_watch_follows_to_the_end(invoke, monkeypatch):
    make_training("running")
    config = compose(["name=mine", "train.steps=10"], PretrainConfig)
    folder = JobFolder.open("runs/mine", config)
    who = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}
    steps = [{**who, "state": "running", "step": 8}, {**who, "state": "interrupted", "step": 9}]
    monkeypatch.setattr(watch.time, "sleep", lambda _: folder.write_json("status.json", steps.pop(0)))
    result = invoke("status", "mine", "--watch")
    assert result.exit_code == 0 and not steps
    assert "step 6/10 · loss 0.25" in result.stderr and "9 of 10 steps" in result.stdout


def test_what_mlflow_was_not_told(invoke):
    folder = make_training("interrupted")
    tracker = open_tracker(folder, TrackingConfig(uri="http://127.0.0.1:9"))
    tracker.start("mine", {})
    tracker.finish()
    assert shown(invoke).endswith("2 updates are not in MLflow yet; to send: seer-ray resume runs/mine")
    make_training("running")
    assert "MLflow" not in shown(invoke), "who is at it sends them"


class Job:
    config: Any = None

    def main(self, config, reporter):
        self.config = config
        return TrainSummary("mine", "runs/mine", product="runs/mine/model", step=10, tokens=5e3)


@pytest.mark.parametrize("job", ["pretrain", "distill"])
def test_resume(invoke, monkeypatch, job):
    stand_in = Job()
    module = types.ModuleType(f"seer_ray.jobs.{job}")
    module.main = stand_in.main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    make_training("interrupted", job)
    before = compose(["name=mine", "train.steps=10"], KINDS[job])
    assert invoke("resume", "mine").exit_code == 0
    assert to_yaml(stand_in.config) == to_yaml(before)
    assert invoke("resume", "runs/mine", "train.log_every=3", "cluster.workers=2").exit_code == 0
    assert (stand_in.config.train.log_every, stand_in.config.cluster.workers) == (3, 2)
    assert "no such option" in one_error(invoke("resume", "mine", "train.logs_every=3"))
    assert "leave this out" in one_error(invoke("resume", "mine", "name=other"))
    assert "train.lr: 0.5 here" in one_error(invoke("resume", "mine", "train.lr=0.5"))


def test_what_is_resumed_by_its_own_command_says_so(invoke):
    make_training(None, "gates eval")
    assert "continue with: seer-ray gates eval ..." in shown(invoke)
    assert one_error(invoke("resume", "mine")).startswith("runs/mine: made by seer-ray gates eval; give that")


def test_a_missing_one_is_named_beside_runs(invoke):
    make_run("name=other")
    make_training(None)
    assert one_error(invoke("status", "minee")) == (
        "minee: no such run in runs (did you mean 'mine'?); it has mine, other"
    )


def test_a_config_that_was_edited_by_hand(invoke):
    make_training("interrupted")
    open_store("runs/mine").write("config.yaml", b"train: {steps: 0}")
    assert one_error(invoke("resume", "mine")).startswith("runs/mine/config.yaml: train.steps=0: must be")
