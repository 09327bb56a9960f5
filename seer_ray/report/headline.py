"""The three figures that a page begins with."""

from __future__ import annotations

import numpy as np

from seer_ray.analysis import words
from seer_ray.analysis.comparison import ComparedRun, Comparison

FIGURES = 3

Figure = tuple[str, str]
"""The figure, and what it is."""


def headline(comparison: Comparison) -> list[Figure]:
    """Of the run, or of the setting that is recommended; of a sweep without one, of dense and the best."""
    names = {one.name: one for one in comparison.runs}
    choice = next((r.choice for r in comparison.recommendations if r.choice), None)
    if choice is None and len(names) > 1:
        return _undecided(comparison)
    one = names[choice] if choice else comparison.runs[0]
    of = f" of {one.name}" if choice else ""
    figures = [
        _accuracy(one, f"accuracy{of}"),
        _difference(one),
        _reads(one, f"of the KV read{'' if choice or one.setting.dense else f' by {one.name}'}"),
        _speed(one),
        _length(one),
    ]
    return [figure for figure in figures if figure][:FIGURES]


def _undecided(comparison: Comparison) -> list[Figure]:
    known = [one for one in comparison.runs if one.accuracy]
    dense = [one for one in known if one.setting.dense]
    others = [one for one in known if not one.setting.dense]
    figures: list[Figure | None] = []
    if len(dense) == 1:
        figures.append(_accuracy(dense[0], "accuracy, dense"))
    best = max(others or known, key=_merit, default=None)
    if best is not None:
        figures.append(_accuracy(best, f"accuracy of {best.name}, the highest"))
        figures += [_reads(best, f"of the KV read by {best.name}"), _length(best)]
    return [figure for figure in figures if figure][:FIGURES]


def _merit(one: ComparedRun) -> tuple[float, float]:
    """Accuracy; of two that are alike, the one that reads less."""
    assert one.accuracy is not None
    return one.accuracy.value, -(one.attended_share or 1.0)


def _accuracy(one: ComparedRun, label: str) -> Figure | None:
    if one.accuracy is None:
        return None
    found = one.accuracy
    known = np.isfinite(found.low)
    spread = f", {100 * found.low:.1f} to {100 * found.high:.1f} %" if known else ", of one problem"
    return words.percent(found.value), f"{label}{spread}"


def _difference(one: ComparedRun) -> Figure | None:
    if one.assessment is None:
        return None
    found = one.assessment.difference
    return f"{words.points(found.value)} points", f"change in accuracy against dense, paired, {found.ends}"


def _reads(one: ComparedRun, label: str) -> Figure | None:
    if one.setting.dense or not one.attended_share:
        return None
    reads = one.metrics.get("kv/mean_attended")
    tokens = f", {reads:,.0f} KV tokens a head and token" if reads else ""
    return words.round_percent(one.attended_share), f"{label}{tokens}"


def _speed(one: ComparedRun) -> Figure | None:
    if one.setting.speed is None:
        return None
    return f"{one.setting.speed.tokens_per_s:,.0f}", "tokens per second, all workers together"


def _length(one: ComparedRun) -> Figure | None:
    length = one.metrics.get("length/mean_tokens")
    return (f"{length:,.0f}", "tokens a chain, on average") if length is not None else None
