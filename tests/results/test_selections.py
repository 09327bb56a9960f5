"""Recorded selections beside the rows: there with the row or not at all, whole, and once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from results.sample import CONFIG, RUN, append, row

from seer_ray.config.errors import ConfigError
from seer_ray.engine.request import Counters
from seer_ray.engine.trace import Trace, TraceEncoder
from seer_ray.results.folder import RunFolder
from seer_ray.results.progress import ProgressLog
from seer_ray.results.selections import Recording
from seer_ray.results.store import LocalStore


def recording(steps: list[bytes]) -> Recording:
    return Recording(
        Trace(9, steps), ["a"] * 9, ["</script>", "\ud800é"] * (len(steps) // 2) + ["x"] * (len(steps) % 2)
    )


def entries(count: int, seed: int = 0) -> list[bytes]:
    noise, encoder = np.random.default_rng(seed), TraceEncoder(4)
    return [encoder.add(noise.random((3, 2, 2)) < 0.5) for _ in range(count)]


def test_a_selection_is_there_with_its_row(tmp_path: Path) -> None:
    key, other = ("../../etc/passwd\n", 1), ("p", 0)
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("p")])
        assert folder.recorded() == []
        folder.write_selection(key, recording(entries(2, seed=1)))  # a crash comes before the commit
        assert folder.recorded() == []
        folder.write_selection(key, recording(entries(3)))
        folder.commit([row(key[0], key[1]), row("q")])
    seen = RunFolder.view(str(tmp_path / "run"))
    assert seen.recorded() == [key]
    found = seen.read_selection(key)
    assert (found.prompt, found.tokens) == (["a"] * 9, ["</script>", "?é", "x"])
    trace = found.trace
    assert (trace.prompt_tokens, trace.shape, list(trace.entries)) == (9, (2, 2, 4), entries(3))
    with pytest.raises(ConfigError, match="cannot be read"):
        seen.read_selection(other)
    assert {p.parent.name for p in tmp_path.rglob("*.parquet")} == {"completions", "selections"}


def test_a_torn_file_is_named_and_half_files_go(tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path), CONFIG) as folder:
        folder.write_selection(("p", 0), recording(entries(40)))
        folder.commit([row("p")])
    (file,) = (tmp_path / "selections").iterdir()
    half = file.with_name(f".{file.name}.0123abcd.tmp")
    half.write_bytes(b"PAR1")
    file.write_bytes(file.read_bytes()[:-50])
    with RunFolder.open(str(tmp_path), CONFIG) as folder:
        assert not half.exists()
        with pytest.raises(ConfigError, match=r"selections/.*cannot be read.*the row is whole without it"):
            folder.read_selection(("p", 0))


def test_the_progress_log_keeps_traces_beside_tokens(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.make_folder("progress")
    log, trace = ProgressLog(store, RUN), entries(6)
    append(log, "p/0", [1, 2], Counters(attended_kv=7, attended_layers=(3, 4)), 1, trace=trace[:2])
    append(log, "q/0", [5, 6], Counters(), 1)
    log.flush()
    append(log, "p/0", [3, 4], Counters(attended_kv=9, attended_layers=(4, 5)), 1, trace=trace[2:4])
    append(log, "q/0", [7], Counters(), 1, trace=trace[:1])  # recorded from here on
    log.flush()
    again = ProgressLog(store, RUN)
    assert again.chains["p/0"].trace == trace[:4]
    assert again.chains["q/0"].trace == [b"", b"", trace[0]]
    assert again.chains["p/0"].counters.attended_layers == (4, 5)

    append(again, "p/0", [9], Counters(), 2, offset=3, trace=trace[5:])  # another worker went on from there
    again.flush()
    assert ProgressLog(store, RUN).chains["p/0"].trace == [*trace[:3], trace[5]]
    append(again, "p/0", [8], Counters(), 2, offset=1)
    again.flush()
    assert ProgressLog(store, RUN).chains["p/0"].trace == trace[:1]


def test_columns_that_older_parts_lack_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seer_ray.results import schema

    now = schema.COLUMNS
    with monkeypatch.context() as patch:
        patch.setattr(schema, "COLUMNS", tuple(c for c in now if c.name != "attended_kv_layers"))
        patch.setattr(schema, "NAMES", tuple(c.name for c in schema.COLUMNS))
        with RunFolder.open(str(tmp_path), CONFIG) as folder:
            folder.commit([row("old")])
    with RunFolder.open(str(tmp_path), CONFIG) as folder:
        assert folder.read(["attended_kv_layers"]).to_pylist() == [{"attended_kv_layers": None}]
        folder.commit([row("new", attended_kv_layers=[10, 20])])
        assert folder.read()["attended_kv_layers"].to_pylist() == [None, [10, 20]]
