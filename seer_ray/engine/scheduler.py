"""Which sequences run, what each computes next, and on which pages."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from seer_ray.engine.pages import OutOfPages, PagePool
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
    copies: list[tuple[int, int]] = field(default_factory=list)
    """Pages to copy (from, to) before anything is written."""
    stranded: list[Sequence] = field(default_factory=list)
    """Alone in the cache and still out of pages."""

    def prune(self) -> None:
        """Take out who has gone since he was planned. His copies may stay: they are done in order, before any
        write, so a page that has a new owner by now holds nothing that the owner will read."""
        self.decode = [sequence for sequence in self.decode if sequence.slot >= 0]
        self.prefill = [chunk for chunk in self.prefill if chunk.sequence.slot >= 0]


class Scheduler:
    """Continuous batching over a page pool.

    Order of admission is order of submission; a preempted sequence goes back to the front. Nothing is
    reserved for the worst case: pages are taken as tokens come, and when none is left the newest sequence
    gives its pages up, keeps its tokens and is computed again later.
    """

    def __init__(self, pool: PagePool, block: int, max_batch: int, prefill_chunk: int, exact: bool) -> None:
        self.pool = pool
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
        self._wanted: Counter[bytes] = Counter()  # waiting sequences per prompt
        self._prefixes: dict[bytes, list[int]] = {}  # prompts kept for those that wait
        self._finished = 0
        self._finished_tokens = 0

    # -- in and out ----------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self._wanted[sequence.prompt_key] += 1

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
            self._leave_queue(sequence)

    def _drop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._slots.append(sequence.slot)
        for page in sequence.pages:
            self.pool.release(page)
        sequence.pages, sequence.cached, sequence.slot = [], 0, -1

    def _leave_queue(self, sequence: Sequence) -> None:
        key = sequence.prompt_key
        self._wanted[key] -= 1
        if not self._wanted[key]:
            del self._wanted[key]
            self._forget_prefix(key)

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
        for sequence in list(self.running):
            if (
                sequence.slot >= 0
                and self._decodes(sequence)
                and not sequence.full
                and self._reserve(sequence, sequence.cached + 1, scheduled, settle)
            ):
                scheduled.decode.append(sequence)
        room = self.prefill_chunk
        for sequence in list(self.running):
            if sequence.slot < 0 or self._decodes(sequence) or room <= 0:
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
        return scheduled

    def commit(self, scheduled: Schedule) -> None:
        """The scheduled has been launched."""
        for chunk in scheduled.prefill:
            sequence = chunk.sequence
            sequence.cached = chunk.end
            if self._wanted[sequence.prompt_key] and chunk.end >= sequence.prompt_length - 1:
                self._keep_prefix(sequence)
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
                self._own(sequence, end, scheduled)
                return True
            except OutOfPages:
                if settle():
                    if sequence.slot < 0:
                        return False
                    continue
                if self._prefixes:
                    self._forget_prefix(next(iter(self._prefixes)))
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

    def _own(self, sequence: Sequence, end: int, scheduled: Schedule) -> None:
        index = sequence.cached // self.block
        if index < len(sequence.pages) and self.pool.is_shared(sequence.pages[index]):
            page = self.pool.allocate()
            scheduled.copies.append((sequence.pages[index], page))
            self.pool.release(sequence.pages[index])
            sequence.pages[index] = page
        while len(sequence.pages) * self.block < end:
            sequence.pages.append(self.pool.allocate())

    def _preempt(self, sequence: Sequence) -> None:
        self._drop(sequence)
        sequence.preemptions += 1
        self.preemptions += 1
        sequence.enter("queued")
        self.waiting.appendleft(sequence)
        self._wanted[sequence.prompt_key] += 1

    # -- admission -----------------------------------------------------------------------------------

    def _admit(self) -> None:
        self.starved = False
        leading = {s.prompt_key for s in self.running if s.cached < s.prompt_length - 1}
        for sequence in list(self.waiting):
            if not self._slots:
                return
            prompt = self._prompt_pages(sequence)
            if not prompt and sequence.prompt_key in leading:
                continue  # another sample is computing this prompt; share it when it is there
            if not self._fits(sequence, bool(prompt)):
                self.starved = True
                return
            self.waiting.remove(sequence)
            sequence.slot = self._slots.pop()
            self.running.append(sequence)
            if prompt:
                sequence.pages = [self.pool.share(page) for page in prompt]
                sequence.cached = sequence.prompt_length - 1
            elif sequence.prompt_length > 1:
                leading.add(sequence.prompt_key)
            sequence.enter("decode" if self._decodes(sequence) else "prefill")
            self._leave_queue(sequence)

    def _fits(self, sequence: Sequence, shares: bool) -> bool:
        """Expected need, not the worst case: chains in flight are, on average, half-way through what is
        still to come."""
        if not self.running:
            return True
        shared = (sequence.prompt_length - 1) // self.block if shares else 0
        need = self._pages(len(sequence.tokens)) - shared + sum(map(self._lacks, self.running))
        to_come = sum(self._expected_rest(s) for s in [*self.running, sequence])
        return self.pool.used + need + self._pages(to_come // 2) <= self.pool.capacity

    def _lacks(self, sequence: Sequence) -> int:
        """Pages that it will take for the tokens that it has."""
        index = sequence.cached // self.block
        copies = index < len(sequence.pages) and self.pool.is_shared(sequence.pages[index])
        return self._pages(sequence.length) - len(sequence.pages) + copies

    def _expected_rest(self, sequence: Sequence) -> int:
        limit = sequence.request.sampling.max_new_tokens
        expected = self._finished_tokens // self._finished if self._finished else limit // 2
        return min(max(expected - sequence.generated, self.block), limit - sequence.generated)

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.block)

    # -- prompts shared by samples -------------------------------------------------------------------

    def _prompt_pages(self, sequence: Sequence) -> list[int]:
        """Pages with all of the sequence's prompt but the last token, if someone has them. The last page may
        be partial, or go on with another sample's tokens: whoever writes to a shared page copies it first."""
        if sequence.prompt_key in self._prefixes:
            return self._prefixes[sequence.prompt_key]
        computed = sequence.prompt_length - 1
        for other in self.running:
            if other.prompt_key == sequence.prompt_key and other.cached >= computed:
                return other.pages[: self._pages(computed)]
        return []

    def _keep_prefix(self, sequence: Sequence) -> None:
        """Hold the prompt's pages for the samples that wait."""
        key = sequence.prompt_key
        count = self._pages(sequence.prompt_length - 1)
        if key not in self._prefixes and count:
            self._prefixes[key] = [self.pool.share(page) for page in sequence.pages[:count]]

    def _forget_prefix(self, key: bytes) -> None:
        for page in self._prefixes.pop(key, ()):
            self.pool.release(page)

    # -- integrity -----------------------------------------------------------------------------------

    def _ownerships(self) -> Iterator[int]:
        for sequence in self.running:
            yield from sequence.pages
        for pages in self._prefixes.values():
            yield from pages

    def check(self) -> None:
        """Reference counts balance; rows are used once.

        Raises:
            RuntimeError: they do not: a bug.
        """
        self.pool.check(list(self._ownerships()))
        slots = sorted(self._slots + [sequence.slot for sequence in self.running])
        if slots != list(range(self.max_batch)):
            raise RuntimeError("batch rows do not balance")
