"""Which sequences run, what each computes next, and on which pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from seer_ray.engine.holding import Holding
from seer_ray.engine.pages import OutOfPages, PagePool
from seer_ray.engine.prompts import Prompts
from seer_ray.engine.sequence import Sequence


@dataclass(frozen=True)
class Chunk:
    """Tokens ``start`` to ``end`` of a sequence, to be prefilled in one pass."""

    sequence: Sequence
    start: int
    end: int


@dataclass
class Schedule:
    """One engine step."""

    prefill: list[Chunk] = field(default_factory=list)
    decode: list[Sequence] = field(default_factory=list)
    copies: list[tuple[int, int, int]] = field(default_factory=list)
    """Pages to copy (group, from, to) before anything is written."""
    moves: list[tuple[int | None, int]] = field(default_factory=list)
    """States to copy (from, to) before that, in order; from None: nothing came before."""
    stranded: list[Sequence] = field(default_factory=list)
    """Alone in the cache and still out of pages."""

    def prune(self) -> None:
        """Take out who has gone since he was planned. His copies may stay: they are done in order, before any
        write, so a page that has a new owner by now holds nothing that the owner will read."""
        self.decode = [sequence for sequence in self.decode if sequence.slot >= 0]
        self.prefill = [chunk for chunk in self.prefill if chunk.sequence.slot >= 0]


PATIENCE = 8
"""Steps after which one that was not admitted is looked at again, where nothing has left or ended."""


def expected_tokens(limit: int) -> int:
    """Of a chain that may have so many, before any has ended."""
    return limit // 2


class Scheduler:
    """Continuous batching over page pools and state slots.

    Order of admission is order of submission; a preempted sequence goes back to the front. Nothing is
    reserved for the worst case: pages are taken as tokens come, and when none is left the newest sequence
    gives its pages up, keeps its tokens and is computed again later.

    Args:
        pools: of each cache group.
        block: tokens a page.
        max_batch: rows; the state of a row's sequence is in the slot of that number.
        prefill_chunk: prompt tokens a step, at most.
        exact: replay generated tokens as decode steps.
        snapshots: state slots for prompts that wait for further samples; None: no layer keeps a state.
    """

    def __init__(
        self,
        pools: Seq[PagePool],
        block: int,
        max_batch: int,
        prefill_chunk: int,
        exact: bool,
        snapshots: Seq[int] | None = None,
    ) -> None:
        self.pools = pools
        self.block = block
        self.max_batch = max_batch
        self.prefill_chunk = prefill_chunk
        self.exact = exact
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.starved = False
        """Rows are free, pages are not: the next in the queue was not admitted."""
        self._slots = list(range(max_batch - 1, -1, -1))
        self._prompts = Prompts(pools, block, snapshots)
        self._holding = Holding(pools, block)
        self._states = snapshots is not None
        self._moves: list[tuple[int | None, int]] = []
        self._finished = 0
        self._finished_tokens = 0
        self._changed = True
        """What admission goes by has changed since it was looked at last, beyond tokens that were made."""
        self._refusals = 0

    # -- in and out ----------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        self._changed |= not self.waiting
        self.waiting.append(sequence)
        self._prompts.want(sequence)

    def finish(self, sequence: Sequence) -> None:
        """The sequence has all its tokens: its pages and its row are free."""
        self._finished += 1
        self._finished_tokens += sequence.generated
        self._drop(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is."""
        if sequence.slot >= 0:
            self._drop(sequence)
        else:
            self.waiting.remove(sequence)
            self._prompts.unwant(sequence)

    def _drop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._slots.append(sequence.slot)
        self._prompts.release(sequence.pages)
        sequence.pages, sequence.cached, sequence.slot = [], 0, -1
        sequence.secured, sequence.placed = 0, False
        self._changed = True

    # -- a step --------------------------------------------------------------------------------------

    def schedule(self, settle: Callable[[], bool] = lambda: False) -> Schedule:
        """What to compute now. Decoding never waits for more than ``prefill_chunk`` prompt tokens.

        ``settle`` takes in what launched steps have made, and says whether there was any. It is called before
        anybody gives way: chains that turn out to have ended make room.
        """
        scheduled = Schedule()
        # First, so that the pages which newcomers share are copied by whoever writes to them now.
        self._admit()
        # Oldest first, so that it is the newest that has to give way.
        decode, behind = scheduled.decode, list[Sequence]()
        for sequence in list(self.running):
            if sequence.cached < sequence.secured:  # most rows in most steps: what it costs counts
                decode.append(sequence)
            elif sequence.slot < 0:
                continue
            elif not self._decodes(sequence):
                behind.append(sequence)
            elif not sequence.full and self._reserve(sequence, sequence.cached + 1, scheduled, settle):
                sequence.secured = self._secured(sequence)
                decode.append(sequence)
        room = self.prefill_chunk
        for sequence in behind:
            if sequence.slot < 0 or room <= 0:
                continue
            start, goal = sequence.cached, self._prefill_goal(sequence)
            # Chunk boundaries are multiples of the chunk size, whatever else is in the step.
            end = min(goal, (start // self.prefill_chunk + 1) * self.prefill_chunk)
            if end - start > room:
                break
            if self._reserve(sequence, end, scheduled, settle, preempt=False):
                scheduled.prefill.append(Chunk(sequence, start, end))
                room -= end - start
        scheduled.prune()
        scheduled.moves, self._moves = self._moves, []
        return scheduled

    def commit(self, scheduled: Schedule) -> None:
        """The scheduled has been launched."""
        for chunk in scheduled.prefill:
            sequence = chunk.sequence
            sequence.cached = chunk.end
            self._changed = True
            if (move := self._prompts.keep(sequence)) is not None:
                self._moves.append(move)
            if self._decodes(sequence):
                sequence.enter("decode")
        for sequence in scheduled.decode:
            sequence.cached += 1

    def _prefill_goal(self, sequence: Sequence) -> int:
        """Tokens computed by prefill. In exact mode generated tokens are replayed as decode steps."""
        return (sequence.prompt_length if self.exact else len(sequence.tokens)) - 1

    def _decodes(self, sequence: Sequence) -> bool:
        return sequence.cached >= self._prefill_goal(sequence)

    # -- pages ---------------------------------------------------------------------------------------

    def _reserve(
        self,
        sequence: Sequence,
        end: int,
        scheduled: Schedule,
        settle: Callable[[], bool],
        preempt: bool = True,
    ) -> bool:
        """Pages that may be written for tokens up to ``end``. False: not now."""
        while True:
            try:
                copies, decodes = scheduled.copies, self._decodes(sequence)
                self._changed |= self._holding.own(sequence, end, decodes, copies)
                return True
            except OutOfPages:
                if settle():
                    if sequence.slot < 0:
                        return False
                    continue
                if self._prompts.yield_one():
                    continue
            newest = self.running[-1]
            if newest is sequence and len(self.running) == 1:
                scheduled.stranded.append(sequence)
                return False
            if not preempt and newest is sequence:
                return False  # those before it will finish and make room
            self._preempt(newest)
            if newest is sequence:
                return False

    def lengthen(self, sequence: Sequence, tokens: int) -> int:
        """See ``Holding``."""
        return self._holding.lengthen(sequence, tokens)

    def shorten(self, sequence: Sequence) -> None:
        """See ``Holding``."""
        self._changed |= self._holding.shorten(sequence)

    def _secured(self, sequence: Sequence) -> int:
        """The first token that it has no page for, may not have, or gives pages back for."""
        cached, block = sequence.cached, self.block
        ends = [(cached // block + 1) * block, sequence.limit - 1]
        ends += [
            ((cached - pool.keeps.reach + 1) // block + 1) * block + pool.keeps.reach - 1
            for pool in self.pools
            if pool.keeps.reach is not None
        ]
        return min(ends)

    def _preempt(self, sequence: Sequence) -> None:
        self._drop(sequence)
        sequence.preemptions += 1
        self.preemptions += 1
        sequence.enter("queued")
        self.waiting.appendleft(sequence)
        self._prompts.want(sequence)

    # -- admission -----------------------------------------------------------------------------------

    def _admit(self) -> None:
        if not self.waiting or not self._slots:
            self.starved = False
            return
        # Chains that grow may bring room nearer as well, but slowly.
        self._refusals += 1
        if self.starved and not self._changed and self._refusals % PATIENCE:
            return
        self.starved = self._changed = False
        leading = {s.prompt_key for s in self.running if s.cached < s.prompt_length - 1}
        for sequence in list(self.waiting):
            if not self._slots:
                return
            prompt = self._prompts.find(sequence, self.running)
            if prompt is None and sequence.prompt_key in leading:
                continue  # another sample is computing this prompt; share it when it is there
            if not self._fits(sequence, prompt is not None):
                self.starved = True
                return
            self.waiting.remove(sequence)
            sequence.slot = self._slots.pop()
            self.running.append(sequence)
            if prompt is not None:
                sequence.pages = self._prompts.share(prompt.pages)
                sequence.cached = sequence.prompt_length - 1
                for other in self.running:  # who writes to a page that is shared by now copies it first
                    if other.prompt_key == sequence.prompt_key:
                        other.secured = 0
            else:
                sequence.pages = [[] for _ in self.pools]
                if sequence.prompt_length > 1:
                    leading.add(sequence.prompt_key)
            if self._states:
                self._moves.append((prompt.slot if prompt is not None else None, sequence.slot))
            sequence.enter("decode" if self._decodes(sequence) else "prefill")
            self._prompts.unwant(sequence)

    def _fits(self, sequence: Sequence, shares: bool) -> bool:
        """Expected need, not the worst case: chains in flight are, on average, half-way through what is
        still to come."""
        if not self.running:
            return True
        shared = (sequence.prompt_length - 1) // self.block if shares else 0
        to_come = sum(self._expected_rest(s) for s in [*self.running, sequence]) // 2
        for group, pool in enumerate(self.pools):
            own = max(0, pool.keeps.pages(len(sequence.tokens), self.block) - shared)
            lacking = sum(self._lacks(s, group) for s in self.running)
            # Of a window, what is to come takes the place of what is behind.
            growth = self._holding.count(to_come) if pool.keeps.reach is None else 0
            if pool.used + own + lacking + growth > pool.capacity:
                return False
        return True

    def _lacks(self, sequence: Sequence, group: int) -> int:
        """Pages that it will take for the tokens that it has."""
        pool, pages = self.pools[group], sequence.pages[group]
        index = sequence.cached // self.block
        copies = index < len(pages) and pool.is_shared(pages[index])
        if pool.keeps.reach is None:
            return self._holding.count(sequence.length) - len(pages) + copies
        held = len(pages) - pages.count(0)
        return max(0, pool.keeps.pages(sequence.length, self.block, self._decodes(sequence)) - held) + copies

    def _expected_rest(self, sequence: Sequence) -> int:
        limit = sequence.request.sampling.max_new_tokens
        expected = self._finished_tokens // self._finished if self._finished else expected_tokens(limit)
        return min(max(expected - sequence.generated, self.block), limit - sequence.generated)

    # -- integrity -----------------------------------------------------------------------------------

    def _ownerships(self, group: int) -> Iterator[int]:
        for sequence in self.running:
            yield from filter(None, sequence.pages[group])
        yield from self._prompts.owned(group)

    def check(self) -> None:
        """Reference counts balance; rows are used once.

        Raises:
            RuntimeError: they do not: a bug.
        """
        for group, pool in enumerate(self.pools):
            pool.check(list(self._ownerships(group)))
        slots = sorted(self._slots + [sequence.slot for sequence in self.running])
        if slots != list(range(self.max_batch)):
            raise RuntimeError("batch rows do not balance")
