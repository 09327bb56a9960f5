"""``seer-ray submit``: options in, the job's exit code out."""

from __future__ import annotations

import pytest

from seer_ray.cluster import JobError, submit
from seer_ray.compose import compose, run_name
from seer_ray.config import RunConfig

from .conftest import one_error


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
