"""The thread that talks to MLflow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from seer_ray.tracking.sender import Sender

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two attempts to reach a server that does not answer."""


class Pump:
    """Sends, waits for more, and tries again when MLflow fails: a run, and those that are nested in it."""

    def __init__(self, senders: Iterable[Sender], on_failure: Callable[[Exception], None]) -> None:
        """
        Args:
            senders: one a run; one that others are nested in comes before them.
            on_failure: called with the first error of each time that MLflow is away.
        """
        self._senders, self.on_failure = list(senders), on_failure
        self.failing = False
        self._more, self._stop = threading.Event(), threading.Event()
        # Daemon: a server that hangs must not keep a finished job from ending.
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def add(self, sender: Sender) -> None:
        """Another run to send, after those that are there: the one that it is nested in is among them. Takes
        note of where to send, before there is anything to send. Raises OSError."""
        sender.begin()
        self._senders.append(sender)

    @property
    def unsent(self) -> int:
        """Updates that MLflow has not been told."""
        return sum(sender.spool.unsent() for sender in list(self._senders))

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is more to send."""
        self._more.set()

    def close(self, timeout: float) -> None:
        """Send what there is, for so many seconds at most, then stop."""
        self._stop.set()
        self._more.set()
        self._thread.join(timeout)

    def drain(self, patience: float) -> None:
        """Send what there is, however long it takes, then stop: unless MLflow fails, or so many seconds go
        by in which it takes nothing."""
        self._stop.set()
        self._more.set()
        before = None
        while self._thread.is_alive() and (now := self.unsent) != before:
            before = now
            self._thread.join(patience)

    def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            self._more.clear()
            last = self._stop.is_set()
            senders = list(self._senders)
            try:
                sends = True
                for sender in senders:
                    sends &= sender.send_all()
                self.failing = False
            except Exception as error:  # whatever MLflow and its drivers raise
                sends = False
                if not self.failing:
                    self.on_failure(error)
                self.failing = True
            if last:
                for sender in senders:
                    sender.spool.lock.release()
                return
            if sends:
                wait = FIRST_WAIT
                for sender in senders:
                    sender.spool.sync()
                self._more.wait()
            else:
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)
