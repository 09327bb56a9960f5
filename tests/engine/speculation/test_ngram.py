from __future__ import annotations

import random

import pytest

from seer_ray.engine.speculation.ngram import LEAST, NGrams


def slow(tokens: list[int], most: int) -> list[int]:
    """The definition: the longest match, the latest of equals."""
    best, found = LEAST - 1, -1
    for place in range(len(tokens) - 2, -1, -1):
        match = 0
        while match <= place and tokens[place - match] == tokens[len(tokens) - 1 - match]:
            match += 1
        if match > best:
            best, found = match, place
    if found < 0:
        return []
    drafts = list(tokens)
    for at in range(found + 1, found + 1 + most):
        drafts.append(drafts[at])
    return drafts[len(tokens) :]


@pytest.mark.parametrize("alphabet", [3, 6, 50])
def test_the_longest_match_is_proposed(alphabet: int) -> None:
    draw = random.Random(alphabet)
    for _ in range(30):
        tokens = [draw.randrange(alphabet) for _ in range(draw.randrange(60))]
        assert NGrams(tokens).propose(5) == slow(tokens, 5)


@pytest.mark.parametrize("step", [1, 7, 300])
def test_an_index_that_grows_is_one_that_is_made_at_once(step: int) -> None:
    draw = random.Random(step)
    phrases = [[draw.randrange(30_000) for _ in range(9)] for _ in range(40)]
    tokens = [token for _ in range(400) for token in draw.choice(phrases)]
    grown = NGrams()
    for start in range(0, len(tokens), step):
        grown.extend(tokens[start : start + step])
        if start % 210 == 0 or step > 1:
            assert grown.propose(7) == NGrams(tokens[: start + step]).propose(7)
    assert len(grown) == len(tokens)


def test_a_loop_is_proposed_beyond_its_end() -> None:
    assert NGrams([9, 1, 2, 1, 2, 1, 2, 1]).propose(5) == [2, 1, 2, 1, 2]


def test_nothing_is_proposed_without_a_match() -> None:
    assert NGrams().propose(4) == NGrams([1, 2, 3]).propose(4) == NGrams(range(500)).propose(4) == []
    assert NGrams([1, 2, 3, 1, 2, 3]).propose(0) == []


def test_long_chains_are_looked_up_in_few_steps() -> None:
    """Of a token that is everywhere, the latest places are looked at and no more."""

    class Counted(NGrams):
        looks = 0

        class _Before(list):  # type: ignore[type-arg]
            def __getitem__(self, at):  # type: ignore[no-untyped-def]
                Counted.looks += 1
                return super().__getitem__(at)

    index = Counted([1] * 50_000 + [2] + [1] * 50_000)
    index._before = Counted._Before(index._before)  # type: ignore[assignment]
    assert index.propose(4) == [1, 1, 1, 1]
    assert Counted.looks <= 40
