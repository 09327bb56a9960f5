"""The scheduler without a model: pages hold token ids instead of keys, and states a hash of all tokens that
went through them, so every read can be checked."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import reduce

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from seer_ray.engine.pages import Keeps, PagePool
from seer_ray.engine.request import Progress, Request, SamplingParams
from seer_ray.engine.scheduler import Schedule, Scheduler
from seer_ray.engine.sequence import Sequence

BLOCK = 4
NEW = 0
"""A state before any token."""


def hash_of(tokens: Iterable[int], before: int = NEW) -> int:
    """The state after some tokens."""
    return reduce(lambda state, token: hash((state, token)), tokens, before)


class Machine:
    """Computes plans: a page is a list of the tokens that were written to it."""

    def __init__(
        self,
        pages: int,
        max_batch: int,
        chunk: int,
        exact: bool,
        ahead: bool = False,
        windows: tuple[tuple[int, Keeps], ...] = (),
        snapshots: int | None = None,
        full: bool = True,
    ) -> None:
        """
        Args:
            pages: of the group that keeps everything.
            ahead: a step is computed before the tokens of the one before are read.
            windows: pages of groups that do not keep everything, and what they keep.
            snapshots: slots for states of prompts; None: there are no states.
            full: there is a group that keeps everything.
        """
        sizes = [*([(pages, Keeps())] if full else []), *windows]
        pools = [PagePool(count + 1, keeps) for count, keeps in sizes]
        slots = None if snapshots is None else range(max_batch, max_batch + snapshots)
        self.scheduler = Scheduler(pools, BLOCK, max_batch, chunk, exact, slots)
        self.memory = [[[-1] * BLOCK for _ in range(count + 1)] for count, _ in sizes]
        self.states: list[int | None] = [None] * (max_batch + (snapshots or 0))
        """By slot; None: of nobody yet."""
        self._stateful = snapshots is not None
        self.alive: dict[str, Sequence] = {}
        self.lengths: dict[str, int] = {}
        self.stranded: list[str] = []
        self.prefilled = self.decoded = 0
        self.ahead = ahead
        self.unread: list[Sequence] = []

    def submit(
        self, name: str, prompt: int, kind: int, new: int, begun: int = 0, limit: int | None = None
    ) -> Sequence:
        """Prompts of one kind and length are the same. ``begun`` tokens come from another engine. That there
        are ``new`` tokens is known beforehand only where ``limit`` says so."""
        tokens = random.Random(kind).choices(range(100), k=prompt)
        progress = Progress(tuple(self.token(name, n) for n in range(begun)))
        sequence = Sequence(Request(name, tuple(tokens), SamplingParams(limit or 2 * new), progress=progress))
        self.scheduler.add(sequence)
        self.alive[name], self.lengths[name] = sequence, new
        return sequence

    def abort(self, name: str) -> None:
        self.settle()
        if name in self.alive:
            self.scheduler.remove(self.alive.pop(name))
        self.scheduler.check()

    @staticmethod
    def token(name: str, n: int) -> int:
        return random.Random(f"{name}.{n}").randrange(100)

    def step(self) -> Schedule:
        reads = bool(self.unread)
        scheduled = self.scheduler.schedule(self.settle)
        self.scheduler.check()
        self._check(scheduled, reads)
        for sequence in scheduled.stranded:
            self.stranded.append(sequence.request.id)
            self.abort(sequence.request.id)
        for group, source, target in scheduled.copies:
            self.memory[group][target] = list(self.memory[group][source])
        for slot, target in scheduled.moves:
            self.states[target] = NEW if slot is None else self.states[slot]
        for chunk in scheduled.prefill:
            self._compute(chunk.sequence, chunk.start, chunk.end)
            self.prefilled += chunk.end - chunk.start
        for sequence in scheduled.decode:
            self._compute(sequence, sequence.cached, sequence.cached + 1)
        before, self.unread = self.unread, [sequence for sequence in scheduled.decode if sequence.ready]
        self.decoded += len(scheduled.decode)
        self.scheduler.commit(scheduled)
        self._read(before)
        if not self.ahead:
            self.settle()
        self.scheduler.check()
        inside = [*self.scheduler.waiting, *self.scheduler.running]
        assert {id(s) for s in inside} == {id(s) for s in self.alive.values()}
        assert len(inside) == len(self.alive)
        return scheduled

    def settle(self) -> bool:
        before, self.unread = self.unread, []
        self._read(before)
        return bool(before)

    def _read(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            name = sequence.request.id
            sequence.tokens.append(self.token(name, sequence.generated))
            if sequence.generated >= self.lengths[name]:
                if sequence in self.unread:
                    self.unread.remove(sequence)
                del self.alive[name]
                self.scheduler.finish(sequence)

    def drain(self) -> None:
        work = sum(len(s.tokens) + self.lengths[s.request.id] for s in self.alive.values())
        limit = 10 + work * (len(self.alive) + 1)  # every chain computed anew for every other one
        while self.alive:
            limit -= 1
            assert limit, "no end"
            self.step()
        assert all(pool.used == 0 for pool in self.scheduler.pools)

    def _check(self, scheduled: Schedule, reads: bool) -> None:
        scheduler = self.scheduler
        if self.alive:
            assert scheduled.prefill or scheduled.decode or scheduled.stranded or reads, (
                "a step without progress"
            )
        planned = [*scheduled.decode, *(chunk.sequence for chunk in scheduled.prefill), *scheduled.stranded]
        assert len({id(sequence) for sequence in planned}) == len(planned)
        assert all(sequence in scheduler.running for sequence in planned)
        assert sum(chunk.end - chunk.start for chunk in scheduled.prefill) <= scheduler.prefill_chunk
        for chunk in scheduled.prefill:
            assert chunk.start == chunk.sequence.cached
            end = chunk.sequence.prompt_length if scheduler.exact else len(chunk.sequence.tokens)
            assert chunk.end == end - 1 or chunk.end % scheduler.prefill_chunk == 0
        for sequence in scheduled.stranded:
            assert scheduler.running == [sequence]
            assert any(pool.free == 0 for pool in scheduler.pools)

    def _compute(self, sequence: Sequence, start: int, end: int) -> None:
        for pool, pages, memory in zip(self.scheduler.pools, sequence.pages, self.memory, strict=True):
            decodes = end == start + 1 and start >= self.scheduler._prefill_goal(sequence)
            behind = pool.keeps.behind(start, BLOCK, decodes)
            for position in range(start):
                if position // BLOCK in behind:  # what nothing looks back to any more is given back
                    assert pages[position // BLOCK] == 0
                    continue
                held = memory[pages[position // BLOCK]][position % BLOCK]
                assert held == self._given(sequence, position), "another sequence's token"
            for position in range(start, end):
                page = pages[position // BLOCK]
                assert page and not pool.is_shared(page), "written while others read it"
                memory[page][position % BLOCK] = self._given(sequence, position)
        if self._stateful:
            before = hash_of(self._given(sequence, position) for position in range(start))
            assert self.states[sequence.slot] == before, "another sequence's state"
            passed = (self._given(sequence, position) for position in range(start, end))
            self.states[sequence.slot] = hash_of(passed, before)

    def _given(self, sequence: Sequence, position: int) -> int:
        if position < len(sequence.tokens):
            return sequence.tokens[position]
        assert sequence in self.unread and position == len(sequence.tokens)
        return self.token(sequence.request.id, sequence.generated)


LAYERS = st.sampled_from(["full", "full", "window", "full+window", "full+state", "state", "all"])


class Scheduling(RuleBasedStateMachine):
    """Any order of submissions, steps and aborts, for models of any kinds of layers, in pools that are too
    small for all and, some, for one."""

    @initialize(
        pages=st.integers(2, 12),
        batch=st.integers(1, 5),
        chunk=st.integers(1, 9),
        mode=st.sampled_from(["default", "exact", "ahead"]),
        layers=LAYERS,
        reach=st.integers(1, 11),
        first=st.integers(0, 2),
        whole_prompts=st.booleans(),
        spare=st.integers(0, 6),
        snapshots=st.integers(0, 2),
    )
    def start(
        self,
        pages: int,
        batch: int,
        chunk: int,
        mode: str,
        layers: str,
        reach: int,
        first: int,
        whole_prompts: bool,
        spare: int,
        snapshots: int,
    ) -> None:
        # As the engine has it: a window's pool holds the pages of one sequence and those of a chunk.
        keeps = Keeps(reach, first, whole_prompts)
        least = first + (reach + BLOCK - 2) // BLOCK + 1 + chunk // BLOCK + 1
        self.machine = Machine(
            pages,
            batch,
            chunk,
            mode == "exact",
            mode == "ahead",
            ((least + spare, keeps),) if "window" in layers or layers == "all" else (),
            snapshots if "state" in layers or layers == "all" else None,
            "full" in layers or layers == "all",
        )
        self.submitted = 0

    @rule(
        prompt=st.sampled_from([1, 2, BLOCK, BLOCK + 1, 7, 2 * BLOCK + 1]),
        kind=st.integers(0, 1),
        new=st.integers(1, 14),
        begun=st.sampled_from([0, 0, 0, 1, 5]),
        samples=st.integers(1, 3),
        known=st.booleans(),
    )
    def submit(self, prompt: int, kind: int, new: int, begun: int, samples: int, known: bool) -> None:
        for _ in range(samples):
            self.submitted += 1
            new = max(new, begun + 1)
            self.machine.submit(f"r{self.submitted}", prompt, kind, new, begun, new if known else None)

    @rule(steps=st.integers(1, 6))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.machine.step()

    @precondition(lambda self: self.machine.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.machine.abort(data.draw(st.sampled_from(sorted(self.machine.alive))))

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.machine.drain()


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=200, stateful_step_count=30)


@pytest.mark.parametrize("exact", [False, True])
def test_samples_share_the_pages_of_their_prompt(exact: bool) -> None:
    machine = Machine(pages=40, max_batch=8, chunk=8, exact=exact)
    for sample in range(4):
        machine.submit(f"p/{sample}", prompt=18, kind=0, new=30)
    while len(machine.scheduler.running) < 4:
        machine.step()
    machine.step()
    assert machine.prefilled == 17
    first, *others = machine.scheduler.running
    for other in others:
        assert other.pages[0][:4] == first.pages[0][:4]  # 16 of the 17 tokens
        assert other.pages[0][4] != first.pages[0][4]
    assert machine.scheduler.pools[0].used == 4 + 4
    machine.drain()


def test_a_sample_that_comes_later_shares_with_one_that_runs() -> None:
    machine = Machine(pages=40, max_batch=8, chunk=8, exact=True)
    machine.submit("p/0", prompt=18, kind=0, new=30)
    for _ in range(12):
        machine.step()
    machine.submit("p/1", prompt=18, kind=0, new=30)
    machine.step()
    first, second = machine.scheduler.running
    assert machine.prefilled == 17 and first.pages[0][:4] == second.pages[0][:4]
    machine.drain()


def test_prompts_are_kept_for_samples_that_wait() -> None:
    """One row: no sample of the prompt runs any more when the next one starts."""
    machine = Machine(pages=10, max_batch=1, chunk=8, exact=False)
    for sample in range(5):
        machine.submit(f"p/{sample}", prompt=11, kind=0, new=3)
    machine.drain()
    assert machine.prefilled == 10


def test_steps_ahead_of_what_is_read() -> None:
    """A row too many only where nobody could know."""
    machine = Machine(pages=40, max_batch=4, chunk=16, exact=False, ahead=True)
    machine.submit("known", prompt=6, kind=0, new=9, limit=9)
    machine.submit("unknown", prompt=6, kind=1, new=7)
    machine.drain()
    assert machine.decoded == 9 + 7 + 1


def test_nobody_gives_way_to_a_token_too_many() -> None:
    """Three pages each: the fourth of one, for a token that nobody wants, would be the other's third."""
    machine = Machine(pages=6, max_batch=2, chunk=8, exact=False, ahead=True)
    machine.submit("old", prompt=4, kind=0, new=9)
    machine.step()
    machine.submit("new", prompt=4, kind=1, new=8)
    machine.drain()
    assert machine.scheduler.preemptions == 0


def test_decoding_waits_for_no_more_than_a_chunk() -> None:
    machine = Machine(pages=200, max_batch=4, chunk=8, exact=False)
    machine.submit("short", prompt=2, kind=0, new=100)
    machine.step()
    machine.submit("long", prompt=100, kind=1, new=1)
    for done in range(12):
        scheduled = machine.step()
        assert [s.request.id for s in scheduled.decode] == ["short"]
        assert sum(c.end - c.start for c in scheduled.prefill) == 8, done
    machine.drain()


def test_short_prompts_share_a_chunk() -> None:
    machine = Machine(pages=50, max_batch=8, chunk=16, exact=False)
    for name in range(5):
        machine.submit(str(name), prompt=6, kind=name, new=2)
    assert [len(machine.step().prefill) for _ in range(2)] == [3, 2]
    machine.drain()


def test_the_newest_gives_way_and_keeps_its_tokens() -> None:
    machine = Machine(pages=8, max_batch=2, chunk=8, exact=False)
    old = machine.submit("old", prompt=4, kind=0, new=20)
    new = machine.submit("new", prompt=4, kind=1, new=20)
    while not new.preemptions:
        machine.step()
    assert old.preemptions == 0 and old.slot >= 0
    assert new.slot == -1 and not new.pages and new.generated > 3
    kept = list(new.tokens)
    machine.drain()
    assert new.tokens[: len(kept)] == kept and new.generated == 20
    assert machine.scheduler.preemptions == old.preemptions + new.preemptions


def test_a_chain_that_outgrows_the_pool_is_stranded_and_the_next_goes_on() -> None:
    machine = Machine(pages=3, max_batch=2, chunk=8, exact=False)
    machine.submit("large", prompt=4, kind=0, new=20)
    machine.submit("small", prompt=4, kind=1, new=3)
    machine.drain()
    assert machine.stranded == ["large"]


def test_nothing_is_reserved_for_the_worst_case() -> None:
    """Chains that may take 80 tokens each, in a pool for half of that."""
    machine = Machine(pages=40, max_batch=4, chunk=16, exact=False)
    for name in range(4):
        machine.submit(str(name), prompt=4, kind=name, new=40)
    machine.step()
    assert len(machine.scheduler.running) >= 3
    machine.drain()


def test_admission_counts_what_those_before_will_take() -> None:
    """All come at once, when nobody has a page yet: four prompts of five pages, ten pages."""
    machine = Machine(pages=10, max_batch=4, chunk=4, exact=False)
    for name in range(4):
        machine.submit(str(name), prompt=17, kind=name, new=2)
    machine.step()
    assert len(machine.scheduler.running) == 1  # and not two: they go on to grow
    machine.drain()
    assert machine.scheduler.preemptions == 0


def test_admission_counts_the_copies_of_shared_pages() -> None:
    """Prompts of 5 tokens less one: a full page and a part that each sample copies."""
    machine = Machine(pages=8, max_batch=8, chunk=8, exact=False)
    for sample in range(8):
        machine.submit(f"p/{sample}", prompt=6, kind=0, new=2)
    machine.drain()
    assert machine.scheduler.preemptions == 0


def test_starved_says_that_pages_are_short() -> None:
    machine = Machine(pages=4, max_batch=4, chunk=16, exact=False)
    machine.submit("a", prompt=9, kind=0, new=4)
    machine.step()
    assert not machine.scheduler.starved
    machine.submit("b", prompt=9, kind=1, new=4)
    machine.step()
    assert machine.scheduler.starved
    machine.drain()
    machine.step()
    assert not machine.scheduler.starved
