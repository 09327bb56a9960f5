"""What came of drafts: of one sequence, and of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seer_ray.config.fields import MOST_DRAFTED


@dataclass
class RowCounts:
    """Of one sequence, by place: the first draft token of a pass has place 0."""

    drafted: list[int] = field(default_factory=lambda: [0] * MOST_DRAFTED)
    """Passes with a draft token at the place."""
    accepted: list[int] = field(default_factory=lambda: [0] * MOST_DRAFTED)
    """Those of them that became tokens of the chain."""
    draft_kv: int = 0
    """KV tokens that drafts read, summed over steps, layers and KV heads."""

    @classmethod
    def of(cls, drafted: Sequence[int], accepted: Sequence[int], draft_kv: int) -> RowCounts:
        """As ``Counters`` have them, which are empty where nothing was drafted."""
        made = cls(draft_kv=draft_kv)
        made.drafted[: len(drafted)], made.accepted[: len(accepted)] = drafted, accepted
        return made

    def add(self, drafted: int, accepted: int, draft_kv: int = 0) -> None:
        """A pass.

        Args:
            drafted: tokens.
            accepted: of them, from the first on, those that became tokens of the chain.
            draft_kv: that the steps read which drafted them.
        """
        for place in range(drafted):
            self.drafted[place] += 1
        for place in range(accepted):
            self.accepted[place] += 1
        self.draft_kv += draft_kv

    @property
    def told(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """As ``Counters`` have them."""
        if not any(self.drafted):
            return (), (), self.draft_kv
        return tuple(self.drafted), tuple(self.accepted), self.draft_kv


@dataclass
class EngineCounts:
    """Of an engine, since its start."""

    rounds: int = 0
    """Passes that verified drafts, each after the steps that made them; all rows of a batch at once."""
    plain: int = 0
    """Passes without a draft, of an engine that speculates."""
    drafted: int = 0
    accepted: int = 0
    draft_s: float = 0.0
    """The device's time for draft steps."""
    verify_s: float = 0.0
    """Its time for passes that verify."""

    def add(self, drafted: int, accepted: int, draft_s: float, verify_s: float) -> None:
        """A pass: tokens over all rows, and what it took."""
        if drafted:
            self.rounds += 1
            self.verify_s += verify_s
        else:
            self.plain += 1
        self.drafted += drafted
        self.accepted += accepted
        self.draft_s += draft_s

    def stats(self) -> dict[str, float]:
        """For ``Engine.stats``; nothing where nothing was speculated about."""
        if not self.rounds + self.plain:
            return {}
        return {
            "verify_passes": self.rounds,
            "plain_passes": self.plain,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "draft_s": self.draft_s,
            "verify_s": self.verify_s,
        }
