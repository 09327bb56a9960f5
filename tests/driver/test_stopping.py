"""Which signals stop a job, and how often they must come."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from seer_ray.config.errors import Interrupted
from seer_ray.driver.stopping import SIGNALS, StopRequest


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_or_is_noted(number: signal.Signals) -> None:
    stop = StopRequest()
    with stop.listening(), pytest.raises(Interrupted, match=f"stopped by {number.name}"):
        os.kill(os.getpid(), number)
    patient = StopRequest()
    patient.patient = True
    with patient.listening():
        os.kill(os.getpid(), number)
        assert patient.asked


def test_no_library_takes_a_signal_for_its_own_failure() -> None:
    """As transformers does, which tells whatever is raised in an import of its own as a missing module."""
    with StopRequest().listening(), pytest.raises(Interrupted):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise ModuleNotFoundError("a part of a library") from error


@pytest.mark.parametrize(
    ("numbers", "raises"),
    [
        ((signal.SIGHUP, signal.SIGHUP), False),
        ((signal.SIGTERM, signal.SIGHUP), False),
        ((signal.SIGHUP, signal.SIGINT), True),
        ((signal.SIGHUP, signal.SIGTERM), True),
        ((signal.SIGINT, signal.SIGINT), True),
    ],
)
def test_a_second_signal(numbers: Sequence[signal.Signals], raises: bool) -> None:
    stop = StopRequest()
    stop.patient = True
    with stop.listening():
        os.kill(os.getpid(), numbers[0])
        if not raises:
            os.kill(os.getpid(), numbers[1])
            return
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), numbers[1])


def test_what_is_ignored_stays_ignored() -> None:
    """As ``nohup`` does it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
