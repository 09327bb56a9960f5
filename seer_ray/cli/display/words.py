"""Numbers in words, for tables and panels."""

from __future__ import annotations

from rich.text import Text


def accuracy(share: float | None, se: float | None) -> Text | None:
    """Share that is right, with its standard error."""
    if share is None:
        return None
    spread = f" ± {100 * se:.1f}" if se is not None else ""
    return Text.assemble((f"{100 * share:.1f}{spread} %", "bold"), " (standard error)" if spread else "")


def percent(share: float) -> str:
    """0.417 -> 41.7 %"""
    return f"{100 * share:.1f} %"


def count(number: int, noun: str) -> str:
    """1 -> 1 row, 1200 -> 1,200 rows"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """75 -> 1:15, 3700 -> 1:01:40"""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
