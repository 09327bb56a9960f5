"""``seer-ray pretrain`` with a stand-in for the job."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import pytest

from cli.conftest import one_error
from seer_ray.config.compose import compose, run_name, to_yaml
from seer_ray.config.errors import ConfigError, Interrupted, JobError
from seer_ray.config.training import PretrainConfig
from seer_ray.status.live import TrainLive, TrainSummary


class Job:
    config: PretrainConfig | None = None
    error: BaseException | None = None

    def main(self, config, reporter):
        self.config = config
        live = TrainLive(10)
        reporter.start(live)
        print("somebody prints")
        metrics = {"train/loss": 0.25, "train/lr": 0.001, "speed/tokens_per_s": 4000.0, "time/eta_s": 61.0}
        for news in (metrics, {"eval/20_steps/loss": 0.5}, {}):
            live.step, live.news = 5, news
            live.metrics |= news
            reporter.update(live)
        if self.error:
            raise self.error
        made = {"product": "runs/mine/model", "step": 10, "tokens": 5e3}
        summary = TrainSummary("mine", "runs/mine", **made, metrics=metrics, next_commands=["go on"])
        reporter.finish(summary)
        return summary


@pytest.fixture
def job(monkeypatch):
    stand_in = Job()
    module = types.ModuleType("seer_ray.jobs.pretrain")
    module.main = stand_in.main
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_in


def test_it_takes_overrides_and_shows_how_it_goes(invoke, job):
    result = invoke("pretrain", "train.lr=0.5", "architecture.layers=2")
    assert result.exit_code == 0
    expected = compose(["train.lr=0.5", "architecture.layers=2"], PretrainConfig)
    assert job.config == replace(expected, name=run_name(expected))
    assert "step 5/10 · loss 0.25 · lr 0.001 · 4,000 tokens/s · about 1:01 left" in result.stderr
    assert "step 5/10 · 20_steps/loss 0.5" in result.stderr
    assert "runs/mine/model: 10 steps, 5,000 tokens" in result.stdout and "next: go on" in result.stdout


def test_json_is_alone_on_stdout(invoke, job):
    result = invoke("pretrain", "--json")
    assert json.loads(result.stdout)["metrics"]["train/loss"] == 0.25
    assert "somebody prints" in result.stderr


def test_config_file_then_overrides(invoke, job, tmp_path):
    (tmp_path / "mine.yaml").write_text("train: {steps: 7, lr: 0.25}\n")
    assert invoke("pretrain", "--config", "mine.yaml", "train.lr=0.5").exit_code == 0
    assert (job.config.train.steps, job.config.train.lr) == (7, 0.5)
    assert job.config.train.batch_tokens == compose([], PretrainConfig).train.batch_tokens
    (tmp_path / "whole.yaml").write_text(to_yaml(job.config))
    before = job.config
    assert invoke("pretrain", "--config", "whole.yaml").exit_code == 0 and job.config == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train.lrr=1"], "train.lrr=1: no such option; did you mean train.lr?"),
        (["train.steps=many"], "train.steps=many: must be a whole number"),
        (["train.steps=0"], "train.steps=0: must be at least 1"),
        (["train.dtype=fp8"], "train.dtype=fp8: must be one of float32, bfloat16"),
        (["data.generator=poems"], "data.generator=poems: must be one of registers, program, lookup"),
        (["task=gsm8k"], "task=gsm8k: no such option"),
        (["cluster=moon"], "cluster=moon: no such choice"),
        (["name=a/b"], "name=a/b: must be a plain folder name"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(invoke, job, args, message):
    assert one_error(invoke("pretrain", *args)).startswith(message)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("data.end=2: no"), 2, "error: data.end=2: no\n"),
        (JobError("step 3: the loss is nan"), 1, "error: step 3: the loss is nan; what is finished is kept"),
        (Interrupted("interrupted"), 130, "interrupted; nothing is lost, go on with: seer-ray resume mine\n"),
    ],
)
def test_failures_have_their_exit_codes(invoke, job, error, code, message):
    job.error = error
    result = invoke("pretrain", "name=mine")
    assert result.exit_code == code
    assert result.stderr.splitlines(keepends=True)[-1].startswith(message)
