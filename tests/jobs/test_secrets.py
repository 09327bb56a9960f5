"""Secrets planted wherever a run takes them: none is in any file, in MLflow, or on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs.here import command, decode_here, make_inputs

from seer_ray.config import secrets
from seer_ray.driver import run as run_driver
from seer_ray.driver.session import Session

PASSWORD, KEY, TOKEN, STORED = "pw-hunter2-pw", "key-hunter3-key", "hf_hunter4hunter4hunter4", "aws/hunter5+x"
TRACKING = f"tracking.uri=http://me:{PASSWORD}@127.0.0.1:9"
ADDRESS = f"cluster.address=ray://me:{KEY}@127.0.0.1:9"
SECRETS = (PASSWORD, KEY, TOKEN, STORED, "hunter")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secrets, "_met", {})
    monkeypatch.setattr(secrets, "_values", set())
    monkeypatch.setattr("seer_ray.tracking.mlflow_tracker.SHORT_GRACE", 0.0)
    monkeypatch.setattr("seer_ray.tracking.mlflow_tracker.GRACE", 30.0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", STORED)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def scan(folder: Path, *said: str) -> None:
    """No file under a folder, none of the texts."""
    texts = {f"what was said, {number}": text.encode() for number, text in enumerate(said)}
    texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any("spool" in name for name in texts)
    found = [(name, secret) for name, text in texts.items() for secret in SECRETS if secret.encode() in text]
    assert not found


def test_of_a_run_that_ends_well(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its MLflow is a file, which is scanned too."""
    monkeypatch.setattr(run_driver, "_decode", decode_here(None, {}))
    done = command("run", *make_inputs(here, "ab"), ADDRESS, "--json")
    assert done.exit_code == 0, done.output
    assert (here / "mlflow.db").exists()
    status = command("status", "job", "--json")
    assert "***" in (here / "runs/job/config.yaml").read_text() and status.exit_code == 0
    scan(here, done.output, status.output, command("status", "job").output, caplog.text)


def test_of_a_run_that_fails_and_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: Session, build: object, checked: object) -> None:
        raise RuntimeError(f"refused: {PASSWORD}, {session.config.cluster.address}, {TOKEN}, {STORED}")

    monkeypatch.setattr(run_driver, "_decode", fail)
    options = [*make_inputs(here, "ab"), TRACKING, ADDRESS]
    failed = command("run", *options)
    assert failed.exit_code == 1 and "refused: ***, ray://***@127.0.0.1:9, ***, ***" in failed.stderr
    said = [failed.output, command("status", "job").output, command("status", "job", "--json").output]
    scan(here, *said, caplog.text)

    # Resuming without them is refused with the remedy; with them, on the command line or in the
    # environment, it is the same run.
    monkeypatch.setattr(run_driver, "_decode", decode_here(None, {}))
    monkeypatch.setattr(secrets, "_met", {})
    lacking = command("resume", "job", ADDRESS)
    assert lacking.exit_code == 2
    assert lacking.stderr.startswith("error: tracking.uri=http://***@127.0.0.1:9: its secret is not kept in")
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in lacking.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", TRACKING.partition("=")[2])
    resumed = command("resume", "job", ADDRESS)
    assert resumed.exit_code == 0, resumed.output
    again = command("run", *options)
    assert again.exit_code == 0, again.output
    scan(here, lacking.output, resumed.output, again.output, caplog.text)


@pytest.mark.parametrize(
    "words",
    [
        ("run", f"results.folder=nonsense://KEY:{KEY}@bucket/runs?secret_key={KEY}"),
        ("run", f"tracking.uri=ftp://me:{PASSWORD}@host"),
        ("run", f"model.name=https://me:{PASSWORD}@127.0.0.1:9/m?token={TOKEN}"),
        ("run", f"task.data=s3://{KEY}:{PASSWORD}@bucket/x?secret_key={KEY}"),
        ("run", f"seed=https://me:{PASSWORD}@host"),
        ("run", f"tracking.url=https://me:{PASSWORD}@host"),
        ("resume", f"s3://{KEY}:{PASSWORD}@/x"),
        ("status", f"nonsense://{KEY}:{PASSWORD}@bucket/x"),
        ("submit", f"tracking.uri=https://me:{PASSWORD}@host"),
        ("submit", f"results.folder=s3://{KEY}:{PASSWORD}@bucket/runs"),
        ("submit", "--address", f"http://me:{PASSWORD}@127.0.0.1:9"),
    ],
)
def test_of_a_command_that_is_refused(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_driver, "_decode", decode_here(None, {}))
    refused = command(*words)
    assert refused.exit_code == 2, refused.output
    assert "hunter" not in refused.output and refused.stderr.count("error: ") == 1, refused.output
