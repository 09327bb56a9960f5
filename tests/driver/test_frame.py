"""The frame of every job, without Ray and without a model."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seer_ray.config.errors import ConfigError, FolderGone, Interrupted, NotWritten
from seer_ray.config.options import ResultsConfig, RunConfig, TrackingConfig
from seer_ray.driver.frame import Frame, framed, params_of
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import JobSummary
from seer_ray.tracking.tracker import NullTracker


@dataclass
class Told(NullTracker):
    """A tracker that notes how a job ended."""

    ended: str | None = None
    place: tuple[Any, Any] = (None, None)

    def finish(self, status: str = "FINISHED") -> None:
        self.ended = status


def make(tmp_path: Path) -> RunConfig:
    off = TrackingConfig(enabled=False)
    return RunConfig(name="job", results=ResultsConfig(folder=str(tmp_path)), tracking=off)


def said(tmp_path: Path) -> dict[str, object]:
    found = json.loads((tmp_path / "job" / "status.json").read_text())
    return {name: found[name] for name in ("state", "error")}


@pytest.mark.parametrize(
    ("error", "state", "reason", "tracked"),
    [
        (None, "done", None, "FINISHED"),
        (Interrupted("stopped by SIGINT"), "interrupted", None, "KILLED"),
        (ValueError("no\n  room"), "failed", "no room", "FAILED"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt", "FAILED"),
    ],
)
def test_how_a_body_ends_is_the_last_word(
    tmp_path: Path, error: BaseException | None, state: str, reason: str | None, tracked: str
) -> None:
    def body(frame: Frame[RunConfig, RunFolder]) -> None:
        with frame.working():
            if error is not None:
                raise error

    with framed(make(tmp_path), RunFolder) as frame:
        frame.tracker = told = Told()
        frame.begin()
        if error is None:
            body(frame)
        else:
            with pytest.raises(type(error)):
                body(frame)
        assert (frame.state, told.ended) == (state, tracked)
    assert said(tmp_path) == {"state": state, "error": reason}


def test_a_body_may_say_itself_how_it_ended(tmp_path: Path) -> None:
    with framed(make(tmp_path), RunFolder) as frame, frame.working():
        frame.end("stopped early", "enough is known")
    assert said(tmp_path) == {"state": "stopped early", "error": "enough is known"}


def test_what_was_not_begun_is_not_tracked(tmp_path: Path) -> None:
    with framed(make(tmp_path), RunFolder) as frame:
        frame.tracker = told = Told()
        with frame.working():
            pass
    assert told.ended is None


def test_the_folder_is_held_and_then_free(tmp_path: Path) -> None:
    with framed(make(tmp_path), RunFolder), pytest.raises(ConfigError, match="in use by"):
        RunFolder.open(str(tmp_path / "job"), make(tmp_path))
    RunFolder.open(str(tmp_path / "job"), make(tmp_path)).close()


def test_a_bad_option_leaves_no_folder(tmp_path: Path) -> None:
    config = make(tmp_path)
    config.samples = 0
    with pytest.raises(ConfigError, match="samples=0"), framed(config, RunFolder):
        raise AssertionError("refused before")
    assert not list(tmp_path.iterdir())


def test_parameters_have_no_secrets() -> None:
    config = RunConfig(name="x")
    config.tracking.uri = "https://me:hunter2@host/mlflow"
    config.results.folder = "s3://key:hunter2@bucket/runs?secret_key=hunter2"
    params = params_of(config)
    assert "hunter2" not in json.dumps(params)
    assert (params["tracking.uri"], params["results.folder"]) == ("https://host/mlflow", "s3://bucket/runs")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_disk_that_refuses_is_no_bug(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(NotWritten, match=r"job: cannot be written: "),
        framed(make(tmp_path), RunFolder) as frame,
        frame.working(),
    ):
        raise OSError(number, os.strerror(number), "metrics.json")
    assert said(tmp_path)["state"] == "failed"


def test_a_folder_that_is_deleted_while_the_job_writes(tmp_path: Path) -> None:
    with pytest.raises(FolderGone, match="the folder is gone"), framed(make(tmp_path), RunFolder) as frame:
        shutil.rmtree(tmp_path / "job")
        frame.folder.write_json("metrics.json", {})


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), framed(make(tmp_path), RunFolder):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("place", [(None, None), ("http://mlflow:5000", "0123")])
def test_only_who_was_told_is_named(tmp_path: Path, place: tuple[Any, Any]) -> None:
    shown: list[JobSummary] = []
    with framed(make(tmp_path), RunFolder) as frame:
        frame.tracker = told = Told()
        told.place = place
        frame.reporter.finish = shown.append  # type: ignore[method-assign]
        frame.finish(JobSummary("job", "folder", tracking_uri="http://nobody"))
    assert (shown[0].tracking_uri, shown[0].tracking_run_id) == place


def test_a_refused_job_leaves_no_folder(tmp_path: Path) -> None:
    config = make(tmp_path / "runs")

    def refuse(*files: str) -> None:
        with pytest.raises(ConfigError, match="no such model"), framed(config, RunFolder) as frame:
            for name in files:
                frame.folder.store.write(name, b"{}")
            frame.folder.write_json("status.json", {})
            raise ConfigError("no such model")

    refuse()
    assert not (tmp_path / "runs" / "job").exists()
    refuse("mine.txt")
    assert (tmp_path / "runs" / "job" / "mine.txt").exists(), "files of others stay, and so the folder"
    (tmp_path / "runs" / "job" / "mine.txt").unlink()
    refuse()
    assert (tmp_path / "runs" / "job").exists(), "it was there before"
