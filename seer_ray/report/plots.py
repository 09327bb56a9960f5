"""The plots of a report. Each draws what it can of a comparison, or says that there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.analysis.recommend import cost
from seer_ray.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Plot:
    """A finished plot."""

    name: str
    title: str
    caption: str
    """How it was measured."""
    svg: str
    png: bytes


def colour(run: ComparedRun) -> str:
    """The same in every plot and on the page, by selector."""
    return style.colour(run.selector)


def draw(comparison: Comparison) -> list[Plot]:
    """All plots for which there is data."""
    makers = (
        accuracy_by_budget,
        accuracy_by_reads,
        accuracy_by_time,
        differences,
        speed,
        drift,
        lengths,
        layers,
    )
    return [plot for make in makers if (plot := make(comparison)) is not None]


def accuracy_by_budget(comparison: Comparison) -> Plot | None:
    """Accuracy against budget with intervals, dense as a band."""
    known = [s for s in comparison.runs if s.accuracy]
    dense = [s for s in known if s.setting.budget is None]
    sparse = [s for s in known if s.setting.budget is not None]
    if not sparse or len(known) < 2:
        return None
    with _axes() as (axes, finish):
        for one in dense:
            assert one.accuracy
            axes.axhline(100 * one.accuracy.value, color=colour(one), linewidth=1.4, label=one.name)
            if np.isfinite(one.accuracy.low):
                ends = 100 * one.accuracy.low, 100 * one.accuracy.high
                axes.axhspan(*ends, color=colour(one), alpha=0.12, linewidth=0)
        families = _families(sparse)
        for place, (selector, family) in enumerate(families.items()):
            # Side by side, or the bars of one budget hide each other.
            aside = 2 ** (0.05 * (place - (len(families) - 1) / 2))
            budgets = [float(s.setting.budget or 0) * aside for s in family]
            _interval_points(axes, family, budgets, label=selector, line=True)
        axes.set_xscale("log", base=2)
        ticks = sorted({float(s.setting.budget or 0) for s in sparse})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="budget, KV tokens per head and step", ylabel="accuracy, %")
        _legend(axes)
        caption = f"avg@k with {_interval(comparison)}. The band is that of dense attention."
        return finish("accuracy-by-budget", "Accuracy against budget", caption)


def accuracy_by_reads(comparison: Comparison) -> Plot | None:
    """Accuracy against the KV that a chain reads, with the Pareto front."""
    costs = {s.name: cost(s.setting).attended for s in comparison.runs}
    dense = next((s.name for s in comparison.runs if s.setting.dense), None)
    whole = costs.get(dense or "")
    if not whole:
        return None
    reads = {name: 100 * value / whole for name, value in costs.items() if value}
    front = {name for r in comparison.recommendations[:1] for name in r.front_attended}
    with _axes() as (axes, finish):
        if not _front(axes, comparison, reads, front):
            return None
        axes.set(xlabel="KV read by a chain, % of what a dense one reads", ylabel="accuracy, %")
        caption = (
            "KV reads are counted from the selections, over whole chains: a setting that makes them longer "
            f"pays for it. {_interval(comparison, first=True)}."
        )
        return finish("accuracy-by-reads", "Accuracy against KV read", caption)


def accuracy_by_time(comparison: Comparison) -> Plot | None:
    """Accuracy against the measured time of a chain, with the Pareto front; of one job only."""
    if len({s.setting.job for s in comparison.runs}) > 1:
        return None
    costs = {s.name: cost(s.setting).seconds for s in comparison.runs}
    seconds = {name: value for name, value in costs.items() if value}
    front = {name for r in comparison.recommendations[:1] for name in r.front_seconds}
    with _axes() as (axes, finish):
        if not _front(axes, comparison, seconds, front):
            return None
        axes.set(xlabel="seconds of decoding a chain, all workers together", ylabel="accuracy, %")
        caption = f"Time as this job measured it, for all settings. {_interval(comparison, first=True)}."
        return finish("accuracy-by-time", "Accuracy against time", caption)


def _front(axes: Axes, comparison: Comparison, costs: dict[str, float], front: set[str]) -> bool:
    """Settings with accuracy over cost, and a line along the front. False: fewer than two."""
    known = [s for s in comparison.runs if s.accuracy and s.name in costs]
    if len(known) < 2:
        return False
    best = sorted((s for s in known if s.name in front), key=lambda s: costs[s.name])
    if len(best) > 1:
        xs, ys = [costs[s.name] for s in best], [100 * s.accuracy.value for s in best if s.accuracy]
        dashes = (0, (4, 3))
        axes.plot(xs, ys, color=style.MUTED, linewidth=1, linestyle=dashes, label="Pareto front", zorder=1)
    for selector, family in _families(known).items():
        _interval_points(axes, family, [costs[s.name] for s in family], label=selector, line=False)
    axes.set_xlim(left=0)
    _legend(axes)
    return True


def differences(comparison: Comparison) -> Plot | None:
    """Paired differences from dense with the margin."""
    known = [s for s in comparison.runs if s.assessment]
    if not known:
        return None
    with _axes(height=1.3 + 0.32 * len(known)) as (axes, finish):
        axes.axvspan(-100 * comparison.margin, 0, color=style.LOOKS["oracle"][0], alpha=0.10, linewidth=0)
        axes.axvline(0, color=style.MUTED, linewidth=1)
        for row, one in enumerate(known):
            assert one.assessment
            found = one.assessment.difference
            _bar(axes, row, 100 * found.value, 100 * found.low, 100 * found.high, one)
        _rows(axes, [s.name for s in known])
        axes.set(xlabel="accuracy, points more or less than dense")
        caption = (
            "The same problems and samples, paired; interval clustered by problem "
            f"({100 * comparison.confidence:g} %). Shaded: the margin of {100 * comparison.margin:g} points."
        )
        return finish("difference", "Accuracy against dense, paired", caption)


def speed(comparison: Comparison) -> Plot | None:
    """Tokens per second, and where one job measured dense too, the speedup with its bound."""
    known = [s for s in comparison.runs if s.setting.speed]
    jobs = {s.setting.job for s in known}
    if len(known) < 2 or len(jobs) > 1:
        return None
    with _axes(height=1.3 + 0.32 * len(known)) as (axes, finish):
        rates = [s.setting.speed.tokens_per_s for s in known if s.setting.speed]
        axes.barh(range(len(known)), rates, height=0.6, color=[colour(s) for s in known], alpha=0.85)
        for row, (one, rate) in enumerate(zip(known, rates, strict=True)):
            text = f"{rate:,.0f}" + (f"  ·  {one.speedup:.2f} x dense" if one.speedup else "")
            axes.annotate(text, (rate, row), (5, 0), textcoords="offset points", va="center", fontsize=9)
        _rows(axes, [s.name for s in known])
        axes.set_xlim(0, 1.35 * max(rates))
        axes.set(xlabel="generated tokens per second, all workers together")
        caption = "As this job measured it: tokens over the seconds that its workers had for the setting."
        return finish("speed", "Speed", caption)


def drift(comparison: Comparison) -> Plot | None:
    """Length of chains relative to dense."""
    known = [s for s in comparison.runs if s.assessment and s.assessment.drift]
    if not known:
        return None
    with _axes(height=1.3 + 0.32 * len(known)) as (axes, finish):
        axes.axvline(0, color=style.MUTED, linewidth=1)
        for row, one in enumerate(known):
            assert one.assessment and one.assessment.drift
            found = one.assessment.drift
            _bar(axes, row, 100 * found.value, 100 * found.low, 100 * found.high, one)
        _rows(axes, [s.name for s in known])
        axes.set(xlabel="length of the chains, % more or less than dense")
        caption = (
            "Ratio of sums over paired chains; chains that were cut off count with the length they got to."
        )
        return finish("length-drift", "Length drift", caption)


def lengths(comparison: Comparison) -> Plot | None:
    """Chains that are longer than so many tokens."""
    known = [s for s in comparison.runs if np.isfinite(s.setting.outcomes.tokens).any()]
    if not known:
        return None
    with _axes() as (axes, finish):
        shades = _shades(known)
        for one in known:
            tokens = np.sort(one.setting.outcomes.tokens[~np.isnan(one.setting.outcomes.tokens)])
            left = 100 * (1 - np.arange(len(tokens) + 1) / len(tokens))
            axes.step(
                [0, *tokens], left, where="post", color=colour(one), alpha=shades[one.name], label=one.name
            )
        axes.set(xlabel="tokens", ylabel="chains that are longer, %", ylim=(0, 102))
        axes.set_xlim(left=0)
        _legend(axes)
        return finish(
            "lengths", "Length of the chains", "Of all completions, those that were cut off included."
        )


def layers(comparison: Comparison) -> Plot | None:
    """Attended over available KV of each layer."""
    known = [s for s in comparison.runs if s.layers]
    if all(s.setting.dense for s in known):  # all of it, in every layer
        return None
    with _axes() as (axes, finish):
        shades = _shades(known)
        for one in known:
            assert one.layers
            percents = [100 * fraction for fraction in one.layers]
            axes.plot(
                range(len(percents)),
                percents,
                color=colour(one),
                alpha=shades[one.name],
                marker=style.marker(one.selector),
                markersize=4,
                label=one.name,
            )
        axes.set(xlabel="layer", ylabel="KV read, %", ylim=(0, 104))
        style.whole_ticks(axes)
        _legend(axes)
        return finish(
            "layers", "KV read by layer", "Of what dense attention reads, counted from the selections."
        )


Finish = Callable[[str, str, str], Plot]


@contextmanager
def _axes(height: float = 3.5) -> Iterator[tuple[Axes, Finish]]:
    with style.figure(height=height) as (made, axes):

        def finish(name: str, title: str, caption: str) -> Plot:
            return Plot(name, title, caption, style.svg(made), style.png(made))

        yield axes, finish


def _families(runs: list[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """By selector, in order of budget."""
    found: dict[str, list[ComparedRun]] = {}
    for one in sorted(runs, key=lambda s: s.setting.budget or 0):
        found.setdefault(one.selector, []).append(one)
    return {selector: found[selector] for selector in sorted(found, key=_rank)}


def _rank(selector: str) -> int:
    order = list(style.LOOKS)
    return order.index(selector) if selector in order else len(order)


def _shades(runs: list[ComparedRun]) -> dict[str, float]:
    """Opacity by name: of one selector, the largest budget is the strongest."""
    found = {}
    for family in _families(runs).values():
        for place, one in enumerate(family):
            found[one.name] = 1.0 - 0.65 * (len(family) - 1 - place) / max(1, len(family))
    return found


def _interval_points(axes: Axes, family: list[ComparedRun], xs: list[float], label: str, line: bool) -> None:
    values = np.array([100 * s.accuracy.value for s in family if s.accuracy])
    low = np.array([100 * s.accuracy.low for s in family if s.accuracy])
    high = np.array([100 * s.accuracy.high for s in family if s.accuracy])
    axes.errorbar(
        xs,
        values,
        yerr=np.nan_to_num([values - low, high - values]),
        color=style.colour(family[0].selector),
        marker=style.marker(family[0].selector),
        linestyle="-" if line else "",
        elinewidth=1.1,
        capsize=2.5,
        label=label,
    )


def _bar(axes: Axes, row: int, value: float, low: float, high: float, one: ComparedRun) -> None:
    if np.isfinite(low):
        axes.plot([low, high], [row, row], color=colour(one), linewidth=2, solid_capstyle="round")
    axes.plot([value], [row], color=colour(one), marker=style.marker(one.selector), markersize=7)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _legend(axes: Axes) -> None:
    """Above the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = 3 if len(handles) > 5 else len(handles)
        whole = axes.get_figure(root=True)
        assert whole is not None
        whole.legend(handles, labels, loc="outside upper left", ncols=columns)


def _interval(comparison: Comparison, first: bool = False) -> str:
    text = f"{100 * comparison.confidence:g} % intervals, clustered by problem"
    return f"Bars: {text}" if first else text
