"""Gate sets that are named on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from seer_ray.cli import gates
from seer_ray.cli.app import app


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that a command runs its job with."""

    def options(*words: str) -> Any:
        given: list[Any] = []
        monkeypatch.setattr(gates, "begin", lambda config, *_: given.append(config))
        result = CliRunner().invoke(app, ["gates", *words])
        assert result.exit_code == 0, result.output
        return given[0]

    return options


def test_each_gate_set_has_a_folder_of_its_own(configured: Any) -> None:
    one, other = (configured("eval", source, "data=x") for source in ("runs/a/gates", "it's b (2)"))
    assert (one.sets, other.sets) == (["runs/a/gates"], ["it's b (2)"])
    assert one.name != other.name
    assert configured("eval", "data=x").sets is None
    one, other = (configured("shares", source, "data=x") for source in ("runs/a/gates", "12e5"))
    assert (one.model.gates, other.model.gates) == ("runs/a/gates", "12e5")
    assert one.name != other.name
