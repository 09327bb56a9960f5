"""``status.json``: who is at work, since when nothing was heard; one writer, one reader."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.secrets import redacted
from seer_ray.results.base import Folder

STATUS = "status.json"
HEARTBEAT = 5.0
"""Seconds between two writes of it."""
STALE = 30.0
"""Seconds without a heartbeat after which a job that says it runs does not."""


class StatusFile:
    """The one writer of a folder's ``status.json``: how the job stands, who says so when, and what it says.

    Args:
        folder: open to write.
        say: the rest of the file's content, at any moment and from any thread.
    """

    def __init__(self, folder: Folder, say: Callable[[], Mapping[str, Any]] = dict) -> None:
        self.say = say
        self._folder, self._mutex = folder, threading.Lock()
        self._state, self._error = "running", None  # type: str, str | None

    def write(self) -> None:
        """Brings it up to date. From any thread. Raises OSError."""
        with self._mutex:
            who = {
                "state": self._state,
                "error": self._error,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "heartbeat": time.time(),
            }
            self._folder.write_json(STATUS, who | dict(self.say()))

    def end(self, state: str, error: str | None = None) -> None:
        """The last word. What cannot be written is not: readers then see a heart that has stopped."""
        self._state, self._error = state, error
        with contextlib.suppress(OSError):
            self.write()


@contextlib.contextmanager
def heartbeat(write: Callable[[], None]) -> Iterator[None]:
    """A thread that writes now and then, while the job's thread is busy.

    Args:
        write: called every ``HEARTBEAT`` seconds, from now on; may raise OSError.
    """
    stop = threading.Event()

    def beat() -> None:
        while True:
            # A disk that is full for a moment is told of by who writes rows to it.
            with contextlib.suppress(OSError):
                write()
            if stop.wait(HEARTBEAT):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass
class JobStatus:
    """A job's folder, read at one moment."""

    name: str = ""
    folder: str = ""
    """As the user wrote it."""
    command: str = ""
    """That made it, such as ``gates eval``."""
    state: str = "new"
    """``running``, ``done``, ``failed``, ``interrupted``, ``stopped early``, ``stopped`` (it says running,
    but nobody is there) or ``new`` (it has not come as far as to say anything)."""
    heartbeat_age_s: float | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None
    unsent: int = 0
    """Updates that MLflow has not been told, of a job at which nobody is."""
    live: Any = None
    """How far it is: see ``status.live``."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What it came to; of a job that trains, the last of every metric so far."""
    error_kinds: list[dict[str, Any]] = field(default_factory=list)
    """Of a run that has come to its end: see ``analysis.errors``."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """Of the same: see ``analysis.groups``."""
    index: list[dict[str, Any]] = field(default_factory=list)
    """Points of a sweep, as ``sweep.json`` has them."""
    partly: list[str] = field(default_factory=list)
    """Points that failed of a sweep that has come to its end."""
    resumable: bool = True
    """Whether ``seer-ray resume`` goes on with it; else the same command does."""

    def hear(self, said: Any, now: float | None = None) -> None:
        """Take over what a ``status.json`` says of who is at work; anything but a mapping: nobody has said
        anything yet.

        Args:
            said: its content.
            now: seconds since the epoch; None: the clock's.
        """
        if not isinstance(said, dict):
            return
        self.state = str(said.get("state", "running"))
        self.host, self.pid, self.error = said.get("host"), said.get("pid"), said.get("error")
        if isinstance(beat := said.get("heartbeat"), (int, float)):
            self.heartbeat_age_s = max(0.0, (time.time() if now is None else now) - beat)
        if self.state == "running" and (self._stale or self._dead):
            self.state = "stopped"

    @property
    def behind(self) -> str | None:
        """What MLflow lacks, and what to do about it."""
        if not self.unsent:
            return None
        what = "1 update is" if self.unsent == 1 else f"{self.unsent:,} updates are"
        return f"{what} not in MLflow yet; to send: seer-ray resume {redacted(self.folder)}"

    @property
    def message(self) -> str:
        """The state in words, with what to do about it."""
        again = (
            f"seer-ray resume {redacted(self.folder)}" if self.resumable else f"seer-ray {self.command} ..."
        )
        if self.partly:
            return f"done, but for {', '.join(self.partly)}; try again with: {again}"
        age = f", last heard of {self.heartbeat_age_s:.0f} s ago" if self.heartbeat_age_s is not None else ""
        where = f" (process {self.pid} on {self.host})" if self.pid else ""
        reason = f": {self.error}" if self.error else ""
        return {
            "new": f"not begun yet; continue with: {again}",
            "running": f"running{where}",
            "done": "done",
            "failed": f"failed{reason}; continue with: {again}",
            "interrupted": f"interrupted; continue with: {again}",
            "stopped early": f"stopped early{reason}",
            "stopped": f"stopped without finishing{age}; continue with: {again}",
        }.get(self.state, self.state)

    @property
    def _stale(self) -> bool:
        return self.heartbeat_age_s is None or self.heartbeat_age_s > STALE

    @property
    def _dead(self) -> bool:
        """Whether its process was on this machine and is gone."""
        if self.host != socket.gethostname() or not isinstance(self.pid, int):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False
