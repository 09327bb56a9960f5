"""Plots of settings that may think for so long: accuracy by thinking tokens, and by both budgets."""

from __future__ import annotations

from collections import Counter

import numpy as np

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.analysis.grid import Grid, rank, shown, thinking_grid
from seer_ray.report import style
from seer_ray.report.drawing import Plot, axes_of, interval, interval_points, legend

TOKENS = "thinking/mean_tokens"


def grid_of(comparison: Comparison) -> Grid[ComparedRun] | None:
    """Settings with a known accuracy; None: all may think for as long."""
    known = [(run.name, run.setting.options, run) for run in comparison.runs if run.accuracy]
    return thinking_grid(known)


def accuracy_by_thinking(comparison: Comparison) -> Plot | None:
    """Accuracy against the thinking tokens of a chain, a line for each setting over its thinking budgets."""
    grid = grid_of(comparison)
    if grid is None:
        return None
    with axes_of() as (axes, finish):
        drawn = 0
        before = Counter[str]()  # lines of one selector have its colour, each fainter than the last
        for name, row in grid.rows.items():
            runs = [row[budget] for budget in sorted(row, key=rank) if TOKENS in row[budget].metrics]
            if runs:
                tokens = [float(run.metrics[TOKENS]) for run in runs]
                shade = 0.7 ** before[runs[0].selector]
                interval_points(axes, runs, tokens, label=name, line=True, alpha=shade)
                before[runs[0].selector] += 1
                drawn += len(runs)
        if drawn < 2:
            return None
        axes.set(xlabel="thinking tokens of a chain, on average", ylabel="accuracy, %")
        axes.set_xlim(left=0)
        legend(axes)
        caption = (
            "Each line is one setting over its thinking budgets; tokens as they were counted in the chains. "
            f"{interval(comparison, first=True)}."
        )
        return finish("accuracy-by-thinking", "Accuracy against thinking tokens", caption)


def both_budgets(comparison: Comparison) -> Plot | None:
    """Accuracy by thinking budget and by setting, as a map."""
    grid = grid_of(comparison)
    if grid is None or len(grid.rows) < 2:
        return None
    names = list(grid.rows)
    values = np.full((len(names), len(grid.budgets)), np.nan)
    with axes_of(height=1.2 + 0.55 * len(names)) as (axes, finish):
        for y, name in enumerate(names):
            for x, budget in enumerate(grid.budgets):
                run = grid.rows[name].get(budget)
                if run is None or run.accuracy is None:
                    continue
                values[y, x] = 100 * run.accuracy.value
                ends = f"\n{100 * run.accuracy.low:.0f} to {100 * run.accuracy.high:.0f}"
                known = np.isfinite(run.accuracy.low)
                text = f"{values[y, x]:.1f}{ends if known else ''}"
                axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=9)
        axes.pcolormesh(values, cmap=style.shades(), vmin=0, vmax=100, edgecolor=style.GRID, linewidth=0.8)
        axes.set_xticks(np.arange(len(grid.budgets)) + 0.5, list(map(shown, grid.budgets)))
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.set_ylim(len(names), 0)
        axes.grid(False)
        axes.set(xlabel="thinking budget, tokens")
        caption = f"Accuracy in %, and below it its interval: {interval(comparison)}."
        return finish("both-budgets", "Accuracy by thinking budget and attention", caption)
