"""How fast a setting was decoded: metrics, status, estimates and reports all have it from here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS, TOKENS, TURNS = "all_decoding_s", "all_new_tokens", "all_turns"
"""Counters of a run in its ``status.json``, over all of its sessions; the last by turns of the workers."""
ENOUGH = 3
"""Turns from which on it can be said whether a speed is steady."""
UNSTEADY = 0.25
"""Standard deviation of the turns' speeds, as a share of their mean, above which it is not."""


@dataclass(frozen=True)
class Speed:
    """Of decoding, as the job itself measured it, also where its workers served other settings in between."""

    tokens: int
    """Generated, those of chains that were lost and begun again included."""
    seconds: float
    """Of the engines' steps for this setting, over the number of workers: what it would have taken all of
    them together without waiting for anything."""
    turns: tuple[float, ...] = ()
    """Tokens a second of each turn that the workers had for it, in order."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def spread(self) -> float | None:
        """Standard deviation of the turns' speeds as a share of their mean; None: too few to tell."""
        if len(self.turns) < ENOUGH:
            return None
        return statistics.stdev(self.turns) / statistics.fmean(self.turns)

    @property
    def unsteady(self) -> bool:
        """Whether it is seen to have changed while it was measured: another load on the machine, say."""
        return self.spread is not None and self.spread > UNSTEADY

    @classmethod
    def measured(cls, seconds: float, tokens: int, turns: Sequence[Sequence[float]] = ()) -> Speed | None:
        """
        Args:
            seconds, tokens: of all turns.
            turns: (tokens, seconds) of each.

        Returns:
            None: nothing was decoded.
        """
        rates = tuple(turn[0] / turn[1] for turn in turns if turn[0] > 0 and turn[1] > 0)
        return cls(int(tokens), float(seconds), rates) if tokens and seconds > 0 else None

    @classmethod
    def of(cls, status: Mapping[str, Any] | None) -> Speed | None:
        """That a run's ``status.json`` tells of. None: it has not decoded anything."""
        said = status or {}
        return cls.measured(said.get(SECONDS) or 0.0, said.get(TOKENS) or 0, said.get(TURNS) or ())
