from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results.sample import RUN, append

from seer_ray.engine.request import Counters, Progress
from seer_ray.results import progress
from seer_ray.results.chain import decode
from seer_ray.results.progress import ProgressLog
from seer_ray.results.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = open_store(str(tmp_path))
    found.make_folder("progress")
    return found


def segments(store: Store) -> list[Path]:
    assert store.path is not None
    return sorted((store.path / "progress").iterdir())


def tokens(log: ProgressLog) -> dict[str, tuple[int, ...]]:
    return {name: found.tokens for name, (found, _) in known(log).items()}


def known(log: ProgressLog) -> dict[str, tuple[Progress, int]]:
    return {id: (chain.progress, chain.attempts) for id, chain in log.chains.items()}


def test_a_chain_comes_back_with_its_counters(store: Store) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1, 2], Counters(attended_kv=1), 1)
    append(log, "p/0", [3], Counters(2, 3, 0.5, 0.25, 1.5, (), 0.375, (2, 1), (1, 1), 1), 1)
    append(log, "q/0", [], Counters(), 2)
    log.flush()
    expected = {
        "p/0": (Progress((1, 2, 3), Counters(2, 3, 0.5, 0.25, 1.5, (), 0.375, (2, 1), (1, 1), 1)), 1),
        "q/0": (Progress(), 2),
    }
    assert known(log) == known(ProgressLog(store, RUN)) == expected


def test_log_probabilities_come_back_with_their_tokens(store: Store) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1, 2, 3], Counters(), 1, logprobs=[b"a", b"b", b"c"])
    log.flush()
    append(log, "p/0", [4], Counters(), 2, offset=2, logprobs=[b"d"])
    log.flush()
    expected = {"p/0": (Progress((1, 2, 4), logprobs=(b"a", b"b", b"d")), 2)}
    assert known(log) == known(ProgressLog(store, RUN)) == expected


def test_only_what_is_flushed_is_there(store: Store) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1], Counters(), 1)
    assert known(ProgressLog(store, RUN)) == {}
    log.flush()
    append(log, "p/0", [2], Counters(), 1)
    assert tokens(log) == {"p/0": (1, 2)}
    assert tokens(ProgressLog(store, RUN)) == {"p/0": (1,)}


def test_a_segment_holds_what_is_new(store: Store) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", list(range(1000)), Counters(), 1)
    append(log, "q/0", [5], Counters(), 1)
    log.flush()
    append(log, "p/0", [7, 8], Counters(), 1)
    log.flush()
    log.flush()
    first, second = segments(store)
    (record,) = decode(second.read_bytes(), RUN)
    assert (record.request_id, record.offset, list(record.tokens)) == ("p/0", 1000, [7, 8])
    assert len(decode(first.read_bytes(), RUN)) == 2


def test_a_chain_begun_again_overwrites_its_tail(store: Store) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1, 2, 3, 4], Counters(), 1)
    log.flush()
    append(log, "p/0", [9], Counters(), 2, offset=2)
    assert tokens(log) == {"p/0": (1, 2, 9)}
    log.flush()
    assert known(ProgressLog(store, RUN))["p/0"] == (Progress((1, 2, 9)), 2)


def test_forgotten_chains_leave_the_disk(store: Store) -> None:
    log = ProgressLog(store, RUN)
    for i in range(3):
        append(log, "long", [i], Counters(), 1)
        append(log, f"short/{i}", [i], Counters(), 1)
        log.flush()
    append(log, "short/3", [3], Counters(), 1)
    log.flush()
    log.forget(["short/3", "unknown"])
    log.flush()
    assert len(segments(store)) == 3
    log.forget(["long", "short/0", "short/1"])
    log.flush()
    assert len(segments(store)) == 1
    done = {"long", "short/0", "short/1", "short/3"}
    assert tokens(ProgressLog(store, RUN, done)) == {"short/2": (2,)}
    ProgressLog(store, RUN, {*done, "short/2"}).flush()
    assert segments(store) == []


def test_the_folder_stays_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long chain keeps no more than a few times its own tokens and a bounded number of files."""
    monkeypatch.setattr(progress, "MAX_SEGMENTS", 20)
    monkeypatch.setattr(progress, "SLACK_TOKENS", 100)
    log = ProgressLog(store, RUN)
    for i in range(60):
        append(log, "long", [i], Counters(), 1)
        append(log, f"short/{i}", range(50), Counters(), 1)
        log.flush()
        log.forget([f"short/{i}"])
        files = segments(store)
        stored = sum(len(r.tokens) for file in files for r in decode(file.read_bytes(), RUN))
        assert len(files) <= 20
        assert stored <= 2 * (i + 1 + 50) + 100 + 51
    done = {f"short/{i}" for i in range(60)}
    assert tokens(ProgressLog(store, RUN, done)) == {"long": tuple(range(60))}


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])


@pytest.mark.parametrize("how", ["gone", "cut", "empty", "flipped"])
def test_a_lost_segment_ends_the_chain_before_it(
    store: Store, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = ProgressLog(store, RUN)
    for i in range(3):
        append(log, "p/0", [i, i], Counters(attended_kv=i + 1), i + 1)
        if i != 1:
            append(log, "q/0", [i], Counters(), 1)
        log.flush()
    damage(segments(store)[1], how)
    with caplog.at_level(logging.WARNING):
        log = ProgressLog(store, RUN)
    assert known(log) == {"p/0": (Progress((0, 0), Counters(attended_kv=1)), 3), "q/0": (Progress((0, 2)), 1)}
    assert len(caplog.records) == 1 and "1 chains go on from their last whole piece" in caplog.text
    append(log, "p/0", [8], Counters(), 1)
    log.flush()
    caplog.clear()
    assert tokens(ProgressLog(store, RUN)) == {"p/0": (0, 0, 8), "q/0": (0, 2)}
    assert not caplog.records


def test_a_lost_restart_does_not_mix_two_chains(store: Store) -> None:
    """The segment that said 'again from token 1' is torn: what follows does not belong to the old tokens,
    although its offset fits."""
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1, 2, 3], Counters(), 1)
    log.flush()
    append(log, "p/0", [8], Counters(), 2, offset=1)
    log.flush()
    append(log, "p/0", [9], Counters(), 2)
    log.flush()
    damage(segments(store)[1], "cut")
    assert tokens(ProgressLog(store, RUN)) == {"p/0": (1, 2, 3)}


def test_what_failed_is_flushed_the_next_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ProgressLog(store, RUN)
    append(log, "p/0", [1], Counters(), 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.flush()
    append(log, "p/0", [2], Counters(), 1)
    log.flush()
    assert tokens(ProgressLog(store, RUN)) == {"p/0": (1, 2)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return (tmp_path_factory.mktemp("log") for _ in iter(int, 1))  # type: ignore[return-value]


STEP = st.one_of(
    st.tuples(
        st.just("append"), st.sampled_from("abc"), st.floats(0, 1), st.lists(st.integers(0, 3), max_size=4)
    ),
    st.tuples(st.just("flush")),
    st.tuples(st.just("forget"), st.sampled_from("abc")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("damage"), st.floats(0, 0.999), st.sampled_from(["gone", "cut", "flipped"])),
)


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(STEP, max_size=25))
def test_any_history_gives_true_prefixes(
    folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch, history: list[tuple]
) -> None:
    """What a restart finds of a chain is what was flushed last; after damage, a beginning of some state that
    the chain once had."""
    monkeypatch.setattr(progress, "MAX_SEGMENTS", 4)
    monkeypatch.setattr(progress, "SLACK_TOKENS", 10)
    monkeypatch.setattr(logging.getLogger(progress.__name__), "disabled", True)
    store = open_store(str(next(folders)))
    store.make_folder("progress")
    log = ProgressLog(store, RUN)
    once: dict[str, list[tuple[int, ...]]] = {name: [()] for name in "abc"}
    flushed: dict[str, tuple[int, ...]] = {}
    done: set[str] = set()
    damaged = False
    for step in [*history, ("restart",)]:
        match step:
            case ("append", name, where, new) if name not in done:
                offset = round(where * len(tokens(log).get(name, ())))
                append(log, name, new, Counters(), 1, offset)
                once[name].append(tokens(log)[name])
            case ("flush",):
                log.flush()
                flushed = tokens(log)
            case ("forget", name):
                log.forget([name])
                done.add(name)
                flushed.pop(name, None)
            case ("damage", which, how):
                if files := segments(store):
                    damage(files[int(which * len(files))], how)
                    damaged = True
            case ("restart",):
                log = ProgressLog(store, RUN, done)
                found = tokens(log)
                if not damaged:
                    assert found == flushed
                for name, chain in found.items():
                    assert any(state[: len(chain)] == chain for state in once[name])
                flushed, damaged = found, False


def test_a_segment_of_another_run_is_not_believed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    log = ProgressLog(store, "another")
    append(log, "p/0", [1, 2], Counters(), 1)
    log.flush()
    with caplog.at_level(logging.WARNING):
        assert tokens(ProgressLog(store, RUN)) == {}
    assert "1 segments torn or of another run" in caplog.text
