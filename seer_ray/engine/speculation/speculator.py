"""A pass of an engine that speculates: how much is drafted, the drafts, what verifies them, what it cost."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig
from seer_ray.config.speculating import longest_draft
from seer_ray.engine.bandwidth import StepBytes
from seer_ray.engine.captured import CapturedSteps
from seer_ray.engine.eager import EagerSteps
from seer_ray.engine.flight import Flight, Mark
from seer_ray.engine.needs import GUIDED
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.speculation.drafting import Drafter, Drafts, DraftSteps
from seer_ray.engine.speculation.ngram import NGrams
from seer_ray.engine.speculation.policy import NEAR, Chance, Lengths
from seer_ray.engine.speculation.policy import Row as Choice
from seer_ray.engine.speculation.verifier import Given, Said, Verifier

Room = Callable[[Sequence, int], int]
"""For how many tokens, of so many from the next one on, a sequence has or gets pages."""


class Taken(NamedTuple):
    """What a row has become."""

    accepted: int
    """Draft tokens that became tokens of the chain."""
    ended: bool
    made: int
    """New tokens."""


@dataclass
class Row:
    """A row after a pass: what it was given is in the cache, as dense decoding has it up to the first draft
    that was wrong."""

    given: Given
    said: Said
    read: np.ndarray
    """KV tokens that drafts and verification read, by layer, summed over KV heads: int64 ``[layers]``."""
    draft_kv: int
    """Of those, what drafts read."""
    speculator: Speculator

    def take(self, ended: Callable[[Sequence, int], bool]) -> Taken:
        """Appends its tokens, the first of which is counted as cached; ``ended``: whether a token that was
        appended has ended the sequence."""
        (sequence, known, drafts), sampled = self.given, self.said.sampled
        sequence.cached += known - 1
        accepted, done, available, made = 0, False, 0, 0
        for place, said in enumerate(sampled):
            position = sequence.cached - 1
            token = sequence.append(said, self.said.logprobs.get(place, b""))
            available += self.speculator.readable(position)
            if sequence.recorded:
                sequence.record(self.speculator.attended(position))
            made += 1
            right = place < len(drafts) and token == drafts[place]
            accepted += right
            done = ended(sequence, token)
            if done or not right:
                break
            sequence.cached += 1
        if sampled:
            sequence.count(self.read, available)
            sequence.drafts.add(len(drafts), accepted, self.draft_kv)
            self.speculator.learn(self.given, accepted)
        return Taken(accepted, done, made)


class Chosen(NamedTuple):
    """Of the pass to come, by row."""

    sequences: Seq[Sequence]
    rows: list[Choice]
    found: list[list[int]]
    """What n-grams propose."""
    lengths: list[int]
    """Tokens that are to be drafted."""


class Verified(NamedTuple):
    """What came of a pass, and what it took."""

    rows: list[Row]
    draft_s: float
    """The device's time for draft steps."""
    verify_s: float
    """Its time for the pass that verified."""
    bytes_read: int
    """What all of it could not do without reading."""


class Speculator:
    """Of one engine.

    Args:
        settings: checked.
        eager: the decode steps, in either mode.
        captured: None: they are not.
        max_batch: rows of a pass.

    Raises:
        ConfigError: what cannot be done with this model.
    """

    def __init__(
        self, settings: EngineConfig, eager: EagerSteps, captured: CapturedSteps | None, max_batch: int
    ) -> None:
        self.longest = longest_draft(settings)
        decoder = eager.decoder
        said = f"engine.speculate={settings.speculate}"
        if decoder.cache.states is not None:
            raise ConfigError(
                f"{said}: this model has layers that keep a state, which cannot be taken back behind a wrong "
                "draft; set engine.speculate=0"
            )
        if settings.block_size <= self.longest:
            raise ConfigError(
                f"{said}: up to {self.longest} tokens are drafted, and engine.block_size="
                f"{settings.block_size} must be more than that; raise it, or draft fewer"
            )
        self._auto = settings.speculate == "auto"
        self._lengths = Lengths(self.longest, self._auto)
        self._steps = settings.drafter != "ngram"
        self._ngrams = settings.drafter != "selector"
        self._found, self._stepped = Chance(), Chance()
        self._drafters: WeakKeyDictionary[Sequence, Drafter] = WeakKeyDictionary()
        self._group, self._exact = eager.loaded.group, settings.exact
        self._cache, self._layers = decoder.cache, len(decoder.plan.layers)
        self._drafting = DraftSteps(eager, captured, self._layers)
        self._verifier = Verifier(eager, captured, self.longest + 1, max_batch)
        self._bytes = StepBytes(eager.loaded, decoder)
        self._captured, self._rest = captured, (0, 0)
        self.plain = self._plain()
        """Steps of passes in which nothing is drafted; None: those are verified as all are."""

    def rests(self, sequences: Seq[Sequence]) -> bool:
        """Nothing is drafted in their next pass, whatever the one before it brings."""
        left, rows = self._rest
        return left > 0 and len(sequences) == rows

    def choose(self, sequences: Seq[Sequence]) -> Chosen | None:
        """What is drafted for those that are to be decoded; None: nothing, and a step of ``plain``."""
        if self.rests(sequences):
            self._rest = self._rest[0] - 1, self._rest[1]
            return None
        found = [self._look(sequence) for sequence in sequences]
        lengths, rest = self._choose([row for row, _ in found])
        if self.plain is None or any(lengths):
            rest = 0
        self._rest = rest, len(sequences)
        if self.plain is not None and not any(lengths):
            return None
        return Chosen(sequences, [row for row, _ in found], [draft for _, draft in found], lengths)

    def run(self, chosen: Chosen, room: Room, place: Callable[[], None]) -> Verified:
        """One pass.

        Args:
            chosen: rows that have a page for the next token.
            room: gives pages for drafts, as far as there are any.
            place: brings the page tables up to date.
        """
        sequences, rows, found, _ = chosen
        lengths = [self._fitting(*each, room) for each in zip(sequences, chosen.lengths, strict=True)]
        place()
        stepped = [0 if row.found else length for row, length in zip(rows, lengths, strict=True)]
        drafts, captures = self._drafting.run(sequences, stepped), self._captures
        tokens = [
            proposed[:length] if row.found else drafted
            for row, proposed, drafted, length in zip(rows, found, drafts.tokens, lengths, strict=True)
        ]
        given = [
            Given(sequence, 1 if draft else self._known(sequence), draft)
            for sequence, draft in zip(sequences, tokens, strict=True)
        ]
        device = self._verifier.loaded.device
        began = Mark(device)
        said = self._verifier.verify(given)
        ended = Mark(device)
        ended.wait()
        verify_s = ended.since(began)
        if not drafts.first and captures == self._captures:
            self._lengths.took(rows, lengths, drafts.seconds, verify_s)
        return self._account(given, said, drafts, verify_s)

    def stepped(self, flight: Flight) -> None:
        """A step of ``plain`` is over."""
        if not flight.first:
            self._lengths.stepped([position + 1 for position in flight.positions], flight.seconds)

    def prepare(self) -> None:
        """Before any request: captures what can be known to come."""
        self._verifier.prepare()
        if self.plain is not None and self.plain is not self._captured:
            self.plain.prepare()

    def learn(self, given: Given, accepted: int) -> None:
        """So many of a row's draft tokens were right."""
        if given.drafts:
            self._drafters[given.sequence].learn(len(given.drafts), accepted)

    def readable(self, position: int) -> int:
        """KV tokens that a dense step of the token at a position reads, over layers and KV heads."""
        return int(self._read_at(np.array([position]))[0].sum())

    def attended(self, position: int) -> np.ndarray:
        """What that step attends: bool ``[blocks, layers, kv_heads of all ranks]``."""
        block, heads = self._cache.block, self._cache.heads * self._group.size
        seen = np.zeros((position // block + 1, self._layers, heads), bool)
        for group in self._cache.groups:
            first = 0 if group.window is None else max(0, position - group.window + 1) // block
            seen[first:, list(group.layers)] = True
        return seen

    # -- before the pass -----------------------------------------------------------------------------

    def _plain(self) -> CapturedSteps | None:
        """Drafts of a fixed length by steps are in every pass, but where a chain ends or is forced."""
        captured = self._captured
        if captured is None or not (self._auto or not self._steps):
            return None
        return captured if not self._steps else captured.densely()

    @property
    def _captures(self) -> int:
        return 0 if self._captured is None else self._captured.captures

    def _look(self, sequence: Sequence) -> tuple[Choice, list[int]]:
        """How much may be drafted for a row, and what n-grams propose."""
        most = min(self.longest, sequence.limit - len(sequence.tokens) - 1)
        forced = sequence.thinking is not None and sequence.thinking.next is not None
        if not sequence.ready or forced or sequence.needs & GUIDED or most < 1:
            most = 0
        drafter = self._drafter(sequence)
        draft = drafter.look(sequence, most, self._prefers_found)
        most = len(draft) if draft or not self._steps else most
        return Choice(sequence.cached + 1, most, drafter.chance.value, bool(draft)), draft

    def _prefers_found(self, found: float, stepped: float, length: int) -> bool:
        if self._group.size > 1:  # each rank has times of its own
            return found >= NEAR * stepped
        return self._lengths.prefers_found(found, stepped, length)

    def _drafter(self, sequence: Sequence) -> Drafter:
        drafter = self._drafters.get(sequence)
        if drafter is None:
            drafter = self._drafters[sequence] = Drafter(
                NGrams() if self._ngrams else None,
                Chance(self._found) if self._ngrams else None,
                Chance(self._stepped) if self._steps else None,
            )
        return drafter

    def _choose(self, rows: list[Choice]) -> tuple[list[int], int]:
        """Draft tokens of each row, and for how many passes more there are none."""
        chosen = self._lengths.choose(rows), self._lengths.rest
        if self._auto and self._group.size > 1:  # each rank has times of its own
            chosen = self._group.told(chosen)
        return chosen

    def _fitting(self, sequence: Sequence, length: int, room: Room) -> int:
        """Of so many draft tokens those for which there are pages. One that is replayed gets pages, too."""
        if not sequence.ready:
            room(sequence, min(self.longest + 1, len(sequence.tokens) - sequence.cached))
        return max(0, room(sequence, length + 1) - 1) if length else 0

    def _known(self, sequence: Sequence) -> int:
        """Tokens of a row without drafts: of a chain that is replayed as many as a pass takes."""
        there = len(sequence.pages[0]) * self._cache.block if sequence.pages else sequence.cached + 1
        return max(1, min(len(sequence.tokens), there, sequence.cached + self.longest + 1) - sequence.cached)

    # -- behind it -----------------------------------------------------------------------------------

    def _read_at(self, positions: np.ndarray, queries: int = 1) -> np.ndarray:
        """KV tokens that the tokens at these positions read, each behind ``queries - 1`` others that are read
        for at once: int64 ``[positions, layers]``."""
        read = np.zeros((len(positions), self._layers), np.int64)
        for group in self._cache.groups:
            seen = positions + 1
            if group.window is not None:
                seen = np.minimum(seen, group.window + queries - 1)
            read[:, list(group.layers)] = seen[:, None] * self._cache.heads * self._group.size
        return read

    def _account(self, given: list[Given], said: list[Said], drafts: Drafts, verify_s: float) -> Verified:
        rows, total = [], 0
        for index, (row, found) in enumerate(zip(given, said, strict=True)):
            count, cached = row.known + len(row.drafts), row.sequence.cached
            if self._exact:  # each token reads for itself
                read = self._read_at(np.arange(cached, cached + count)).sum(0)
            else:
                read = self._read_at(np.array([cached + count - 1]), count)[0]
            total += int(read.sum())
            drafted = drafts.read[index]
            rows.append(Row(row, found, read + drafted, int(drafted.sum()), self))
        total += int(drafts.read.sum())
        lengths = np.array([row.sequence.cached + 1 for row in given])
        taken = self._bytes.of(total, np.repeat(lengths, drafts.steps), drafts.steps + 1)
        return Verified(rows, drafts.seconds, verify_s, taken)
