"""Plots of how good selections are, out of the rows of an evaluation of gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from seer_ray.report import style
from seer_ray.report.drawing import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
ALL = 0.9995
"""Of the attention mass, as good as all."""


def draw_gates(layers: Sequence[Row], table: Sequence[Row], gates: Sequence[str]) -> list[Plot]:
    """All plots for which there is data, of all positions together.

    Args:
        layers: recall and mass of each layer, budget and selector.
        table: all measures by budget and selector.
        gates: labels of the gate sets, which come first and in front.
    """
    layers, table = ([row for row in rows if row["positions"] == "all"] for rows in (layers, table))
    look = Look(gates, [row["selector"] for row in table])
    budgets = list(dict.fromkeys(row["budget"] for row in table))
    drawn = {budget: [row for row in layers if row["budget"] == budget] for budget in budgets}
    # A budget that holds whole documents keeps everything: there is nothing to see.
    seen = {budget: rows for budget, rows in drawn.items() if any(row["mass"] < ALL for row in rows)}
    plots = [by_layer(rows, budget, look) for budget, rows in seen.items()]
    if len(budgets) > 1:
        plots.append(by_reads(table, look))
    measured = [row for row in table if row["kl"] is not None]
    if measured:
        plots += [agreement(measured, look), divergence(measured, look)]
    return plots


def draw_shares(layers: Sequence[Row], spent: Sequence[Row]) -> list[Plot]:
    """What each layer loses when it is sparse alone, and what it reads of every mean budget.

    Args:
        layers: ``layer`` and ``kl``
        spent: of one selector, ``budget`` and ``layers``: what each of these reads
    """
    if not layers:
        return []
    places = [row["layer"] for row in layers]
    with style.figure() as (made, axes):
        axes.bar(places, [row["kl"] for row in layers], color=style.LOOKS["seer"][0])
        axes.set(xlabel="layer", ylabel="KL with it sparse alone, nats")
        style.whole_ticks(axes)
        caption = "KL of the next token to that of dense attention, this layer alone reading a selection."
        alone = Plot("kl-alone", "What each layer loses", caption, style.svg(made), style.png(made))
    with style.figure() as (made, axes):
        for one, (colour, _, marker) in zip(spent, [*style.LOOKS.values(), *style.OTHERS], strict=False):
            label = f"{one['budget']:,}"
            axes.plot(places, one["layers"], color=colour, marker=marker, markersize=4, label=label)
        axes.set(xlabel="layer", ylabel="KV tokens read")
        axes.set_ylim(bottom=0)
        style.whole_ticks(axes)
        made.legend(loc="outside upper left", ncols=3)
        caption = "Per head and step, mean over the heads of a layer, by the mean over all."
        reads = Plot("reads-by-layer", "What each layer reads", caption, style.svg(made), style.png(made))
    return [alone, reads]


def draw_calibration(rows: Sequence[Row], layers: Sequence[Row], gates: Sequence[str]) -> list[Plot]:
    """Kept against predicted mass, over all layers, and how far apart they are in each.

    Args:
        rows: ``selector``, ``level``, ``predicted`` and ``kept``
        layers: the same by ``layer``
        gates: labels of the gate sets
    """
    look = Look(gates, [row["selector"] for row in rows])
    with style.figure() as (made, axes):
        axes.plot([0, 100], [0, 100], color=style.MUTED, linestyle="--", zorder=1)
        for selector in look.order:
            own = [row for row in rows if row["selector"] == selector]
            xs, ys = ([100 * row[name] for row in own] for name in ("predicted", "kept"))
            axes.plot(xs, ys, markersize=4, **look.of(selector))
        lowest = 100 * min(min(row["predicted"], row["kept"]) for row in rows)
        axes.set(xlabel="attention mass predicted, %", ylabel="attention mass kept, %")
        axes.set(xlim=(lowest - 3, 101), ylim=(lowest - 3, 101))
        caption = "Of complete blocks; mean over layers, KV heads and rows. Dashed: a mass is that mass."
        over_all = _finish(made, axes, "calibration", "What shares say and what is kept", caption)
    with style.figure() as (made, axes):
        axes.axhline(0, color=style.MUTED, linestyle="--", zorder=1)
        for selector in look.order:
            gaps: dict[int, list[float]] = {}
            for row in layers:
                if row["selector"] == selector:
                    gaps.setdefault(row["layer"], []).append(100 * (row["kept"] - row["predicted"]))
            means = {layer: sum(each) / len(each) for layer, each in sorted(gaps.items())}
            axes.plot(list(means), list(means.values()), markersize=4, **look.of(selector))
        axes.set(xlabel="layer", ylabel="kept less predicted, points")
        style.whole_ticks(axes)
        caption = "Mean over the masses asked for, KV heads and rows."
        title = "Kept less predicted mass by layer"
        return [over_all, _finish(made, axes, "calibration-by-layer", title, caption)]


class Look:
    """One colour and marker for every selector; several gate sets do not share one."""

    def __init__(self, gates: Sequence[str], selectors: Iterable[str]) -> None:
        sets = chain([style.LOOKS["seer"]], style.OTHERS)
        self.known = dict(zip(gates, sets, strict=False))
        self.known["best"] = (style.MUTED, style.MUTED, "_")
        self.order = list(dict.fromkeys([*gates, *selectors]))
        self.gates = set(gates)

    def of(self, selector: str, line: bool = True) -> dict[str, Any]:
        """How matplotlib should draw it."""
        if selector in self.known:
            colour, marker = self.known[selector][0], self.known[selector][2]
        else:
            colour, marker = style.colour(selector), style.marker(selector)
        drawn = {
            "color": colour,
            "marker": marker,
            "label": selector,
            "zorder": 3 if selector in self.gates else 2,
        }
        return drawn | {"linestyle": ("--" if selector == "best" else "-") if line else "none"}


def by_layer(rows: Sequence[Row], budget: str, look: Look) -> Plot:
    """Attention mass kept in every layer."""
    with style.figure() as (made, axes):
        for selector in look.order:
            own = sorted((row for row in rows if row["selector"] == selector), key=lambda row: row["layer"])
            ys = [100 * row["mass"] for row in own]
            axes.plot([row["layer"] for row in own], ys, markersize=4, **look.of(selector))
        axes.set(xlabel="layer", ylabel="attention mass kept, %")
        axes.set_ylim(top=101)
        style.whole_ticks(axes)
        name = "mass-by-layer-" + budget.replace("/", "-")
        title = f"Attention mass kept at a budget of {budget}"
        caption = "Dense attention flows through the model; mean over query heads and rows."
        return _finish(made, axes, name, title, caption)


def by_reads(rows: Sequence[Row], look: Look) -> Plot:
    """Attention mass kept against what is read."""
    with style.figure() as (made, axes):
        _lines(axes, rows, "mass", look, 100)
        axes.set(xlabel="KV tokens read per head and step", ylabel="attention mass kept, %")
        caption = "Mean over layers, query heads and rows; reads are counted from the selections."
        return _finish(made, axes, "mass", "Attention mass kept", caption)


def agreement(rows: Sequence[Row], look: Look) -> Plot:
    """Next tokens that stay what they are."""
    with style.figure() as (made, axes):
        _lines(axes, rows, "top1", look, 100)
        axes.set(xlabel="KV tokens read per head and step", ylabel="same next token as dense, %")
        caption = (
            "Every token attends only to its selection, in every layer; bars: standard error over documents."
        )
        return _finish(made, axes, "top1", "Next tokens", caption)


def divergence(rows: Sequence[Row], look: Look) -> Plot:
    """KL of the next-token distributions."""
    with style.figure() as (made, axes):
        _lines(axes, rows, "kl", look, 1)
        axes.set(xlabel="KV tokens read per head and step", ylabel="KL(dense || sparse), nats")
        if min(row["kl"] for row in rows) > 0:
            axes.set_yscale("log")
        caption = (
            "Every token attends only to its selection, in every layer; bars: standard error over documents."
        )
        return _finish(made, axes, "kl", "Next-token distributions", caption)


def _finish(made: Figure, axes: Axes, name: str, title: str, caption: str) -> Plot:
    made.legend(loc="outside upper left", ncols=3)
    return Plot(name, title, caption, style.svg(made), style.png(made))


def _lines(axes: Axes, rows: Sequence[Row], value: str, look: Look, factor: float) -> None:
    for selector in look.order:
        own = sorted((row for row in rows if row["selector"] == selector), key=lambda row: row["read"])
        if not own:
            continue
        xs, ys = [row["read"] for row in own], [factor * row[value] for row in own]
        spread = [factor * row[f"{value}_se"] for row in own]
        bars = None if any(one != one for one in spread) else spread  # one document has no spread
        axes.errorbar(xs, ys, bars, capsize=2, elinewidth=1, **look.of(selector))
    axes.set_xscale("log", base=2)
    ticks = sorted({round(row["read"]) for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
