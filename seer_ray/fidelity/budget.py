"""Budgets as they are written: tokens, or a share of the document."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from seer_ray.config.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """KV tokens that attention may read per KV head and step, forced blocks included.

    Attributes:
        label: as it was written.
        amount: tokens, or a share of the document's length.
        share: which of the two.
    """

    label: str
    amount: Fraction
    share: bool

    @classmethod
    def parse(cls, text: str | int | float, option: str = "budgets") -> Budget:
        """``1024`` or ``"1024"``: tokens; ``"1/8"`` or ``0.125``: of the length.

        Raises:
            ConfigError: neither.
        """
        label = str(text).strip()
        try:
            amount = Fraction(label)
        except (ValueError, ZeroDivisionError):
            amount = Fraction(0)
        if amount <= 0 or (amount > 1 and amount.denominator != 1):
            raise ConfigError(f"{option}: {label!r} must be tokens (1024) or a share of the length (1/8)")
        return cls(label, amount, amount < 1)

    def blocks(self, length: int, block: int) -> int:
        """In whole blocks for a document of ``length`` tokens; at least the open one and one more."""
        tokens = self.amount * length if self.share else self.amount
        return max(2, int(tokens) // block)
