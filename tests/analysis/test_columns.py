"""Summing up reads the columns that it needs, a part at a time: of 65 kB of a row of 8k tokens, 100 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results.sample import CONFIG, row

from seer_ray.analysis import errors, metrics
from seer_ray.analysis.comparison import compare
from seer_ray.results import ledger, view
from seer_ray.results.folder import RunFolder

LARGE = {"prompt", "completion", "reasoning", "answer", "token_ids", "logprobs", "asked"}


def test_no_text_and_no_token_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        for problem in "abc":
            folder.commit([row(problem)])
    asked: list[tuple[str, set[str]]] = []
    real = view.read_part

    def read_part(store: Any, part: Any, columns: list[str] | None) -> Any:
        assert columns is not None
        asked.append((part.stem, set(columns)))
        return real(store, part, columns)

    monkeypatch.setattr(view, "read_part", read_part)
    whole = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", lambda *_: pytest.fail("the whole run at once"))
    run = RunFolder.view(str(tmp_path / "run"))
    stream = run.stream(metrics.COLUMNS)
    assert asked == [], "nothing is read before it is asked for"
    stream.read_next_batch()
    assert len({stem for stem, _ in asked}) <= 2, "a part at a time"
    metrics.summarise(run.stream(metrics.COLUMNS))
    errors.error_kinds(run.stream(errors.COLUMNS))
    monkeypatch.setattr(RunFolder, "read", whole)
    compare([str(tmp_path / "run")])
    assert asked and not [columns & LARGE for _, columns in asked if columns & LARGE]
