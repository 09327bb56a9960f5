"""Continuous batching: what comes and goes while others decode, and what cannot run at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engines import TinyModel, eager, kv_memory, make_engine, outcome, request, run, tiny_model, tokens

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig
from seer_ray.engine import Completion, Counters, Delta, Engine, Progress


def drain(engine: Engine) -> dict[str, Completion]:
    return {completion.request.id: completion for completion in engine.run()}


def test_requests_may_come_at_any_time() -> None:
    requests = [request(f"r{n}/0", tokens(5 + 9 * n, seed=n), 10 + 3 * n) for n in range(8)]
    expected = {id: outcome(done) for id, done in run(make_engine(exact=True), requests).items()}
    engine, found = make_engine(exact=True), {}
    queue = list(requests)
    steps = 0
    while queue or engine.busy:
        if queue and steps % 5 == 0:
            engine.submit(queue.pop())
        steps += 1
        for delta in engine.step():
            if delta.completion is not None:
                found[delta.request_id] = outcome(delta.completion)
    assert found == expected


def test_completions_come_as_they_finish() -> None:
    engine = make_engine()
    for new in (30, 3, 15):
        engine.submit(request(str(new), tokens(20, seed=new), new))
    assert [completion.request.id for completion in engine.run()] == ["3", "15", "30"]


def test_a_step_costs_the_rows_that_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default mode nothing is padded."""
    engine = eager(make_engine(max_batch=16))
    rows = []
    lm_head = engine.runner.loaded.model.lm_head
    hook = lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    try:
        run(engine, [request("a", tokens(5), 4), request("b", tokens(5), 2)])
    finally:
        hook.remove()
    assert rows == [2, 2, 1, 1]


def test_room() -> None:
    """Free rows and a quarter more, so that a row that becomes free is filled at once."""
    engine = make_engine(max_batch=8)
    assert engine.room() == 10
    for n in range(10):
        engine.submit(request(f"same/{n}", tokens(200), 40))
    assert engine.room() == 0
    engine.abort("same/9")
    assert engine.room() == 1
    engine.step()  # samples wait for the first one's prompt: no lack of memory
    assert engine.room() == 1
    drain(engine)
    assert engine.room() == 10


def test_no_room_while_pages_are_short() -> None:
    engine = make_engine(max_batch=8, kv_memory=kv_memory(make_engine(), 8))
    for n in range(3):
        engine.submit(request(str(n), tokens(60, seed=n), 20))
    engine.step()
    assert len(engine.scheduler.running) < 3 and engine.room() == 0
    drain(engine)
    assert engine.room() == 10


def test_prompt_pages_are_shared_by_samples() -> None:
    """69 prompt tokens are four pages of 16 and a part; each sample writes to a page of its own."""
    engine = make_engine(max_batch=8)
    for sample in range(6):
        engine.submit(request(f"p/{sample}", tokens(69), 8, temperature=1.0))
    while len(engine.scheduler.running) < 6:
        engine.step()
    engine.step()
    assert engine.stats()["pages_used"] == 4 + 6
    assert engine.stats()["prefill_tokens"] == 68
    done = drain(engine)
    assert len({tuple(completion.tokens) for completion in done.values()}) == 6
    assert engine.scheduler.pools[0].used == 0


def test_prompts_do_not_hold_decoding_up() -> None:
    engine = make_engine(prefill_chunk=32)
    engine.submit(request("short", tokens(3), 60))
    engine.step()
    engine.submit(request("long", tokens(400, seed=1), 1))
    for step in range(12):
        before = engine.stats()["prefill_tokens"]
        deltas = engine.step()
        assert [delta.request_id for delta in deltas] == ["short"] and len(deltas[0].tokens) == 1
        assert engine.stats()["prefill_tokens"] - before == 32, step
    drain(engine)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 6, 20])
@pytest.mark.parametrize("gone", ["p/0", "p/2", "long", "last"])
@pytest.mark.parametrize("pages", [8, 100])
def test_abort_at_any_moment(gone: str, steps: int, pages: int) -> None:
    """Waiting, waiting for a sibling's prompt, in prefill, in decode, preempted: the others do not notice."""
    requests = [request(f"p/{n}", tokens(40), 25) for n in range(3)]
    requests += [request("long", tokens(100, seed=1), 20), request("last", tokens(9, seed=2), 20)]
    memory = kv_memory(make_engine(), pages)
    expected = run(make_engine(exact=True), requests)
    engine = make_engine(exact=True, max_batch=4, prefill_chunk=32, kv_memory=memory)
    for item in requests:
        engine.submit(item)
    found: dict[str, Completion] = {}
    for _ in range(steps):
        found |= {d.request_id: d.completion for d in engine.step() if d.completion is not None}
    already = gone in found
    engine.abort(gone)
    engine.scheduler.check()
    found |= drain(engine)
    assert engine.scheduler.pools[0].used == 0
    assert not already, "too many steps: nothing was aborted"
    completion = found.pop(gone)
    assert completion.finish_reason == "abort"
    assert completion.tokens == expected[gone].tokens[: len(completion.tokens)]
    assert len(completion.tokens) < len(expected[gone].tokens)
    assert {id: outcome(done) for id, done in found.items()} == {
        id: outcome(done) for id, done in expected.items() if id != gone
    }


def test_abort_of_a_preempted_request() -> None:
    engine = make_engine(kv_memory=kv_memory(make_engine(), 6))
    for n in range(3):
        engine.submit(request(str(n), tokens(17, seed=n), 40))
    while not engine.scheduler.preemptions:
        engine.step()
    (preempted,) = [sequence for sequence in engine.scheduler.waiting if sequence.preemptions]
    engine.abort(preempted.request.id)
    done = drain(engine)
    assert done[preempted.request.id].finish_reason == "abort"
    assert done[preempted.request.id].preemptions == 1
    assert len(done[preempted.request.id].tokens) > 0
    assert sorted(completion.finish_reason for completion in done.values()) == ["abort", "length", "length"]
    assert engine.scheduler.pools[0].used == 0


def test_abort_of_what_is_not_there() -> None:
    engine = make_engine()
    engine.abort("nobody")
    (done,) = run(engine, [request("a", tokens(4), 2)]).values()
    engine.abort("a")
    assert not engine.busy and done.finish_reason == "length"


def test_an_id_is_used_once_at_a_time() -> None:
    engine = make_engine()
    engine.submit(request("a", tokens(4), 2))
    with pytest.raises(ValueError, match="'a' is already in the engine"):
        engine.submit(request("a", tokens(9), 2))
    first = drain(engine)["a"]
    assert outcome(run(engine, [request("a", tokens(4), 2)])["a"]) == outcome(first)


def test_requests_that_cannot_run_are_rows_with_a_reason() -> None:
    engine = make_engine(max_length=200, kv_memory=kv_memory(make_engine(), 8))
    bad = {
        "empty": ((), "no tokens"),
        "long": (tokens(200), "200 tokens; with a limit of 200"),
        "large": (tokens(129), "129 tokens; the cache holds 128: raise engine.kv_memory"),
        "foreign": ((5, 260), "vocabulary of 260"),
        "negative": ((5, -1), "vocabulary of 260"),
    }
    done = run(
        engine, [request(id, prompt) for id, (prompt, _) in bad.items()] + [request("good", tokens(9))]
    )
    assert done.pop("good").finish_reason == "length"
    for id, (_, reason) in bad.items():
        assert done[id].finish_reason == "error" and reason in str(done[id].error)
        assert done[id].tokens == []


def test_a_chain_that_outgrows_the_cache_keeps_its_tokens() -> None:
    engine = make_engine(max_batch=3, exact=True, kv_memory=kv_memory(make_engine(), 4))
    requests = [request("large", tokens(30), 200), request("small", tokens(20, seed=1), 25)]
    done = run(engine, requests)
    expected = run(make_engine(exact=True), requests)
    assert outcome(done["small"]) == outcome(expected["small"])
    large = done["large"]
    assert large.finish_reason == "error"
    assert large.error == "the chain outgrew the cache at 64 tokens: raise engine.kv_memory"
    assert large.tokens == expected["large"].tokens[: 64 - 30 + 1]


def test_length_limits() -> None:
    prompt = tokens(30)
    (free,) = run(make_engine(), [request("a", prompt, 100)]).values()
    (cut,) = run(make_engine(max_length=70), [request("a", prompt, 100)]).values()
    assert free.finish_reason == cut.finish_reason == "length"
    assert len(free.tokens) == 100 and cut.tokens == free.tokens[:40]
    (edge,) = run(make_engine(max_length=70), [request("a", tokens(69), 100)]).values()
    assert edge.finish_reason == "length" and len(edge.tokens) == 1


def test_all_of_the_models_context_can_be_used() -> None:
    (done,) = run(make_engine(block=64, prefill_chunk=512), [request("a", tokens(1000), 500)]).values()
    assert len(done.tokens) == 24


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 2000}, "engine.max_length=2000: the model's context is 1024"),
        ({"kv_memory": "3KB"}, "engine.kv_memory=3KB: too small for 2 blocks of 2 layers"),
        ({"kv_memory": "much"}, "engine.kv_memory=much: must be"),
        ({"kv_dtype": "int4"}, "engine.kv_dtype=int4: must be one of auto, int8, float8_e4m3"),
        ({"max_batch": 0}, "engine.max_batch=0: must be at least 1"),
        ({"selector": "quest", "budget": 31}, "selector.budget=31: must be at least two blocks, 32 tokens"),
        ({"selector": "sear"}, "selector.name=sear: must be one of"),
        ({"selector": "quest", "threshold": 1.5}, "selector.threshold=1.5: must be at most"),
        ({"selector": "window", "threshold": 0.1}, "selector.threshold=0.1: window gives blocks no share"),
        ({"selector": "random", "mass": 0.9}, "selector.mass=0.9: random gives blocks no share"),
        (
            {"selector": "quest", "mass": 0.9, "threshold": 0.1},
            "selector.threshold=0.1 and selector.mass=0.9",
        ),
        ({"selector": "quest", "mass": 0.0}, "selector.mass=0: must be above 0"),
        ({"selector": "quest", "fraction": 1.5}, "selector.fraction=1.5: must be at most 1"),
        ({"selector": "quest", "head_shares": {"0": [1.0]}}, "1 shares, the model has 2 KV heads"),
        ({"selector": "quest", "head_shares": {"0": [1.0, -1.0]}}, "head_shares.0=-1: must be above 0"),
        (
            {"selector": "quest", "budget": 64, "head_shares": {"0": [0.1, 1.9]}},
            "selector.head_shares.0=0.1: must be at least two blocks",
        ),
        (
            {"selector": "quest", "budget": 64, "shares": {"0": 0.25}},
            "selector.shares.0=0.25: must be at least two blocks, .*; of selector.budget=64 that is 0.5",
        ),
        ({"selector": "quest", "shares": {"1": 0}}, "selector.shares.1=0: must be above 0"),
        ({"layers": {"2": "quest"}}, "selector.layers.2=quest: must name layers 0 to 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_engine(**settings)  # type: ignore[arg-type]


def test_float8_wants_a_gpu_that_converts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    model = replace(tiny_model("qwen3"), device=torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"float8_e4m3: wants .* 8\.9, this one has 8\.6; take int8"):
        Engine(model, EngineConfig(kv_dtype="float8_e4m3"))


def test_gates_that_lack_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = make_engine(selector="seer").runner.loaded.load_gates(16)
    monkeypatch.setattr(TinyModel, "load_gates", lambda self, block: (gates[0], None))
    with pytest.raises(ConfigError, match=r"there is none for layer 1; .*selector\.layers\.1=dense"):
        make_engine(selector="seer")
    make_engine(selector="seer", layers={"1": "dense"})


def test_deltas_join_to_the_completion() -> None:
    engine = make_engine()
    requests = [request(str(n), tokens(n + 1, seed=n), 12 + n) for n in range(6)]
    for item in requests:
        engine.submit(item)
    seen: dict[str, list[Delta]] = {item.id: [] for item in requests}
    for delta in engine.stream():
        seen[delta.request_id].append(delta)
    for deltas in seen.values():
        *before, last = deltas
        assert all(delta.completion is None for delta in before) and last.completion is not None
        assert [token for delta in deltas for token in delta.tokens] == last.completion.tokens
        counters = [delta.counters for delta in deltas]
        attended = [each.attended_kv for each in counters if each is not None]
        assert len(attended) == len(deltas) and attended == sorted(attended)
        assert attended[-1] == last.completion.counters.attended_kv


def test_a_stream_that_is_left_goes_on_where_it_was() -> None:
    """Four completions in one step, taken one at a time by streams that are given up."""
    engine = make_engine()
    for n in range(4):
        engine.submit(request(str(n), tokens(4, seed=n), 3))
    found = []
    while engine.busy:
        for completion in engine.run():
            found.append(completion.request.id)
            break
    assert sorted(found) == ["0", "1", "2", "3"]


def test_a_continued_chain_reports_only_what_is_new() -> None:
    item = request("a", tokens(20), 12)
    (whole,) = run(make_engine(), [item]).values()
    counters = Progress(tuple(whole.tokens[:5]), Counters(1000, 2000, 1.0, 2.0, 3.0))
    engine = make_engine()
    engine.submit(replace(item, progress=counters))
    deltas = list(engine.stream())
    assert [token for delta in deltas for token in delta.tokens] == whole.tokens[5:]
    done = deltas[-1].completion
    assert done is not None and done.tokens == whole.tokens
    assert done.request == item  # without the progress
    steps = sum(range(20 + 5, 20 + 12)) * 2 * 2
    assert done.counters.attended_kv == 1000 + steps and done.counters.available_kv == 2000 + steps
    assert done.counters.queued_s >= 1.0 and done.counters.prefill_s >= 2.0 and done.counters.decode_s > 3.0


def test_time_to_the_first_token_is_noted_once() -> None:
    """Of a chain that has waited and was put back; a continued one keeps what it had."""
    engine, item = make_engine(), request("a", tokens(200), 12)
    engine.submit(item)
    seen = [delta.counters for delta in engine.stream() if delta.counters is not None]
    first = {counters.first_token_s for counters in seen}
    assert len(first) == 1 and 0 < first.pop() < seen[-1].queued_s + seen[-1].prefill_s + seen[-1].decode_s
    assert 0 < engine.stats()["prefill_s"] < engine.stats()["step_s"]
    begun = Counters(10, 10, 1.0, 1.0, 1.0, first_token_s=0.25)
    (done,) = run(make_engine(), [replace(item, progress=Progress((1, 2), begun))]).values()
    assert done.counters.first_token_s == 0.25
    (done,) = run(make_engine(), [replace(item, progress=Progress((), begun))]).values()
    assert done.counters.first_token_s > 3.0


def test_a_continued_chain_that_is_complete() -> None:
    item = request("a", tokens(20), 6)
    (whole,) = run(make_engine(), [item]).values()
    engine = make_engine()
    engine.submit(replace(item, progress=Progress(tuple(whole.tokens), Counters(7, 9))))
    (delta,) = engine.step()
    assert delta.tokens == [] and delta.completion is not None
    assert delta.completion.tokens == whole.tokens and delta.completion.finish_reason == "length"
    assert (delta.completion.counters.attended_kv, delta.completion.counters.available_kv) == (7, 9)
    assert not engine.busy


def test_stats() -> None:
    engine = make_engine(max_batch=2)
    for n in range(3):
        engine.submit(request(str(n), tokens(20, seed=n), 5))
    engine.step()
    engine.step()
    now = engine.stats()
    assert (now["running"], now["waiting"], now["steps"]) == (2, 1, 2)
    assert now["prefill_tokens"] == 38 and now["pages_used"] == 4
    drain(engine)
    now = engine.stats()
    assert (now["running"], now["waiting"], now["pages_used"], now["preemptions"]) == (0, 0, 0, 0)
    assert now["new_tokens"] == 15 and now["prefill_tokens"] == 57
    assert now["step_s"] > 0 and now["pages"] == engine.scheduler.pools[0].capacity


def test_the_cache_is_as_large_as_told_or_as_the_batch_could_fill() -> None:
    engine = make_engine(max_batch=2, max_length=160)
    assert engine.stats()["pages"] == 2 * 10
    (size,) = engine.runner.capacity.page_bytes
    cache = engine.runner.cache
    assert sum(kv.nbytes for kv in cache.kv) == (2 * 10 + 1) * size
    pages = {}
    for kv_dtype in ("auto", "int8", "float8_e4m3"):
        seer = {"selector": "seer", "budget": 32, "kv_dtype": kv_dtype}
        small = make_engine(max_batch=9, max_length=160, kv_memory="60KB", **seer)
        cache = small.runner.cache
        held = sum(kv.nbytes for kv in cache.kv) + sum(s.nbytes for s in cache.summary if s is not None)
        assert held == (small.stats()["pages"] + 1) * small.runner.capacity.page_bytes[0] <= 60_000
        pages[kv_dtype] = small.stats()["pages"]
    # Two layers and KV heads: 32 vectors of 16 channels, and 8 numbers of a gate.
    room = {bytes: 60_000 // (2 * 2 * (32 * bytes + 8 * 4)) - 1 for bytes in (16 * 4, 16 + 4)}
    assert pages == {"auto": room[16 * 4], "int8": room[16 + 4], "float8_e4m3": room[16 + 4]}
