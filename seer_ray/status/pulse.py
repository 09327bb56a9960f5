"""``status.json``: who is at work, since when nothing was heard; one writer, one reader."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STATUS = "status.json"


HEARTBEAT = 5.0
"""Seconds between two writes of ``status.json``."""


class Heartbeat:
    """A thread that writes now and then, while the job's thread is busy.

    Args:
        write: Called every ``HEARTBEAT`` seconds, from now on; may raise OSError.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write, self._stop = write, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        while True:
            # A disk that is full for a moment is told of by who writes rows to it.
            with contextlib.suppress(OSError):
                self._write()
            if self._stop.wait(HEARTBEAT):
                return


def sign_of_life(state: str, error: str | None = None) -> dict[str, Any]:
    """What every ``status.json`` says: how it stands, and who says so when."""
    return {
        "state": state,
        "error": error,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "heartbeat": time.time(),
    }


STALE = 30.0
"""Seconds without a heartbeat after which a run that says it runs does not."""


@dataclass
class Pulse:
    """What a ``status.json`` says of who is at work."""

    state: str = "new"
    """``running``, ``done``, ``failed``, ``interrupted``, ``stopped early``, ``stopped`` (it says running,
    but nobody is there) or ``new`` (it has not come as far as to say anything)."""
    heartbeat_age_s: float | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None
    unsent: int = 0
    """Updates that MLflow has not been told, of a job at which nobody is."""

    def behind(self, folder: str) -> str | None:
        """What MLflow lacks, and what to do about it."""
        if not self.unsent:
            return None
        what = "1 update is" if self.unsent == 1 else f"{self.unsent:,} updates are"
        return f"{what} not in MLflow yet; to send: seer-ray resume {folder}"

    def describe(self, folder: str) -> str:
        """The state in words, with what to do about it."""
        resume = f"continue with: seer-ray resume {folder}"
        age = f", last heard of {self.heartbeat_age_s:.0f} s ago" if self.heartbeat_age_s is not None else ""
        where = f" (process {self.pid} on {self.host})" if self.pid else ""
        reason = f": {self.error}" if self.error else ""
        return {
            "new": f"not begun yet; {resume}",
            "running": f"running{where}",
            "done": "done",
            "failed": f"failed{reason}; {resume}",
            "interrupted": f"interrupted; {resume}",
            "stopped early": f"stopped early{reason}",
            "stopped": f"stopped without finishing{age}; {resume}",
        }.get(self.state, self.state)


def read_pulse(said: Any, now: float | None = None) -> Pulse:
    """Of the content of a ``status.json``; anything but a mapping: nobody has said anything yet."""
    if not isinstance(said, dict):
        return Pulse()
    pulse = Pulse(str(said.get("state", "running")))
    pulse.host, pulse.pid, pulse.error = said.get("host"), said.get("pid"), said.get("error")
    if isinstance(beat := said.get("heartbeat"), (int, float)):
        pulse.heartbeat_age_s = max(0.0, (time.time() if now is None else now) - beat)
    if pulse.state == "running" and (_stale(pulse) or _dead(pulse)):
        pulse.state = "stopped"
    return pulse


def _stale(status: Pulse) -> bool:
    return status.heartbeat_age_s is None or status.heartbeat_age_s > STALE


def _dead(status: Pulse) -> bool:
    """Whether its process was on this machine and is gone."""
    if status.host != socket.gethostname() or not isinstance(status.pid, int):
        return False
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
