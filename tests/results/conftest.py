import os

import pytest


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and those that pretend to (``faults``) keep their own account."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
