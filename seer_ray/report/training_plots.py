"""Plots of a training job, out of its metrics by step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from seer_ray.report import style
from seer_ray.report.plots import Plot

LAYER = "/layer_"
"""In the names of metrics of one layer."""
NOT_DRAWN = ("train/tokens", "time/eta_s")
"""They say what the step says."""
MOST_LINES = 8
WORDS = {
    "lr": "learning rate",
    "tokens_per_s": "tokens per second",
    "of_oracle": "share of the oracle's mass",
}


def draw_training(records: Sequence[dict[str, float]]) -> list[Plot]:
    """A plot for every quantity that was recorded at two steps or more; training and held-out data together.

    Args:
        records: each with its ``step``
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and name not in NOT_DRAWN and LAYER not in name:
                series.setdefault(name, []).append((record["step"], value))
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    drawn: list[list[tuple[float, float]]] = []
    for name, points in series.items():
        if len({step for step, _ in points}) > 1 and not any(_alike(points, other) for other in drawn):
            drawn.append(points)
            groups.setdefault(_quantity(name), {})[name] = points
    return [_plot(quantity, lines) for quantity, lines in sorted(groups.items(), key=lambda g: _rank(g[0]))]


def _alike(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Whether two curves are one: a loss of one term is that term."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-5))


def _quantity(name: str) -> str:
    """What a metric is of: ``eval/recall/1_8`` and ``eval/recall/1_4`` are recall."""
    words = [part for part in name.split("/")[1:] if not re.match(r"\d", part)]
    return "/".join(words) or name


def _rank(quantity: str) -> tuple[bool, str]:
    """The loss comes first."""
    return not quantity.startswith("loss"), quantity


def _plot(quantity: str, lines: dict[str, list[tuple[float, float]]]) -> Plot:
    from matplotlib.ticker import MaxNLocator

    with style.figure() as (made, axes):
        colours = [*style.LOOKS.values(), *style.OTHERS]
        shown = dict(list(lines.items())[:MOST_LINES])
        for (name, points), (colour, _, _) in zip(shown.items(), colours, strict=False):
            marker = "o" if len(points) < 60 else ""
            axes.plot(
                *zip(*sorted(points), strict=True), color=colour, marker=marker, markersize=3, label=name
            )
        words = WORDS.get(quantity, quantity.replace("_", " "))
        axes.set(xlabel="step", ylabel=words)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if len(shown) > 1:
            made.legend(loc="outside upper left", ncols=min(3, len(shown)))
        left = f"; {len(lines) - len(shown)} more lines are left out" if len(lines) > len(shown) else ""
        caption = f"{', '.join(shown)}, as metrics.jsonl has them{left}."
        title = words[0].upper() + words[1:]
        return Plot(
            f"by-step-{re.sub(r'[^a-z0-9]+', '-', quantity.lower())}",
            title,
            caption,
            style.svg(made),
            style.png(made),
        )
