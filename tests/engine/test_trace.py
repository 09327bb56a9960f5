"""What recorded requests say of the blocks that their steps attended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines import SELECTORS, kv_memory, make_engine, request, run, tokens
from hypothesis import given
from hypothesis import strategies as st

from seer_ray.engine import Counters, Engine, Progress, Request
from seer_ray.engine.trace import Trace, TraceEncoder

BLOCK = 16


def record(engine: Engine, requests: list[Request]) -> dict[str, tuple[list[int], list[bytes], Progress]]:
    """(tokens, trace, last counters) of each request."""
    found: dict[str, tuple[list[int], list[bytes], Progress]] = {}
    for item in requests:
        engine.submit(item)
        found[item.id] = ([], [], Counters())
    for delta in engine.stream():
        made, trace, _ = found[delta.request_id]
        assert delta.counters is not None
        found[delta.request_id] = (made + delta.tokens, trace + delta.trace, delta.counters)
    return found


def recorded(id: str, length: int, new: int = 20) -> Request:
    return replace(request(id, tokens(length, seed=length), new), record=True)


def tokens_of(trace: Trace) -> np.ndarray:
    """KV tokens read by layer, from the blocks: the open block is read up to the current token."""
    total = np.zeros(trace.shape[0], int)
    for step, seen in enumerate(trace.steps()):
        assert seen is not None
        length = trace.prompt_tokens + step
        size = np.minimum(BLOCK, length - BLOCK * np.arange(len(seen)))
        total += (seen * size[:, None, None]).sum((0, 2))
    return total


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_trace_holds_what_was_counted_and_changes_nothing(selector: str) -> None:
    lengths = {"a/0": 5, "b/0": 70, "c/0": 130}
    engine = make_engine(selector=selector, budget=3 * BLOCK, layers={"0": "dense"})
    plain = run(
        make_engine(selector=selector, budget=3 * BLOCK, layers={"0": "dense"}),
        [replace(recorded(id, length), record=False) for id, length in lengths.items()],
    )
    found = record(engine, [recorded(id, length) for id, length in lengths.items()])
    for id, (made, entries, counters) in found.items():
        assert made == plain[id].tokens
        assert (counters.attended_kv, counters.attended_layers) == (
            plain[id].counters.attended_kv,
            plain[id].counters.attended_layers,
        )
        trace = Trace(lengths[id], entries)
        assert trace.shape == (2, 2, BLOCK)
        assert trace.recorded == len(made) == len(entries)
        assert tuple(tokens_of(trace)) == counters.attended_layers
        assert sum(counters.attended_layers) == counters.attended_kv
        for seen in trace.steps():
            assert seen is not None
            assert seen[:, 0].all(), "a dense layer reads everything"
            assert seen[-1].all() and seen[0].all(), "the open block and the sink"
            assert selector == "dense" or (seen[:, 1].sum(0) <= 3).all()


def test_a_window_reads_what_a_window_reads() -> None:
    found = record(make_engine(selector="window", budget=3 * BLOCK), [recorded("a/0", 100)])
    for step, seen in enumerate(Trace(100, found["a/0"][1]).steps()):
        assert seen is not None
        last = (99 + step) // BLOCK
        expected = np.isin(np.arange(last + 1), [0, last - 1, last])
        assert (seen == expected[:, None, None]).all()


def test_only_those_who_ask_are_recorded() -> None:
    found = record(
        make_engine(selector="quest", budget=32), [recorded("a/0", 50), request("b/0", tokens(50))]
    )
    assert len(found["a/0"][1]) == 20
    assert found["b/0"][1] == []


def test_preempted_and_shared_pages_do_not_confuse_it() -> None:
    """Chains that lose their pages get others; samples of one prompt share pages."""
    roomy = make_engine(selector="quest", budget=48, exact=True)
    items = [replace(recorded(f"a/{n}", 60, 60), sampling=recorded("a/0", 60, 60).sampling) for n in range(4)]
    expected = record(roomy, items)
    tight = make_engine(selector="quest", budget=48, exact=True, kv_memory=kv_memory(roomy, 14))
    found = record(tight, items)
    assert tight.stats()["preemptions"] > 0
    for id in found:
        assert found[id][0] == expected[id][0]
        for ours, theirs in zip(
            Trace(60, found[id][1]).steps(), Trace(60, expected[id][1]).steps(), strict=True
        ):
            assert (ours == theirs).all()


@pytest.mark.parametrize("exact", [True, False])
def test_a_continued_chain_goes_on(exact: bool) -> None:
    whole = record(make_engine(selector="quest", budget=48, exact=exact), [recorded("a/0", 100, 30)])["a/0"]
    begun = replace(recorded("a/0", 100, 30), progress=Progress(tuple(whole[0][:11])))
    rest = record(make_engine(selector="quest", budget=48, exact=exact), [begun])["a/0"]
    assert len(rest[1]) == 19
    together = Trace(100, [*whole[1][:11], *rest[1]])
    assert together.recorded == 30
    if exact:
        for ours, theirs in zip(together.steps(), Trace(100, whole[1]).steps(), strict=True):
            assert (ours == theirs).all()


def test_counts_by_layer_are_unknown_after_a_part_that_did_not_count_them() -> None:
    item = replace(request("a/0", tokens(30), 5), progress=Progress((1, 2), Counters(attended_kv=100)))
    engine = make_engine()
    done = run(engine, [item])["a/0"]
    assert done.counters.attended_layers == ()
    assert done.counters.attended_kv > 100


@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 40))
def test_any_bitmaps_survive(data: st.DataObject, layers: int, heads: int, prompt: int) -> None:
    steps = data.draw(st.integers(1, 12))
    noise = np.random.default_rng(data.draw(st.integers(0, 100)))
    encoder, maps, entries = TraceEncoder(4), [], []
    for step in range(steps):
        if data.draw(st.booleans()) and step:
            encoder = TraceEncoder(4)  # another engine
        if data.draw(st.integers(0, 4)) == 0 and step:
            maps.append(None)
            entries.append(b"")
            continue
        maps.append(noise.random(((prompt - 1 + step) // 4 + 1, layers, heads)) < 0.4)
        entries.append(encoder.add(maps[-1]))
    trace = Trace(prompt, entries)
    for seen, expected in zip(trace.steps(), maps, strict=True):
        assert (seen is None) == (expected is None)
        if expected is not None:
            assert seen is not None and (seen == expected).all()


def test_torn_traces_are_refused() -> None:
    with pytest.raises(ValueError, match="without its first entry"):
        Trace(3, [b"", b"\0abc"])
    first = TraceEncoder(4).add(np.ones((1, 1, 1), bool))
    with pytest.raises(ValueError, match="step 1 of a trace is torn"):
        list(Trace(1, [first, b"\0nonsense"]).steps())
