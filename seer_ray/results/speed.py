"""How fast a setting was decoded: metrics, status, estimates and reports all have it from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECONDS, TOKENS = "all_decoding_s", "all_new_tokens"
"""Counters of a run in its ``status.json``, over all of its sessions."""


@dataclass(frozen=True)
class Speed:
    """Of decoding, as the job itself measured it, also where its workers served other settings in between."""

    tokens: int
    """Generated, those of chains that were lost and begun again included."""
    seconds: float
    """Of the engines' steps for this setting, over the number of workers: what it would have taken all of
    them together without waiting for anything."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @classmethod
    def measured(cls, seconds: float, tokens: int) -> Speed | None:
        """None: nothing was decoded."""
        return cls(int(tokens), float(seconds)) if tokens and seconds > 0 else None

    @classmethod
    def of(cls, status: Mapping[str, Any] | None) -> Speed | None:
        """That a run's ``status.json`` tells of. None: it has not decoded anything."""
        said = status or {}
        return cls.measured(said.get(SECONDS) or 0.0, said.get(TOKENS) or 0)
