"""Why a worker is gone: what Ray says, and what its own log says last."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seer_ray.cluster.connect import logs_folder
from seer_ray.cluster.nodes import alive_nodes
from seer_ray.config.errors import first_line
from seer_ray.config.secrets import hidden

TAIL = 20_000
"""Bytes of a log that are looked at."""
LINES, LENGTH = 10, 200
"""Lines that are told of, and their characters, at most."""
FATAL = re.compile(r"Fatal Python error|\*\*\* SIG|what\(\):|\w(Error|Exception): |CUDA error|Bus error")
"""Is in the line of a log that says why a process ends."""
RAYS_OWN = re.compile(r":(job_id|actor_name|task_name):|\[\d{4}-\d\d-\d\d [\d:,]+ [A-Z] ")
"""Begins a line that Ray writes into a worker's log."""
SHOWN = 4
"""Of these lines, that the error of a job shows."""
ELSEWHERE, PAUSE = 10.0, 30.0
"""Seconds for the log of another node, and between two of them: deaths come in hundreds."""


@dataclass
class Death:
    """Of one worker."""

    reason: str
    """In one line."""
    node_gone: bool = False
    """Its node went, or is about to: nothing that it did is to blame."""
    log: list[str] = field(default_factory=list)
    """The last lines of its log."""

    @property
    def words(self) -> str:
        """The reason, with what the log says."""
        return with_log(self.reason, self.log)


def with_log(reason: str, log: Sequence[str]) -> str:
    """A reason and the last lines of a log as one line."""
    return f"{reason}; the last lines of its log: {' | '.join(log[-SHOWN:])}" if log else reason


class Coroner:
    """Finds out why workers died. For a process that is connected to Ray."""

    def __init__(self) -> None:
        self._asked = -PAUSE

    def examine(self, error: Exception, node: str | None) -> Death:
        """What an error of Ray says of a worker.

        Args:
            error: That its call ended with.
            node: Where it was, as far as that is known.
        """
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        if "low on memory" in text:
            return Death("Ray killed it because its node ran low on memory")
        if "creation task" in text:
            return Death(text.strip().splitlines()[-1].strip())
        if getattr(error, "preempted", False) or "exit type" not in text.lower():
            gone = node is None or all(other.id != node or other.leaving for other in alive_nodes())
            if gone:
                return Death("its node is gone", node_gone=True)
        process, place = re.search(r"\bpid: (\d+)", text), re.search(r"\bip: (\S+)", text)
        log = self._log(int(process[1]), place[1] if place else None) if process else []
        if "connection error code" in text:
            last = next((line for line in reversed(log) if FATAL.search(line)), log[-1] if log else None)
            why = f"its log ends with: {last}" if last else "killed from outside, out of memory, or crashed"
            return Death(f"its process ended unexpectedly ({why})", log=log)
        return Death(first_line(text), log=log)

    def _log(self, pid: int, address: str | None) -> list[str]:
        """Of a process of this machine, else of that with the address."""
        if found := log_tail(pid):
            return found
        node = next((node for node in alive_nodes() if node.address == address), None)
        if node is None or time.monotonic() - self._asked < PAUSE:
            return []
        self._asked = time.monotonic()
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        with contextlib.suppress(Exception):  # the death is what counts
            ask = ray.remote(log_tail).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            lines: list[str] = ray.get(ask.remote(pid), timeout=ELSEWHERE)
            return lines
        return []


def log_tail(pid: int, logs: Path | None = None) -> list[str]:
    """The last lines that a process of this machine wrote, and before them the last that says why a process
    ends; none: it wrote none here.

    Args:
        pid: Its id.
        logs: Folder of Ray's logs; None: of the Ray of this process.
    """
    folder = logs_folder() if logs is None else logs
    for end in ("err", "out"):
        for path in folder.glob(f"worker-*-{pid}.{end}"):
            with contextlib.suppress(OSError):
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - TAIL))
                    lines = file.read().decode(errors="replace").splitlines()
                said = [hidden(line.strip())[:LENGTH] for line in lines if line.strip()]
                if said := [line for line in said if not RAYS_OWN.match(line)]:
                    # What is fatal is told of before the stack that follows it.
                    fatal = [line for line in said[:-LINES] if FATAL.search(line)]
                    return fatal[-1:] + said[-LINES:]
    return []
