"""What the rows of a batch ask of sampling, so that a step leaves out what none does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, Self

from seer_ray.engine.request import SamplingParams

PLAIN, RANKED, PENALTY, COUNTED, SHAPED, LOGPROBS, GUIDED, RECORDED = (1 << bit for bit in range(8))
FIELDS = PLAIN, RANKED, PENALTY, SHAPED, LOGPROBS, GUIDED, RECORDED


class Asking(Protocol):
    """Whoever knows its bits: a sequence."""

    needs: int


@dataclass(frozen=True)
class Needs:
    """Of a batch. Known to the host."""

    plain: bool
    """A draw from the whole vocabulary."""
    ranked: bool
    """A draw from the best tokens: top-k or top-p."""
    penalty: bool
    """Of tokens seen, prompt included."""
    shaped: bool
    """What ``shaping`` does to logits: penalties by count, biases, bans, a form."""
    logprobs: bool
    guided: bool
    """A form: the next step can only be launched when this one's tokens are read."""
    recorded: bool
    """Somebody wants to know what the step attends."""

    @classmethod
    def of(cls, rows: Iterable[Asking]) -> Self:
        bits = 0
        for row in rows:
            bits |= row.needs
        return cls._of_bits(bits)

    @classmethod
    @cache
    def _of_bits(cls, bits: int) -> Self:
        return cls(*(bool(bits & bit) for bit in FIELDS))

    @property
    def beyond(self) -> bool:
        """Something that is left out of captured sampling: few ask for it, and it keeps states of its own."""
        return self.shaped or self.logprobs


def needs_of(params: SamplingParams) -> int:
    """The bits of one request."""
    bits = 0
    if params.temperature > 0:
        bits |= RANKED if params.top_k > 0 or params.top_p < 1 else PLAIN
    if params.repetition_penalty != 1:
        bits |= PENALTY
    if params.presence_penalty or params.frequency_penalty:
        bits |= COUNTED | SHAPED
    if params.logit_bias or (params.min_new_tokens and params.eos_token_ids):
        bits |= SHAPED
    if params.logprobs is not None:
        bits |= LOGPROBS
    if params.structure is not None:
        bits |= GUIDED | SHAPED
    return bits
