"""On simulated clocks: what passes take is a function of their sizes, with noise."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from hashlib import blake2b

import pytest

from seer_ray.engine.speculation.policy import Chance, Lengths, Row


@dataclass
class Machine:
    """Times in ms, of the order of SmolLM2 on two CPU cores."""

    weights: float = 30.0
    row: float = 0.4
    """Of a query token, beside the weights."""
    key: float = 1.7e-3
    """Of a key of dense attention."""
    budget: int = 1024
    again: float = 0.1
    """Of a key for each further query that reads it."""
    noise: float = 0.05
    disturbed: float = 0.01
    """Passes that take five times as long, as something else runs."""

    def plain(self, contexts: list[int]) -> float:
        return self.weights + self.row * len(contexts) + self.key * sum(contexts)

    def draft(self, contexts: list[int]) -> float:
        return self.weights + self.row * len(contexts) + self.key * sum(min(self.budget, c) for c in contexts)

    def verify(self, contexts: list[int], lengths: list[int]) -> float:
        tokens = sum(length + 1 for length in lengths)
        pairs = sum(c * (1 + self.again * length) for c, length in zip(contexts, lengths, strict=True))
        return self.weights + self.row * tokens + self.key * pairs


def right(row: int, position: int, chance: float) -> bool:
    """Whether a draft would be, whatever drafts and when: the same for all policies."""
    digest = blake2b(f"{row}/{position}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") < chance * 2**32


def run(machine: Machine, policy: Lengths, context: int, chances: list[float], tokens: int) -> float:
    """Time of a job of ``tokens`` tokens a row, without the noise that the policy sees."""
    draw, pool = random.Random(1), Chance()
    known, made = [Chance(pool) for _ in chances], [0] * len(chances)
    clock, wanted = 0.0, tokens * len(chances)

    def noisy(time: float) -> float:
        factor = math.exp(draw.gauss(0, machine.noise)) * (5 if draw.random() < machine.disturbed else 1)
        return time * factor

    total = resting = 0
    while total < wanted:
        contexts = [context + count for count in made]
        if resting:  # as engines do: nothing is looked at
            seconds = machine.plain(contexts)
            policy.stepped(contexts, noisy(seconds))
            clock, total, resting = clock + seconds, total + len(made), resting - 1
            made = [count + 1 for count in made]
            continue
        rows = [Row(c, 7, chance.value) for c, chance in zip(contexts, known, strict=True)]
        lengths = policy.choose(rows)
        steps, resting = max(lengths), policy.rest
        drafted = [c for c, length in zip(contexts, lengths, strict=True) if length]
        draft_s = steps * machine.draft(drafted)
        verify_s = machine.verify(contexts, lengths) if steps else machine.plain(contexts)
        for at, (length, chance) in enumerate(zip(lengths, chances, strict=True)):
            accepted = 0
            while accepted < length and right(at, made[at] + accepted, chance):
                accepted += 1
            if length:
                known[at].take(length, accepted)
            made[at] += accepted + 1
            total += accepted + 1
        policy.took(rows, lengths, noisy(draft_s), noisy(verify_s))
        clock += draft_s + verify_s
    return clock * wanted / total


def beside(machine: Machine, context: int, chances: list[float], tokens: int) -> tuple[float, int]:
    """Time of ``auto`` over that of the better of on (4) and off; how long it should draft."""
    auto = run(machine, Lengths(7, True), context, chances, tokens)
    others = {k: run(machine, Lengths(k, False), context, chances, tokens) for k in (0, 4)}
    best = min(others, key=lambda k: others[k])
    return auto / others[best], best


def near_the_better(
    context: int, rows: int, chances: tuple[float, ...], tokens: int, **machine: float
) -> None:
    spread = [chances[at % len(chances)] for at in range(rows)]
    ratio, best = beside(Machine(**machine), context, spread, tokens)  # type: ignore[arg-type]
    assert ratio < 1.03, (context, rows, chances, best, ratio)


@pytest.mark.parametrize("context", [500, 2000, 8000])
def test_auto_is_near_the_better_of_on_and_off(context: int) -> None:
    for rows, chance in ((1, 0.6), (1, 0.9), (4, 0.75), (16, 0.35), (16, 0.9)):
        near_the_better(context, rows, (chance,), 400)


@pytest.mark.slow
@pytest.mark.parametrize("context", [500, 1000, 2000, 4000, 8000])
@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16])
def test_everywhere(context: int, rows: int) -> None:
    for chance in (0.35, 0.6, 0.75, 0.9):
        near_the_better(context, rows, (chance,), 600)


@pytest.mark.parametrize("machine", [{"noise": 0.2}, {"weights": 5.0}, {"again": 0.6}, {"row": 8.0}])
def test_on_other_machines(machine: dict[str, float]) -> None:
    """Others run beside it, weights are small, further queries or tokens cost almost as much as the first."""
    near_the_better(4000, 8, (0.8,), 600, **machine)


def test_rows_that_are_drafted_badly_get_short_drafts() -> None:
    machine, policy = Machine(row=2.0), Lengths(7, True)
    near_the_better(6000, 8, (0.95, 0.95, 0.95, 0.1), 400, row=2.0)
    run(machine, policy, 6000, [0.95, 0.95, 0.95, 0.1] * 2, 400)
    found = [policy.choose([Row(6400, 7, 0.95)] * 3 + [Row(6400, 7, 0.1)]) for _ in range(3)]
    assert max(lengths[0] for lengths in found) > max(lengths[3] for lengths in found)


def test_it_finds_its_way_when_the_batch_changes() -> None:
    """From sixteen long rows, which are to be drafted, to one short row, which is not, and back."""
    machine, policy = Machine(noise=0.0, disturbed=0.0), Lengths(7, True)
    for _ in range(3):
        run(machine, policy, 8000, [0.8] * 16, 100)
        assert max(map(max, chosen(policy, [Row(8100, 7, 0.8)] * 16))) >= 2
        run(machine, policy, 500, [0.6], 300)
        assert sum(max(lengths) for lengths in chosen(policy, [Row(800, 7, 0.6)])) <= 7


def chosen(policy: Lengths, rows: list[Row]) -> list[list[int]]:
    return [policy.choose(rows) for _ in range(3)]


def test_a_fixed_length_is_what_was_asked_for() -> None:
    policy = Lengths(4, False)
    rows = [Row(100, 7, 0.1), Row(100, 2, 0.1), Row(100, 0, 0.9)]
    policy.took(rows, [4, 2, 0], 1.0, 1.0)
    assert policy.choose(rows) == [4, 2, 0]


def test_nothing_is_drafted_where_nothing_may_be() -> None:
    assert Lengths(7, True).choose([Row(100, 0, 0.9)] * 2) == [0, 0]
    assert Lengths(7, True).choose([]) == []


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_short_drafts_are_tried_too(longest: int) -> None:
    """Of rows near their end, or of an engine that may draft no more."""
    policy = Lengths(longest, True)
    rows = [Row(8000, longest, 0.95)] * 4
    for _ in range(20):
        lengths = policy.choose(rows)
        policy.took(rows, lengths, 20.0 * max(lengths), 100.0)
    assert max(policy.choose(rows)) == longest


def test_drafts_that_are_found_take_no_steps() -> None:
    """So they pay where steps would not."""
    policy = Lengths(7, True)
    rows = [Row(500, 7, 0.8, found=True)] * 4
    for _ in range(40):
        lengths = policy.choose(rows)
        policy.took(rows, lengths, 0.0, 30.0 + 0.4 * sum(length + 1 for length in lengths))
    assert max(policy.choose(rows)) >= 4


def test_drafts_that_are_found_and_wrong_are_left() -> None:
    """Beside rows for which none is found, and no steps to draft with."""
    policy, rows = Lengths(7, True), [Row(500, 7, 0.02, found=True), Row(500, 0, 0.5), Row(500, 0, 0.5)]
    for _ in range(60):
        lengths = policy.choose(rows)
        policy.took(rows, lengths, 0.0, 30.0 + 2.0 * sum(length + 1 for length in lengths))
    assert sum(max(policy.choose(rows)) for _ in range(5)) <= 7


def test_a_row_is_known_by_its_own_passes_in_time() -> None:
    pool = Chance()
    good, bad, new = Chance(pool), Chance(pool), Chance(pool)
    for _ in range(30):
        good.take(4, 4)
        bad.take(4, 0)
    assert good.value > 0.9 > pool.value > 0.3 > bad.value
    assert new.value == pytest.approx(pool.value)
    assert 0 <= bad.value <= 1


def test_ngrams_are_taken_before_steps_where_they_bring_more_tokens_a_second() -> None:
    policy, rows = Lengths(4, False), [Row(100, 4, 0.9)]
    assert policy.prefers_found(0.9, 0.95, 4) and not policy.prefers_found(0.5, 0.95, 4)  # nothing is known
    policy.took(rows, [4], 4 * 30.0, 60.0)  # 1.94 tokens in 60 against 4.52 in 180
    assert policy.prefers_found(0.5, 0.95, 4) and not policy.prefers_found(0.3, 0.95, 4)
    for _ in range(60):
        policy.took(rows, [4], 4 * 1.0, 60.0)
    assert not policy.prefers_found(0.5, 0.95, 4)


def test_it_looks_less_and_less_often_where_nothing_is_to_be_drafted() -> None:
    policy, rows, rests = Lengths(7, True), [Row(200, 7, 0.3)], []
    for _ in range(60):
        lengths = policy.choose(rows)
        policy.took(rows, lengths, 9.0 * max(lengths), 10.0)
        rests.append(policy.rest)
        for _ in range(policy.rest):
            policy.stepped([200], 10.0)
    assert max(rests) == 128 and sum(rests) > 1000
