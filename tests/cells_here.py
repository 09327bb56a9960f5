"""Studies without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.config.errors import Interrupted
from seer_ray.study import frame


class Here:
    """In place of Ray: cells are done in this process, in another order, until somebody stops the job."""

    def __init__(self, stop: int | None = None) -> None:
        self.done: list[str] = []
        self.stop = stop

    def start(self, session: Any, most: int) -> Here:
        """In place of ``frame._Session._start``."""
        kind, config, contents = session.kind, session._config, session._contents
        place = f"runs/{session.frame.name}"
        self._do = frame._build(kind, config, place, contents, "cpu")
        return self

    def run(
        self,
        tasks: list[Any],
        labels: list[str],
        done: Callable[..., None],
        tick: Callable[[], None],
    ) -> None:
        """In place of ``TaskPool.run``."""
        for number, task in enumerate(reversed(tasks)):
            if len(self.done) == self.stop:
                raise Interrupted("by the test")
            self.done.append(task.id)
            done(len(tasks) - 1 - number, self._do(task), 1.0)


def typist(folder: Path, monkeypatch: pytest.MonkeyPatch, *first: str) -> Callable[..., Result]:
    """Types commands in a folder, that begin with some words; ``here``: does their cells."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "170")

    def typed(*words: str, here: Here | None = None) -> Result:
        pool = here or Here()
        monkeypatch.setattr(frame._Session, "_start", lambda session, most: pool.start(session, most))
        return CliRunner().invoke(app, [*first, *words])

    return typed
