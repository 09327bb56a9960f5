"""A few kills at random moments; more by the script: see ``chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.chaos import Chaos


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, long: bool) -> None:
    chaos = Chaos(tmp_path, 30 if long else 4, seed=6)
    chaos.run()
    assert chaos.killed.total() == chaos.kills
