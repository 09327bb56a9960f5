"""Speculation: whatever drafts, the tokens are those of dense decoding, and so is what the cache holds."""

from __future__ import annotations

import random
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engines import around_pages, kv_memory, make_engine, request, run, thinking, tokens
from tape import Capture
from tiny import tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.engine import Completion, Engine, Progress, Request, Structure
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.speculation.drafting import Drafts, DraftSteps
from seer_ray.engine.speculation.policy import Lengths, Row
from seer_ray.engine.speculation.verifier import Form as VerifyForm
from seer_ray.engine.tapes import DecodeTapes
from seer_ray.engine.tapes import Form as DecodeForm

EXACT = pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    {"temperature": 1.0, "repetition_penalty": 1.3, "logprobs": 2},
    {"temperature": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.3, "min_p": 0.05},
    {"temperature": 0.9, "min_new_tokens": 9, "eos_token_ids": tuple(range(60)), "logit_bias": ((7, 2.0),)},
    {"temperature": 0.7, "stop": ("a", "Q"), "logprobs": 0},
    {"thinking": thinking(6, 40, 41, 42), "temperature": 0.6, "logprobs": 1},
)


def result(done: Completion) -> tuple[Any, ...]:
    """All of a completion but what it cost."""
    said = [np.frombuffer(each, np.float32).round(4).tolist() for each in done.logprobs]
    return done.tokens, done.text, done.finish_reason, done.error, said, done.counters.available_kv


def results(engine: Engine, requests: Seq[Request]) -> dict[str, tuple[Any, ...]]:
    return {id: result(done) for id, done in run(engine, requests).items()}


@EXACT
@pytest.mark.parametrize(
    ("speculate", "drafter", "selector", "budget"),
    [
        ("1", "selector", "seer", 64),
        ("4", "selector", "quest", 64),
        ("7", "both", "window", 48),
        ("3", "selector", "oracle", 64),
        ("5", "ngram", "dense", 64),
        ("auto", "both", "seer", 1024),
    ],
)
def test_tokens_are_those_of_dense_decoding(
    exact: bool, speculate: str, drafter: str, selector: str, budget: int
) -> None:
    requests = around_pages(*WAYS)
    expected = results(make_engine(exact=exact), requests)
    engine = make_engine(selector=selector, budget=budget, exact=exact, speculate=speculate, drafter=drafter)
    assert results(engine, requests) == expected


@EXACT
@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "gpt_oss"])
def test_families(exact: bool, family: str) -> None:
    """Windows and sinks among them."""
    requests = around_pages({}, WAYS[1])
    expected = results(make_engine(family, exact=exact), requests)
    engine = make_engine(family, "quest", 64, exact=exact, speculate="4")
    assert results(engine, requests) == expected
    assert engine.stats()["accepted"] > 0


def test_a_cache_in_eight_bits() -> None:
    requests = around_pages({}, WAYS[1])
    expected = results(make_engine(kv_dtype="int8"), requests)
    assert results(make_engine("qwen3", "quest", 64, kv_dtype="int8", speculate="4"), requests) == expected


@EXACT
def test_samples_preemption_and_continuation(exact: bool) -> None:
    """Samples share a prompt's pages, chains give way and go on, half of them begun by another engine."""
    requests = [request(f"p/{n}", tokens(40), 40, **WAYS[1]) for n in range(4)]
    requests += [request(f"q{n}/0", tokens(20 + n, seed=n), 50, **WAYS[n % 3]) for n in range(4)]
    expected = results(make_engine(exact=exact), requests)
    begun = [
        replace(item, progress=Progress(tuple(expected[item.id][0][: 5 * n]), logprobs=()))
        if item.sampling.logprobs is None
        else item
        for n, item in enumerate(requests)
    ]
    memory = kv_memory(make_engine(), 14)
    engine = make_engine(selector="seer", budget=64, exact=exact, speculate="4", kv_memory=memory)
    found = results(engine, begun)
    assert engine.stats()["preemptions"] > 0
    assert {id: found[id][:5] for id in found} == {id: expected[id][:5] for id in expected}


def test_captured_as_on_a_gpu() -> None:
    """The same graph for all lengths of drafts: nothing asks the host, and masks keep rows apart."""
    requests = around_pages(*WAYS)
    expected = results(make_engine(), requests)
    engine, capture = make_engine(selector="seer", budget=64, speculate="3"), Capture()
    runner = engine.runner
    runner.captured = DecodeGraphs(runner.loaded, runner.decoder, runner.max_batch, capture)
    runner.speculator = runner._speculator()
    runner.warm_up()
    assert capture.captures == 2 * len(runner.captured.all_sizes()) + len(runner.captured.buckets)
    assert results(engine, requests) == expected
    assert engine.slow is None and capture.replays > 100


@pytest.mark.parametrize("graphs", [False, True], ids=["tapes", "graphs"])
def test_a_capture_that_fails_in_the_midst_of_drafts(graphs: bool) -> None:
    """Of a draft step, the first or a later one, or of the pass that verifies: all go on uncaptured."""
    requests = around_pages(*WAYS)
    expected = results(make_engine(), requests)
    for fails in (1, 2, 3, 4):
        engine, capture = make_engine(selector="seer", budget=64, speculate="3"), Capture()

        def capture_or_fail(step: Any, capture: Capture = capture, fails: int = fails) -> Any:
            if capture.captures + 1 >= fails:
                raise RuntimeError("no room for a graph")
            return capture(step)

        runner = engine.runner
        kind = DecodeGraphs if graphs else DecodeTapes
        runner.captured = kind(runner.loaded, runner.decoder, runner.max_batch, capture_or_fail)
        runner.speculator = runner._speculator()
        assert results(engine, requests) == expected
        assert runner.captured.failure == "no room for a graph"


class AnyLengths(Lengths):
    """Decides by chance: lengths, plain steps, and for how long there are such."""

    draw: random.Random
    rest = 0

    def choose(self, rows: Seq[Row]) -> list[int]:
        drafts = self.draw.random() < 0.5
        self.rest = 0 if drafts else self.draw.randrange(5)
        return [self.draw.randrange(row.most + 1) if drafts else 0 for row in rows]


@pytest.mark.parametrize("graphs", [False, True], ids=["tapes", "graphs"])
@pytest.mark.parametrize("drafter", ["selector", "both", "ngram"])
def test_passes_that_draft_nothing_are_dense_steps_launched_ahead(drafter: str, graphs: bool) -> None:
    """Among passes that do, in any order; watched chains tell the same."""
    requests = around_pages(*WAYS)
    requests[3] = replace(requests[3], record=True)
    expected, expected_trace = traced(make_engine(), requests)
    selector = "dense" if drafter == "ngram" else "seer"
    engine = make_engine(selector=selector, budget=64, speculate="auto", drafter=drafter)
    runner, capture = engine.runner, Capture()
    if graphs:
        runner.captured = DecodeGraphs(runner.loaded, runner.decoder, runner.max_batch, capture)
        runner.speculator = runner._speculator()
        runner.warm_up()
    speculator: Any = runner.speculator
    speculator._lengths.__class__, speculator._lengths.draw = AnyLengths, random.Random(3)
    engine.overlap = True
    ahead = []
    leads = runner.leads
    runner.leads = lambda rows: ahead.append(leads(rows)) or ahead[-1]  # type: ignore[func-returns-value]
    found, trace = traced(engine, requests)
    assert found == expected and trace == expected_trace
    stats = engine.stats()
    assert sum(ahead) > 20 and (stats["verify_passes"] > 10 or drafter == "ngram")  # which find little here
    assert stats["plain_passes"] > sum(ahead) and stats["eager_steps"] == 0


def traced(engine: Engine, requests: Seq[Request]) -> tuple[dict[str, tuple[Any, ...]], list[bytes]]:
    for item in requests:
        engine.submit(item)
    done, trace = {}, []
    for delta in engine.stream():
        trace += delta.trace
        if delta.completion is not None:
            done[delta.request_id] = result(delta.completion)
    engine.scheduler.check()
    return done, trace


def test_a_chain_that_is_given_up_in_the_midst_of_drafts() -> None:
    """Its pages are free, and its mates go on."""
    requests = [request(f"{n}/0", tokens(20 + n, seed=n), 40) for n in range(3)]
    expected = results(make_engine(), requests)
    engine = make_engine(selector="seer", budget=64, speculate="4")
    for item in requests:
        engine.submit(item)
    for _ in range(5):
        engine.step()
    engine.abort("1/0")
    done = {completion.request.id: result(completion) for completion in engine.run()}
    given_up = done.pop("1/0")
    assert given_up[2] == "abort" and given_up[0] == expected.pop("1/0")[0][: len(given_up[0])] != []
    assert done == expected
    engine.scheduler.check()
    assert all(pool.used == 0 for pool in engine.scheduler.pools)


@EXACT
@pytest.mark.parametrize("end", ["token", "text", "length"])
def test_an_end_within_a_draft_is_the_end(exact: bool, end: str) -> None:
    """Wherever in a draft it is: an end token, a stop string over two tokens, a limit of few tokens. All
    drafts are right, so that what follows the end was drafted, too."""
    prompts = [tokens(length, seed=length) for length in (1, 2, 15, 17)]
    (free,) = (results(make_engine(exact=exact), [request(f"{n}/0", p, 12) for n, p in enumerate(prompts)]),)
    requests = []
    for n, prompt in enumerate(prompts):
        made = free[f"{n}/0"][0]
        for place in range(1, 8):
            said: dict[str, Any] = {}
            if end == "token":
                said["eos_token_ids"] = (made[place],)
            elif end == "text":
                said["stop"] = (tiny_tokenizer().decode(made[place - 1 : place + 1]),)
            new = place if end == "length" else 12
            requests.append(request(f"{n}-{place}/0", prompt, new, **said))
    expected = results(make_engine(exact=exact), requests)
    engine = make_engine(selector="quest", budget=1024, exact=exact, speculate="5")
    assert results(engine, requests) == expected
    assert len({len(each[0]) for each in expected.values()}) > 5
    assert {each[2] for each in expected.values()} >= ({"length"} if end == "length" else {"stop"})


def test_drafts_are_cut_where_pages_run_out() -> None:
    """Nobody gives way for a draft: it is as long as there are pages for."""
    requests = [request(f"{n}/0", tokens(13, seed=n), 30) for n in range(2)]
    expected = results(make_engine(), requests)
    memory = kv_memory(
        make_engine(selector="quest", budget=1024), 6
    )  # three for each chain, which are just enough
    done = run(make_engine(selector="quest", budget=1024, speculate="7", kv_memory=memory), requests)
    assert {id: result(each) for id, each in done.items()} == expected
    assert not any(each.preemptions for each in done.values())


def test_captures_are_told_apart() -> None:
    """One row, one page, a page that fills; and one row, one token, one page, none that fills."""
    assert DecodeForm(1, 1, True, False) != VerifyForm(1, 1, 1, False)


def test_forms() -> None:
    """Rows that keep to a form draft nothing, and their mates do."""
    form = Structure("regex", "[a-c]{3,30}")
    requests = [request("form/0", tokens(20), 40, structure=form), request("free/0", tokens(30), 40)]
    expected = results(make_engine(), requests)
    done = run(make_engine(selector="seer", budget=1024, speculate="4"), requests)
    assert {id: result(each) for id, each in done.items()} == expected
    assert not done["form/0"].counters.drafted and sum(done["free/0"].counters.accepted) > 20


def test_recorded_chains_tell_what_dense_steps_attend() -> None:
    def trace(engine: Engine) -> list[bytes]:
        engine.submit(replace(request("a/0", tokens(30), 40), record=True))
        return [part for delta in engine.stream() for part in delta.trace]

    assert trace(make_engine(selector="quest", budget=64, speculate="4")) == trace(make_engine())


def test_counts() -> None:
    """With a budget that holds everything every draft is right, up to the end of the chain."""
    (done,) = run(
        make_engine(selector="seer", budget=1024, speculate="3"), [request("a/0", tokens(20), 22)]
    ).values()
    counters = done.counters
    assert len(done.tokens) == 22
    assert counters.drafted == counters.accepted == (6, 5, 5, 0, 0, 0, 0)  # 5 passes of 4 tokens, one of 2
    (dense,) = run(make_engine(), [request("a/0", tokens(20), 22)]).values()
    heads_layers = 4
    last = [20 + 4 * n + 3 for n in range(5)] + [41]  # seen by the last token of each pass
    drafts = [20 + 4 * n + place for n in range(5) for place in range(3)] + [40]
    assert counters.draft_kv == heads_layers * sum(drafts)
    assert counters.attended_kv == heads_layers * sum(last) + counters.draft_kv
    assert counters.available_kv == dense.counters.attended_kv


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.block_size=4"):
        make_engine(selector="quest", budget=64, block=4, speculate="4")
    with pytest.raises(ConfigError, match=r"engine.speculate=2.*state.*engine.speculate=0"):
        make_engine("qwen3_next", "quest", 64, speculate="2")


# -- what is in the cache ----------------------------------------------------------------------------------


class RandomDrafts(DraftSteps):
    """Drafts that are right or wrong by chance, and leave rubbish where sparse steps write."""

    answers: dict[str, list[int]]
    draw: random.Random

    def run(self, rows: Seq[Sequence], lengths: Seq[int]) -> Drafts:
        drafts = super().run(rows, lengths)
        for row, of_row in zip(rows, drafts.tokens, strict=True):
            known = self.answers[row.request.id]
            for place in range(len(of_row)):
                right = known[row.generated + place] if row.generated + place < len(known) else 0
                of_row[place] = right if self.draw.random() < 0.8 else (right + 1) % 256
        return drafts


def held(engine: Engine, sequence: Sequence, length: int) -> list[torch.Tensor]:
    """K and V of its first tokens in every layer, and the summaries of the blocks that they fill."""
    cache, found = engine.runner.cache, []
    for kv, summary, group in zip(cache.kv, cache.summary, cache.group_of, strict=True):
        pages = torch.tensor(sequence.pages[group])
        whole = kv[pages].permute(0, 3, 1, 2, 4).flatten(0, 1)
        found.append(whole[:length].clone())
        found.append(summary[pages[: length // cache.block]].clone())
    return found


@EXACT
@pytest.mark.parametrize("selector", ["seer", "quest"])
@pytest.mark.parametrize("seed", [0, 1])
def test_cache_is_that_of_dense_decoding(exact: bool, selector: str, seed: int) -> None:
    """After any pattern of right and wrong drafts: K, V, summaries and pages, bit for bit."""
    new = 50
    requests = [
        request(f"{n}/0", tokens(length, seed=n), new + 10, temperature=0.5 * (n % 2))
        for n, length in enumerate((5, 14, 16, 47))
    ]
    dense = make_engine(selector=selector, budget=1024, exact=exact)  # reads everything, keeps summaries
    for item in requests:
        dense.submit(item)
    while min((s.generated for s in dense.scheduler.running), default=0) < new:
        dense.step()
    answers = {s.request.id: s.tokens[s.prompt_length :] for s in dense.scheduler.running}
    expected = {s.request.id: held(dense, s, s.cached) for s in dense.scheduler.running}

    engine = make_engine(selector=selector, budget=64, exact=exact, speculate="5")
    speculator: Any = engine.runner.speculator
    drafting = speculator._drafting
    drafting.__class__ = RandomDrafts
    drafting.answers, drafting.draw = answers, random.Random(seed)
    for item in requests:
        engine.submit(item)
    compared = 0
    while all(s.generated < new - 6 for s in engine.scheduler.running):
        engine.step()
        for sequence in engine.scheduler.running:
            if not sequence.generated:
                continue
            made, cached = sequence.generated, sequence.cached
            assert sequence.tokens[sequence.prompt_length :] == answers[sequence.request.id][:made]
            assert cached == len(sequence.tokens) - 1
            block = engine.settings.block_size
            assert [len(pages) for pages in sequence.pages] == [-(-cached // block)]
            for found, whole in zip(
                held(engine, sequence, cached), expected[sequence.request.id], strict=True
            ):
                assert torch.equal(found, whole[: len(found)])
                compared += len(found)
        engine.scheduler.check()
    assert compared > 1000 and engine.stats()["accepted"] > 20
