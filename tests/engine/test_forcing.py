"""The end of thinking at a budget: where it is put, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from engines import kv_memory, make_engine, outcome, request, run, tokens

from seer_ray.engine import Completion, Counters, Progress, Request
from seer_ray.engine.forcing import Ending, Thinking, ThinkingMarks, ThinkingState

LETTERS = {ord(letter): letter for letter in "<>/think"}
"""A byte is a token."""


def ending(text: str) -> Ending:
    return Ending(text, tuple(tuple(text[k:].encode()) for k in range(len(text))))


def spelled(budget: int | None, opened: bool = True, forced: str | None = None) -> Thinking:
    """Marks of several tokens."""
    close = ending("</think>")
    whole = close if forced is None else replace(ending(forced), rests=ending(forced).rests[:1])
    marks = ThinkingMarks(("<think>",), (close,), whole)
    return Thinking(LETTERS, (marks,), 0 if opened else None, budget)


def said(thinking: Thinking, text: str) -> tuple[str, int, bool]:
    """What becomes of a chain that would say ``text``, its thinking tokens, and whether they were cut."""
    state, out = ThinkingState(thinking), bytearray()
    for token in text.encode():
        while state.next not in (None, token):
            out.append(state.take(ord("?")))
        out.append(state.take(token))
    while state.next is not None:
        out.append(state.take(ord("?")))
    return out.decode(), state.count, state.forced


@pytest.mark.parametrize(
    ("budget", "opened", "text", "expected", "count", "forced"),
    [
        (4, True, "abcdefg", "abcd</think>efg", 4, True),
        (0, True, "abc", "</think>abc", 0, True),
        (7, True, "abcdefg", "abcdefg</think>", 7, True),
        (8, True, "abcdefg", "abcdefg", 7, False),
        (None, True, "abcdefg", "abcdefg", 7, False),
        # A natural end stops the count; what looks like a mark and is none is thinking.
        (4, True, "abc</think>defghi", "abc</think>defghi", 3, True),
        (11, True, "abc</think>defghi", "abc</think>defghi", 3, False),
        (9, True, "a<b</thin", "a<b</think>", 3, True),
        # Cut in the middle of its own end: gone on with, and the end is not thinking.
        (5, True, "abc</", "abc</think>", 3, True),
        (5, True, "abcd</think>e", "abcd</think>e", 4, True),
        # Opened by the model, or never.
        (2, False, "xyz<think>abcdef", "xyz<think>ab</think>cdef", 2, True),
        (0, False, "xyz<think>abc", "xyz<think></think>abc", 0, True),
        (2, False, "xyz<thin>k>abcdef", "xyz<thin>k>abcdef", 0, False),
        (0, False, "xyzabcdef", "xyzabcdef", 0, False),
        # Opened once more: one budget for all of it.
        (3, True, "ab</think>c<think>defg", "ab</think>c<think>d</think>efg", 3, True),
        (3, True, "abcd<think>e", "abc</think>d<think></think>e", 3, True),
        # An opening mark within is thinking.
        (9, True, "a<think>bcd", "a<think>b</think>cd", 9, True),
    ],
)
def test_where_thinking_ends(
    budget: int | None, opened: bool, text: str, expected: str, count: int, forced: bool
) -> None:
    assert said(spelled(budget, opened), text) == (expected, count, forced)


def test_what_is_forced_may_be_a_sentence() -> None:
    thinking = spelled(4, forced="think it is time.</think>")
    assert said(thinking, "ABCDEFG") == ("ABCDthink it is time.</think>EFG", 4, True)
    assert said(thinking, "abct") == ("abctthink it is time.</think>", 4, True)
    assert said(thinking, "AB</THE") == ("AB</think>THE", 2, True)


def test_a_chain_says_where_it_stands() -> None:
    """At every token, also in the middle of what is forced: all that a worker knows of a chain of others."""
    text, count, _ = said(spelled(4, False), "x<think>abcdefg<think>hij")
    for length in range(len(text) + 1):
        thinking = spelled(4, False)
        state = ThinkingState(thinking, text[:length].encode())
        for token in text[length:].encode():
            assert state.next in (None, token)
            state.push(token)
        assert (state.count, state.forced) == (count, True)


def token_marks(close: int, budget: int | None) -> Thinking:
    """Opened by the prompt, closed by one token."""
    closing = Ending("C", ((close,),))
    return Thinking({close: "C"}, (ThinkingMarks(("O",), (closing,), closing),), 0, budget)


def with_thinking(item: Request, thinking: Thinking) -> Request:
    return replace(item, sampling=replace(item.sampling, thinking=thinking))


def requests() -> list[Request]:
    ways = ({}, {"temperature": 0.9}, {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1})
    return [
        request(f"{n}/0", tokens(length, seed=n), 30, **ways[n % 3])
        for n, length in enumerate((1, 15, 16, 33, 64, 100))
    ]


@pytest.fixture(scope="module")
def free() -> dict[str, list[int]]:
    """Chains without a budget, bit for bit."""
    return {id: done.tokens for id, done in run(make_engine(exact=True), requests()).items()}


def closing(chain: Sequence[int]) -> tuple[int, int]:
    """(place, token) of one that comes late for the first time."""
    return max((chain.index(token), token) for token in set(chain))


def test_a_natural_end_is_untouched(free: dict[str, list[int]]) -> None:
    items, after = [], {}
    for item in requests():
        place, close = closing(free[item.id])
        items.append(with_thinking(item, token_marks(close, place + 1)))
        after[item.id] = ThinkingState(token_marks(close, None), free[item.id]).count
        assert after[item.id] == place
    assert {id: done.tokens for id, done in run(make_engine(exact=True), items).items()} == free


def limited(free: dict[str, list[int]], budget: int = 5) -> list[Request]:
    return [with_thinking(item, token_marks(closing(free[item.id])[1], budget)) for item in requests()]


def test_the_budget_is_kept_and_the_chain_goes_on_as_from_there(free: dict[str, list[int]]) -> None:
    """With the noise of its places: as one would that was given the same tokens and has no budget."""
    items = limited(free)
    done = run(make_engine(exact=True), items)
    given = []
    for item in items:
        chain = done[item.id].tokens
        close = closing(free[item.id])[1]
        assert chain[:6] == [*free[item.id][:5], close] and len(chain) == 30
        assert item.sampling.thinking is not None
        assert ThinkingState(item.sampling.thinking, chain).count == 5
        plain = replace(item, sampling=replace(item.sampling, thinking=None))
        given.append(replace(plain, progress=Progress(tuple(chain[:6]), Counters())))
    again = run(make_engine(exact=True), given)
    assert {id: one.tokens for id, one in again.items()} == {id: one.tokens for id, one in done.items()}


def test_alone_preempted_and_continued(free: dict[str, list[int]]) -> None:
    """Whatever is around it; a chain that goes on elsewhere from any of its tokens."""
    items = limited(free)
    whole = {id: outcome(done) for id, done in run(make_engine(exact=True), items).items()}
    memory = kv_memory(make_engine(), 9)
    short = run(make_engine(exact=True, kv_memory=memory, max_batch=6), items)
    assert {id: outcome(done) for id, done in short.items()} == whole
    assert any(done.preemptions for done in short.values())
    item = items[3]
    chain = whole[item.id][0]
    alone = make_engine(exact=True, max_batch=1)
    for length in (*range(8), 29):
        (done,) = run(alone, [replace(item, progress=Progress(tuple(chain[:length])))]).values()
        assert done.tokens == chain


def test_others_in_the_batch_do_not_notice(free: dict[str, list[int]]) -> None:
    """And decode in the same steps; captured ones too, where logits differ in their last bits only."""
    for exact in (True, False):
        mixed = [item if n % 2 else limited(free)[n] for n, item in enumerate(requests())]
        done: dict[str, Completion] = run(make_engine(exact=exact), mixed)
        for n, item in enumerate(requests()):
            chain = done[item.id].tokens
            assert chain == free[item.id] if n % 2 else chain[:5] == free[item.id][:5]


def test_the_limit_cuts_what_is_forced_and_an_end_token_in_it_ends_the_chain() -> None:
    item = request("a/0", tokens(5), 8)
    cut = run(make_engine(), [with_thinking(item, spelled(4))])["a/0"]
    assert bytes(cut.tokens[4:]) == b"</th" and cut.finish_reason == "length"
    ends = replace(item.sampling, eos_token_ids=(ord("h"),), thinking=spelled(4))
    ended = run(make_engine(), [replace(item, sampling=ends)])["a/0"]
    assert bytes(ended.tokens[4:]) == b"</th" and ended.finish_reason == "stop"
    none = run(make_engine(), [with_thinking(item, spelled(0))])["a/0"]
    assert bytes(none.tokens) == b"</think>"
