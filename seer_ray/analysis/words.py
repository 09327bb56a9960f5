"""Numbers in words, the same in tables, panels, pages and sentences. Fractions are of 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def percent(fraction: float) -> str:
    """0.417 -> 41.7 %"""
    return f"{100 * fraction:.1f} %"


def round_percent(fraction: float) -> str:
    """Two digits at most: 0.112 -> 11 %, 0.012 -> 1.2 %"""
    return f"{100 * fraction:.0f} %" if fraction >= 0.1 or fraction == 0 else percent(fraction)


def signed_percent(fraction: float) -> str:
    """-0.069 -> −6.9 %"""
    return f"{100 * fraction:+.1f} %".replace("-", "−")


def points(fraction: float) -> str:
    """-0.004 -> −0.4"""
    text = f"{100 * fraction:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def skipped(sparsity: float) -> str:
    """0.938 -> 93.8 % skipped, -0.1 -> 10.0 % more than dense"""
    return f"{percent(sparsity)} skipped" if sparsity > -0.0005 else f"{percent(-sparsity)} more than dense"


def with_interval(fraction: float, low: float | None, high: float | None) -> str:
    """0.417, 0.382, 0.453 -> 41.7 % (38.2 to 45.3)"""
    if low is None or high is None:
        return percent(fraction)
    return f"{percent(fraction)} ({100 * low:.1f} to {100 * high:.1f})"


def in_brief(fraction: float, low: float | None, high: float | None) -> str:
    """0.417, 0.382, 0.453 -> 41.7 (38–46), in percent, the interval in whole ones, outwards: for tables"""
    if low is None or high is None or not math.isfinite(low + high):
        return f"{100 * fraction:.1f}"
    return f"{100 * fraction:.1f} ({math.floor(100 * low)}–{math.ceil(100 * high)})"


def count(number: int, noun: str) -> str:
    """1 -> 1 row, 1200 -> 1,200 rows"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """75 -> 1:15, 3700 -> 1:01:40"""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def signed_interval(row: Mapping[str, Any], name: str) -> str:
    """A figure of a table with the ends of its interval, ``NAME_low`` and ``NAME_high``, if they are known:
    +0.120 [+0.100, +0.140]"""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")


def signed_range(row: Mapping[str, Any], name: str) -> str:
    """A mean of a table with the range that it is of, ``NAME_least`` and ``NAME_most``: +0.120 (+0.100 to
    +0.150); empty: there is none."""
    mean, least, most = (row[f"{name}{end}"] for end in ("", "_least", "_most"))
    return "" if mean is None else f"{mean:+.3f} ({least:+.3f} to {most:+.3f})"
