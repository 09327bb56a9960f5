"""How many tokens are drafted for each row: from what steps take and from how often drafts were right.

What is chosen here makes rows come sooner or later. It changes none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seer_ray.engine.speculation.times import EARLY, StepTime

Array = NDArray[np.int64]

PRIOR = 4.0
"""Draft tokens of all rows that a row's own count beside."""
FADE = 0.95, 0.99
"""Weight of a pass beside the next one, in the chance of a row and of all rows."""
FIRST = 0.7
"""Chance of a draft token before any was verified."""
GAIN = 1.015
"""Another length must be so many times as fast before it is taken."""
SHARE = 0.008
"""Of the time, that trying other lengths may cost."""
HELD, RESTED, LONGEST_REST = 4, 16, 128
"""Passes for which a decision holds, and for which one to draft nothing does: those look at nothing. Each
such decision after another holds twice as long, up to the last of these."""
SELDOM = 16
"""Of so many plain steps one is measured."""
NEAR = 0.9
"""N-grams that are right so many times as often as sparse steps are taken before them, while it is not known
what either takes."""
FRESH = 16
"""Rounds for which a length that was tried is not tried again."""
TRIED = (0, 2, 4, 7)
"""Lengths that are tried; what others take is between them."""
SURE = 4, 2
"""Measurements of plain steps, and of others, before anything is decided by them: the first ones are slow."""
USUAL = 4
"""Length that is measured first."""
KEEN, FARTHEST_OFF = 0.2, 0.15
"""Weight of the newest pass in what a length takes beside the line through all, and how far off it may be:
what else runs on the machine makes single ones slow."""


class Chance:
    """Of a draft token to be right if those before it were, from the latest passes.

    Args:
        of: that of all rows, which this one is near until it is known better; None: it is that itself.
    """

    def __init__(self, of: Chance | None = None) -> None:
        self._of, self._fade = of, FADE[of is None]
        self._right = self._tried = 0.0

    @property
    def value(self) -> float:
        prior = FIRST if self._of is None else self._of.value
        return (self._right + PRIOR * prior) / (self._tried + PRIOR)

    def take(self, drafted: int, accepted: int) -> None:
        """A pass: the draft tokens behind the first wrong one say nothing."""
        self._right = self._fade * self._right + accepted
        self._tried = self._fade * self._tried + min(accepted + 1, drafted)
        if self._of is not None:
            self._of.take(drafted, accepted)


class Row(NamedTuple):
    """One of a batch."""

    context: int
    """Tokens in its cache."""
    most: int
    """Tokens that may be drafted for it; 0: none."""
    chance: float
    """See ``Chance``."""
    found: bool = False
    """Its draft is there (n-grams) and takes no steps."""


class Lengths:
    """Draft lengths of each pass.

    Args:
        longest: of any row.
        auto: as is fastest; else as long as may be.
    """

    def __init__(self, longest: int, auto: bool) -> None:
        self._longest, self._auto = longest, auto
        self._plain, self._draft, self._verify = StepTime(), StepTime(), StepTime()
        self._beside: dict[int, float] = {}
        """Length -> what its verification takes, over what the line says."""
        self._seen: dict[int, int] = {}
        """Length -> round in which it was last measured."""
        self._round, self._credit = 0, 0.0
        self._chosen = self._asked = 0
        self._held: list[int] = []
        """Lengths of the rows for so many more passes: deciding takes the host longer."""
        self._left, self._known, self._rest, self._rested = 0, False, 0, 0
        self._took: tuple[float, float] | None = None
        """By a draft step and a verifying pass, lately."""
        self._trial: tuple[float, float] | None = None
        """Of a length that is being tried: seconds a token of the best one, and tokens expected."""

    @property
    def rest(self) -> int:
        """After ``choose``: so many passes of these rows behind the one to come draft nothing either."""
        return self._rest

    def choose(self, rows: Sequence[Row]) -> list[int]:
        """Draft tokens of each row in the pass to come; all 0: a plain step."""
        self._trial, self._rest = None, 0
        if not self._auto or not any(row.most for row in rows):
            self._asked = self._left = 0
            return [min(self._longest, row.most) for row in rows]
        self._left -= 1
        if self._left > 0 and len(self._held) == len(rows):
            return [min(length, row.most) for length, row in zip(self._held, rows, strict=True)]
        batch = _Batch(rows)
        longest = min(self._longest, int(batch.most.max()))
        self._asked = self._best(batch, longest)
        lengths = self._trimmed(batch, self._asked)
        # For rows that have no draft now n-grams may find one then.
        self._held = [length if row.most else self._asked for length, row in zip(lengths, rows, strict=True)]
        # What is tried is tried once, and what is not known yet is looked at again.
        self._left = HELD if self._known and self._trial is None else 0
        if self._left and not self._asked:
            self._rest = self._rested = min(max(RESTED, 2 * self._rested), LONGEST_REST)
            self._left = 0
        elif self._trial is None:
            self._rested = 0
        return lengths

    def prefers_found(self, found: float, stepped: float, length: int) -> bool:
        """Whether drafts of n-grams bring more tokens a second than those of steps.

        Args:
            found, stepped: chance of a draft token of either to be right.
            length: of the drafts.
        """
        if self._took is None:
            return found >= NEAR * stepped
        draft, verify = self._took
        return expected(found, length) * (verify + length * draft) >= expected(stepped, length) * verify

    def stepped(self, contexts: Sequence[int], seconds: float) -> None:
        """What a plain step took, of rows with so many tokens in the cache."""
        if not self._auto or not contexts:
            return
        self._round += 1
        if self._plain.measured <= EARLY or self._round % SELDOM == 0:
            self._plain.take(seconds, len(contexts), sum(contexts))
        self._tell(0, seconds)

    def took(self, rows: Sequence[Row], lengths: Sequence[int], draft_s: float, verify_s: float) -> None:
        """What a pass took.

        Args:
            rows: as they were given to ``choose``.
            lengths: as they were drafted.
            draft_s: of all draft steps; 0: there were none.
            verify_s: of the pass that verified, or of the plain step.
        """
        if not any(lengths):
            self.stepped([row.context for row in rows], verify_s)
        if not any(lengths):
            return
        batch, drafted = _Batch(rows), np.array(lengths)
        if steps := batch.steps(drafted):
            now = draft_s / steps, verify_s
            before = self._took or now
            self._took = before[0] + KEEN * (now[0] - before[0]), before[1] + KEEN * (now[1] - before[1])
        if not self._auto:
            return
        self._round += 1
        if steps:
            self._draft.take(draft_s / steps, *batch.drafting)
        size, longest = batch.verified(drafted), int(drafted.max())
        self._verify.take(verify_s, *size)
        known = self._beside.get(longest, 1.0)
        off = verify_s / self._verify.expected(*size) - known
        self._beside[longest] = known + KEEN * min(max(off, -FARTHEST_OFF), FARTHEST_OFF)
        self._tell(longest, draft_s + verify_s)

    def _tell(self, longest: int, seconds: float) -> None:
        """A pass is over, with drafts of that length at most."""
        for length in {longest, self._asked}:
            self._seen[length] = self._round
        self._credit += SHARE * seconds
        if self._trial is not None:
            pace, tokens = self._trial
            self._credit -= max(0.0, seconds - tokens * pace)

    def _best(self, batch: _Batch, longest: int) -> int:
        some = min(USUAL, longest)
        plainly, others = SURE
        if self._plain.measured < plainly:
            return 0
        if self._verify.measured < others or (self._draft.measured < others and batch.drafting[0] > 0):
            return some
        self._known = True
        rates = [self._rate(batch, length) for length in range(longest + 1)]
        now, best = min(self._chosen, longest), max(range(longest + 1), key=lambda length: rates[length].pace)
        if rates[best].pace > GAIN * rates[now].pace:
            self._chosen = now = best
        tried = {min(length, longest) for length in TRIED} - {now}
        oldest = min(sorted(tried), key=lambda length: self._seen.get(length, -FRESH))
        if self._round - self._seen.get(oldest, -FRESH) >= FRESH:
            tokens, seconds = rates[oldest]
            if seconds - tokens / rates[now].pace <= self._credit:
                self._trial = 1 / rates[now].pace, tokens
                return oldest
        return now

    def _rate(self, batch: _Batch, length: int) -> _Rate:
        if length == 0:
            return _Rate(float(len(batch.most)), self._plain.expected(*batch.plain))
        lengths = np.minimum(length, batch.most)
        known = sorted(self._beside)
        beside = float(np.interp(length, known, [self._beside[each] for each in known]))
        # Whatever was measured at first: tokens one by one, and dense steps for sparse ones, bound it.
        plain = self._plain.expected(*batch.plain)
        seconds = min(self._verify.expected(*batch.verified(lengths)) * beside, (length + 1) * plain)
        if steps := batch.steps(lengths):
            seconds += steps * min(self._draft.expected(*batch.drafting), 1.5 * plain)
        return _Rate(batch.expected(lengths), seconds)

    def _trimmed(self, batch: _Batch, length: int) -> list[int]:
        """Without the draft tokens that bring less than they cost."""
        lengths = np.minimum(length, batch.most)
        if not length or self._verify.measured < 2 or len(lengths) == 1:
            return lengths.tolist()  # type: ignore[no-any-return]
        rate = self._rate(batch, length)
        cost = (self._verify.slope(0) + self._verify.slope(2) * batch.context) * rate.pace
        # chance ** length < cost: the last token is not worth it.
        with np.errstate(divide="ignore"):
            worth = np.floor(np.log(cost) / np.log(batch.chance))
        kept = np.minimum(lengths, np.maximum(worth, 0)).astype(int)
        return (kept if kept.any() else lengths).tolist()  # type: ignore[no-any-return]


def expected(chance: Any, length: Any) -> Any:
    """Tokens that a draft brings whose tokens are right with a chance below 1, if those before them are:
    these, and the one behind them."""
    return (1 - chance ** (length + 1)) / (1 - chance)


class _Rate(NamedTuple):
    """Of a length."""

    tokens: float
    """That a pass is expected to bring."""
    seconds: float

    @property
    def pace(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


class _Batch:
    """Rows as arrays, and the sizes of their steps as ``StepTime`` takes them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.context = np.array([row.context for row in rows])
        self.most = np.array([row.most for row in rows])
        self.chance = np.clip([row.chance for row in rows], 1e-3, 1 - 1e-3)
        self.found = np.array([row.found for row in rows])
        self.plain = len(rows), int(self.context.sum())
        """Rows, and keys."""
        stepping = ~self.found & (self.most > 0)
        self.drafting = int(stepping.sum()), int(self.context[stepping].sum())
        """The same of those that draft steps are for."""

    def verified(self, lengths: Array) -> tuple[int, int, int]:
        """Query tokens, keys, and pairs of both."""
        queries = lengths + 1
        return int(queries.sum()), self.plain[1], int((self.context * queries).sum())

    def steps(self, lengths: Array) -> int:
        """Draft steps."""
        return int(lengths[~self.found].max(initial=0))

    def expected(self, lengths: Array) -> float:
        """Tokens of a pass: those drafts that are right, and in each row the one behind them."""
        return float(expected(self.chance, lengths).sum())
