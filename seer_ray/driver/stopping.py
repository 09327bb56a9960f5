"""Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed: a job stops where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from seer_ray.config.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether somebody asked the job to stop. Raises at once, or sets ``asked`` while ``patient``.

    A second signal always raises, unless it is SIGHUP: kernel, shell and service manager send one each.
    """

    def __init__(self) -> None:
        self.asked = False
        self.patient = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the signals, also over from Ray, which sets a handler of its own. For the main thread;
        elsewhere signals stay whose they are."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Whoever started us may have had signals ignored, as shells do for background jobs.
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again and number == signal.SIGHUP:
            return
        if again or not self.patient:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")
