"""Summing up reads the columns that it needs, a part at a time: of 65 kB of a row of 8k tokens, 100 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from results.sample import CONFIG, row

from seer_ray.analysis import errors, metrics
from seer_ray.analysis.columns import Names, exact_sum
from seer_ray.analysis.comparison import compare
from seer_ray.analysis.rows import Rows
from seer_ray.results import ledger, schema, view
from seer_ray.results.folder import RunFolder


def test_texts_are_told_apart_without_being_kept() -> None:
    """Long ones by their digests, over all batches; null is no text."""
    names, long = Names(), "x" * 5000
    assert names.numbers(pa.array(["b", None, long, "b"])).tolist() == [0, -1, 1, 0]
    assert names.numbers(pa.array([long + "y", long, None, "b"])).tolist() == [2, 1, -1, 0]
    assert names.number("b") == 0 and names.number(long) == 1 and names.number("c") == -1
    assert max(map(len, names._numbers)) < 100
    assert names.numbers(pa.array([None], pa.string())).tolist() == [-1] and len(names) == 3
    whole = Names(whole=True)
    whole.numbers(pa.array([long, "b"]))
    assert whole.texts == [long, "b"]


def test_what_is_summed_up_holds_few_bytes_a_row() -> None:
    """Whatever their answers, errors and ids are."""
    rows = Rows(metrics.KEPT)
    many = [row(f"{n // 4}" + "i" * 500, n % 4, extracted_answer=f"{n}" + "a" * 3000) for n in range(400)]
    for batch in schema.table(many).select(metrics.COLUMNS).to_batches(64):
        rows.add(batch)
    assert sum(rows.all[name].nbytes for name in metrics.KEPT) < 150 * len(many)
    assert sorted(map(len, rows.problems())) == [4] * 100
    assert sum(len(key) for names in rows.all.names.values() for key in names._numbers) < 40 * len(many)


def test_sums_are_exact() -> None:
    values = [2**62, 2**62 - 1, -5, 2**40 + 1, -(2**62)] * 5
    assert exact_sum(np.array(values)) == sum(values) and exact_sum(np.zeros(0, bool)) == 0


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
