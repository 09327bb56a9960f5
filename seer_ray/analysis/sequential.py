"""Sequential samples: stop sampling a problem once its majority answer is decided.

It is certain where the samples to come cannot change it, whatever they say. Before that it is tested against
each other answer k whether the leader j is the more frequent one. Of the samples that say j or k, the share
of j is at most 1/2 under the hypothesis; whoever bets on more, at all shares from 1/2 to 1 alike, has a
wealth that is not expected to grow (a betting martingale, as in ``racing``), of

    e(a, b) = sum over i <= a of C(a + b + 1, i), over (a + b + 1) C(a + b, a)

after a samples of j and b of k. Which answer leads is found in the same samples. So an answer's bets begin
behind its first appearance, and the i-th new answer has the part 3/4^i of the stakes: what all answers but
the most frequent one have won against that one is a supermartingale of expectation 1. By Ville's inequality
the chance that it ever reaches 1/error is at most ``error``. An answer that never came up has b = 0, so is
held against the leader too. It holds at every look, for any number of answers and of samples, given that
samples of a problem are independent, as their noise is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb


@dataclass(frozen=True)
class Saved:
    """What was not sampled, as its problem was decided."""

    problems: int = 0
    """That were decided before all samples were there."""
    samples: int = 0
    tokens: int = 0
    """Of those samples, had they been as long as the others of their problem on average."""


def decided(answers: Sequence[str | None], samples: int, error: float) -> bool:
    """Whether a problem needs no more samples.

    Args:
        answers: of its samples so far, in their order; None: it gave none, and votes for nothing
        samples: that there would be at most
        error: chance that a problem is stopped at an answer that is not the one which the model gives most
            often; 0: stopped only where the majority of all samples is certain
    """
    first: dict[str, int] = {}
    votes: dict[str, int] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            first.setdefault(answer, place)
            votes[answer] = votes.get(answer, 0) + 1
    if not votes:
        return False
    leader = max(votes, key=lambda answer: votes[answer])  # among equals the first: ``rows.majority``
    left = samples - len(answers)
    others = [answer for answer in votes if answer != leader]
    if votes[leader] >= left and all(
        votes[leader] - votes[other] - left >= (first[other] < first[leader]) for other in others
    ):
        return True
    if error <= 0:
        return False
    later = answers[first[leader] + 1 :]
    against = max((later.count(other) for other in others), default=0)
    rank = 1 + sum(place < first[leader] for place in first.values())
    return Fraction(3, 4**rank) * wealth(later.count(leader), against) * Fraction(error) >= 1


@lru_cache(maxsize=4096)
def wealth(wins: int, losses: int) -> Fraction:
    """Of one who began with 1 and bet on the leader, exactly."""
    rounds = wins + losses
    heads = sum(comb(rounds + 1, i) for i in range(wins + 1))
    return Fraction(heads, (rounds + 1) * comb(rounds, wins))
