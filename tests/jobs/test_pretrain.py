"""The pretraining job, whole: Ray Train, folder, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from training.small import small

from seer_ray.config.errors import ConfigError, Interrupted, JobError
from seer_ray.config.options import RunConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.driver import train as jobs_training
from seer_ray.jobs import pretrain
from seer_ray.results.folder import RunFolder
from seer_ray.results.job import JobFolder
from seer_ray.status.live import NullReporter, TrainLive, TrainSummary
from seer_ray.status.read import read_status

# Long enough to be interrupted: the driver looks five times a second.
LONGER = ("train={steps: 100, log_every: 10, eval_every: 50, checkpoint_every: 50, batch_tokens: 400}",)
TIMES = ("speed/tokens_per_s", "time/eta_s")


pytestmark = pytest.mark.usefixtures("local_ray")


def config(folder: Path, name: str, *overrides: str) -> PretrainConfig:
    made = small("evaluation.answers=0", *LONGER, *overrides, name=name)
    made.results.folder = str(folder)
    return made


def curve(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


class InterruptAt(NullReporter):
    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, live: TrainLive) -> None:
        if self.step <= live.step:
            self.step = 10**9
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainSummary:
    """A job that ran undisturbed."""
    return pretrain.main(config(tmp_path_factory.mktemp("whole"), "job"))


def test_a_job_leaves_a_model_and_says_how_to_run_it(whole):
    assert whole.step == 100 and whole.tokens == whole.metrics["train/tokens"] > 100 * 300
    assert Path(whole.product, "model.safetensors").is_file()
    assert whole.next_commands == [f"seer-ray run model.name={whole.product} task=program selector=dense"]


@pytest.mark.slow
def test_interrupted_and_run_again_it_ends_as_if_undisturbed(whole, tmp_path):
    with pytest.raises(Interrupted, match=r"^interrupted at step \d+ of 100$"):
        pretrain.main(config(tmp_path, "job"), InterruptAt(2))
    assert not (tmp_path / "job" / "metrics.json").exists()
    status = read_status(str(tmp_path / "job"))
    assert (status.state, status.command, status.live.steps) == ("interrupted", "pretrain", 100)
    assert 2 <= status.live.step < 100
    again = pretrain.main(config(tmp_path, "job", "train.checkpoint_every=20"))
    assert curve(tmp_path / "job") == curve(Path(whole.folder))
    assert read_status(str(tmp_path / "job")).state == "done"
    product = Path(again.product, "model.safetensors").read_bytes()
    assert product == Path(whole.product, "model.safetensors").read_bytes()


def test_a_job_that_is_done_is_left_alone(whole, monkeypatch):
    folder = Path(whole.folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(jobs_training, "connected", None)
    again = pretrain.main(config(folder.parent, "job"))
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert again.metrics == whole.metrics and before.keys() == after.keys()
    assert {path.name for path in before if before[path] != after[path]} <= {".lock"}


def test_other_settings_and_other_folders_are_refused(whole, tmp_path):
    folder = Path(whole.folder)
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.5 here, 0\.01 in the folder"):
        pretrain.main(config(folder.parent, "job", "train.lr=0.5"))
    with pytest.raises(ConfigError, match=r"no run here"):
        RunFolder.view(str(folder))
    with pytest.raises(ConfigError, match=r"the folder of a job, not of a run; give the run another name"):
        RunFolder.open(str(folder), RunConfig(seed=0))
    with pytest.raises(ConfigError, match=r"made by seer-ray pretrain; give the job another name"):
        JobFolder.open(str(folder), DistillConfig(name="job"))
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match=r"not a job folder: it has config\.yaml"):
        pretrain.main(config(tmp_path, "job"))


@pytest.mark.long
def test_a_training_that_diverges_names_the_step(tmp_path):
    wild = config(tmp_path, "job", "train={lr: 1.0e+38, clip: null, warmup: 0}")
    with pytest.raises(JobError, match=r"^step \d: the (loss|gradient norm) is (nan|inf); lower train\.lr"):
        pretrain.main(wild)
    # No checkpoint, nothing to lose: corrected options begin anew.
    status = read_status(str(tmp_path / "job"))
    assert status.state == "failed" and "lower train.lr" in str(status.error)
    with JobFolder.open(str(tmp_path / "job"), config(tmp_path, "job")) as folder:
        assert folder.config["train"]["lr"] == 0.01


def test_what_does_not_go_together_is_told_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_training, "connected", None)
    with pytest.raises(ConfigError, match=r"^data\.end=100: such a problem has about"):
        pretrain.main(config(tmp_path, "job", "data.end=100"))
    assert not list(tmp_path.iterdir())


def test_what_a_worker_refuses_is_told_by_the_driver(tmp_path):
    with pytest.raises(ConfigError, match=r"^train\.betas=\[0\.9\]: must be two numbers"):
        pretrain.main(config(tmp_path, "job", "train.betas=[0.9]"))
