"""Requests with settings of their own: in one batch as each alone, and each setting does what it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import eager, kv_memory, make_engine, outcome, request, run, tokens
from tape import Capture
from tiny import ENDOFTEXT, IM_END, VOCABULARY

from seer_ray.engine import Completion, Progress, Request
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.request import Structure, TokenLogprobs

SCHEMA = '{"type": "array", "items": {"enum": [1, true, "ab"]}, "minItems": 2, "maxItems": 4}'


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two, which may share a product so that a row's bits depend on its place."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(number: int) -> Request:
    """A request with some settings, each as likely off as on."""
    draw = random.Random(number)

    def maybe(**settings: Any) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if draw.random() < 0.4}

    settings = {
        "temperature": draw.choice([0.0, 0.8, 1.5]),
        "eos_token_ids": (ENDOFTEXT, IM_END),
        **maybe(
            top_p=0.8,
            top_k=draw.choice([3, 40]),
            min_p=0.05,
            repetition_penalty=1.3,
            presence_penalty=draw.uniform(-2, 2),
            frequency_penalty=draw.uniform(0, 2),
            logit_bias=((5, 4.0), (77, -100.0), (IM_END, 3.0)),
            min_new_tokens=draw.randrange(1, 9),
            stop=("a", "zz"),
            logprobs=draw.choice([0, 2, 5]),
        ),
    }
    if draw.random() < 0.3:
        kinds = [("json", SCHEMA), ("regex", "[ab]{3,9}"), ("choice", '["yes", "no"]')]
        settings["structure"] = Structure(*draw.choice(kinds))
    made = request(
        f"{number}/0", tokens(draw.choice([3, 16, 40]), number % 4), draw.randrange(4, 22), **settings
    )
    return replace(made, seed=draw.choice([7, -3]))


def whole(completion: Completion) -> tuple[Any, ...]:
    """``outcome``, and the bits of the log-probabilities."""
    return (*outcome(completion), completion.logprobs)


def test_in_one_batch_as_each_alone() -> None:
    """Bitwise, in exact mode, with rows that give way for want of pages; and when it was begun elsewhere."""
    requests = [drawn(number) for number in range(24)]
    pages = kv_memory(make_engine(block=4), 17)
    batch = make_engine(exact=True, block=4, max_batch=6, kv_memory=pages)
    together = run(batch, requests)
    assert batch.scheduler.preemptions > 0
    engine = make_engine(exact=True, block=4, max_batch=1)
    for one in requests:
        alone = run(engine, [one])[one.id]
        assert whole(together[one.id]) == whole(alone), one.sampling
        half = len(alone.tokens) // 2
        known = Progress(tuple(alone.tokens[:half]), logprobs=tuple(alone.logprobs[:half]))
        again = run(engine, [replace(one, progress=known)])[one.id]
        assert (again.tokens, again.logprobs) == (alone.tokens, alone.logprobs), one.sampling


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_captured_steps_do_the_same(graphs: bool, overlap: bool) -> None:
    """As tapes and as graphs, read at once and while the next step runs."""
    requests = [drawn(number) for number in range(24, 56)]
    captured = make_engine(max_batch=6)
    captured.overlap = overlap
    if graphs:
        runner = captured.runner
        runner.captured = DecodeGraphs(runner.loaded, runner.decoder, 6, Capture())
    expected = run(eager(make_engine(max_batch=6)), requests)
    assert captured.runner.captured is not None
    for id, completion in run(captured, requests).items():
        assert completion.tokens == expected[id].tokens, expected[id].request.sampling
        assert len(completion.logprobs) == len(expected[id].logprobs)
        for mine, theirs in zip(completion.logprobs, expected[id].logprobs, strict=True):
            mine, theirs = TokenLogprobs.parse(mine), TokenLogprobs.parse(theirs)
            assert mine.chosen == pytest.approx(theirs.chosen, abs=1e-4)
            assert [token for token, _ in mine.top] == [token for token, _ in theirs.top]


def greedy(new: int = 30, **sampling: Any) -> Completion:
    made = request("a/0", tokens(20, 3), new, **sampling)
    return run(make_engine(), [made])["a/0"]


def logits_after(known: list[int]) -> torch.Tensor:
    """Of the token that follows, by the model itself."""
    model = make_engine().model.model
    with torch.inference_mode():
        return model(torch.tensor([[*tokens(20, 3), *known]])).logits[0, -1].float()


def test_penalties_by_count() -> None:
    """Of what was generated, not of the prompt."""
    said = greedy(presence_penalty=0.7, frequency_penalty=0.4).tokens
    assert said != greedy().tokens
    for at in range(len(said)):
        counts = torch.bincount(torch.tensor(said[:at], dtype=torch.int64), minlength=VOCABULARY)
        logits = logits_after(said[:at]) - 0.4 * counts - 0.7 * (counts > 0)
        assert logits.argmax() == said[at]


def test_bias() -> None:
    assert greedy(4, logit_bias=((65, 100.0),)).tokens == [65] * 4
    free = greedy(4).tokens
    assert free[0] not in greedy(4, logit_bias=((free[0], -100.0),)).tokens
    error = greedy(4, logit_bias=((VOCABULARY, 1.0),)).error
    assert error == f"logit_bias: token {VOCABULARY} is not in the vocabulary of {VOCABULARY}"


def test_no_end_before_the_least_length() -> None:
    """Neither an end token nor a stop string, in the text of the completion either."""
    always = {"logit_bias": ((IM_END, 100.0),), "eos_token_ids": (IM_END,)}
    assert len(greedy(**always).tokens) == 1
    late = greedy(**always, min_new_tokens=7)
    assert late.tokens == greedy(**always | {"eos_token_ids": (IM_END, 9**9)}, min_new_tokens=7).tokens
    assert len(late.tokens) == 8 and IM_END not in late.tokens[:7] and late.finish_reason == "stop"
    text = {"logit_bias": ((65, 100.0),), "stop": ("!!",)}  # 65 is what this tokenizer writes for one letter
    letter = greedy(1, logit_bias=((65, 100.0),)).text
    text["stop"] = (letter * 2,)
    assert len(greedy(**text).tokens) == 2
    late = greedy(**text, min_new_tokens=5)
    assert len(late.tokens) == 6 and late.text == letter * 4 and late.finish_reason == "stop"


def test_logprobs_are_the_models_own() -> None:
    """Before penalties, temperature and bias, whichever token was chosen."""
    done = greedy(6, temperature=1.5, top_p=0.9, logit_bias=((9, 50.0),), repetition_penalty=1.5, logprobs=3)
    assert len(done.logprobs) == len(done.tokens) == 6
    for at, token in enumerate(done.tokens):
        expected = logits_after(done.tokens[:at]).log_softmax(-1)
        said = TokenLogprobs.parse(done.logprobs[at])
        assert said.chosen == pytest.approx(float(expected[token]), abs=1e-4)
        values, ids = expected.topk(3)
        assert [id for id, _ in said.top] == ids.tolist()
        assert [value for _, value in said.top] == pytest.approx(values.tolist(), abs=1e-4)
    assert greedy(3).logprobs == []
