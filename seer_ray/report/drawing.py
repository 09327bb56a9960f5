"""What all plots of a report are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seer_ray.analysis.comparison import ComparedRun, Comparison
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


Finish = Callable[[str, str, str], Plot]


@contextmanager
def axes_of(height: float = 3.5) -> Iterator[tuple[Axes, Finish]]:
    """Axes of a new figure, inches, and what finishes it: name, title and caption give the plot."""
    with style.figure(height=height) as (made, axes):

        def finish(name: str, title: str, caption: str) -> Plot:
            return Plot(name, title, caption, style.svg(made), style.png(made))

        yield axes, finish


def interval_points(
    axes: Axes, family: list[ComparedRun], xs: list[float], label: str, line: bool, alpha: float = 1.0
) -> None:
    """Accuracies of settings of one selector, with their intervals."""
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
        alpha=alpha,
        label=label,
    )


def legend(axes: Axes) -> None:
    """Above the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = 3 if len(handles) > 5 else len(handles)
        whole = axes.get_figure(root=True)
        assert whole is not None
        whole.legend(handles, labels, loc="outside upper left", ncols=columns)


def interval(comparison: Comparison, first: bool = False) -> str:
    """What the bars are; ``first``: at the beginning of a sentence of its own."""
    text = f"{100 * comparison.confidence:g} % intervals, clustered by problem"
    return f"Bars: {text}" if first else text
