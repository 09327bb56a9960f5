"""What is told of a worker that is gone, from what Ray says and from its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from seer_ray.cluster import deaths
from seer_ray.cluster.deaths import Coroner, Death, log_tail
from seer_ray.cluster.nodes import Node

KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Worker\n\tpid: 77\n"
    "\tip: 10.0.0.1\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)
VANISHED = "The actor died unexpectedly before finishing this task.\n\tclass_name: \n\tactor_id: 4f\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("loading\nFatal Python error: Aborted\n\nThread 0x1:\n", "Fatal Python error: Aborted"),
        ("Traceback:\ntorch.OutOfMemoryError: CUDA out\n", "torch.OutOfMemoryError: CUDA out"),
        ("a log\n*** SIGBUS received ***\n    @ 0x1 x\n", "*** SIGBUS received ***"),
        ("reads shard 3\n:task_name:work\n", "reads shard 3"),
        (":job_id:01\n[2026-12-01 11:57:33,214 I 7 7] core_worker.cc:1: Ray's own\n", None),
        ("", None),
    ],
)
def test_the_last_words_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, said: str | None
) -> None:
    (tmp_path / "worker-0123-01000000-77.err").write_text(log)
    (tmp_path / "worker-0123-01000000-177.err").write_text("ValueError: of another")
    monkeypatch.setattr(deaths, "logs_folder", lambda: tmp_path)
    monkeypatch.setattr(deaths, "alive_nodes", lambda: [])
    death = Coroner().examine(RuntimeError(KILLED), None)
    assert not death.node_gone
    if said is None:
        assert death == Death(
            "its process ended unexpectedly (killed from outside, out of memory, or crashed)"
        )
    else:
        assert death.reason == f"its process ended unexpectedly (its log ends with: {said})"
        assert death.words.startswith(f"{death.reason}; the last lines of its log: ")
        assert said in death.log and log_tail(78, tmp_path) == []


def test_a_long_log_is_told_of_by_its_end_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "worker-0-1-5.err"
    path.write_text("".join(f"line {n}\n" for n in range(20_000)) + "at s3://KEY:pass@host/x " + "x" * 900)
    lines = log_tail(5, tmp_path)
    assert lines[0] == f"line {20_000 - deaths.LINES + 1}" and len(lines) == deaths.LINES
    assert len(lines[-1]) <= deaths.LENGTH and "pass" not in lines[-1]


@pytest.mark.parametrize(
    ("nodes", "gone"),
    [
        ([], True),
        ([Node("a", "", {}, leaving=True)], True),
        ([Node("b", "", {})], True),
        ([Node("a", "", {})], False),
    ],
)
def test_a_worker_whose_node_is_gone_is_not_to_blame(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Node], gone: bool
) -> None:
    monkeypatch.setattr(deaths, "alive_nodes", lambda: nodes)
    assert Coroner().examine(RuntimeError(VANISHED), "a").node_gone is gone
