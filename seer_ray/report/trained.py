"""The page of a grid of models that were trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seer_ray.analysis.grids import EXPLAINED, UNTIMED, claim_lines, grid_table, interval
from seer_ray.analysis.words import count
from seer_ray.report import style
from seer_ray.report.content import Content, Table, figures_of
from seer_ray.report.drawing import Plot
from seer_ray.results.job import JobFolder

Row = dict[str, Any]
LOSS = "text/loss"


def trained_content(folder: JobFolder) -> Content:
    """Of ``seer-ray study train``."""
    said = figures_of(folder)
    models, pareto = said["models"], said["pareto"]
    tables = []
    for learn in dict.fromkeys(row["learn"] for row in models):
        heads, lines = grid_table(models, learn)
        tables.append(
            Table(f"What was learned: {learn}" if learn else "What was learned", tuple(heads), lines)
        )
    claims = claim_lines(said["claims"])
    if claims:
        lines = [(f"{name}: {says}", holds, figures) for name, says, holds, figures in claims]
        tables.append(Table("What the papers say", ("claim, of every seed", "here", "figures"), lines))
    plots, losses = [], [row for row in models if row["name"] == LOSS]
    if pareto:
        tables.append(_pareto(pareto))
        plots.append(_against_bytes(pareto))
    if losses:
        plots.append(_bars(losses))
    held = sum(holds == "holds" for _, _, holds, _ in claims)
    figures = [(f"{said['cells']}", "models trained")]
    if claims:
        figures.append((f"{held} of {len(claims)}", "claims of the papers that hold here"))
    about = f"trained from scratch · {count(said['seeds'], 'seed')} each"
    return Content(about, figures, plots, tables, [EXPLAINED, UNTIMED])


def _pareto(rows: Sequence[Row]) -> Table:
    lines = []
    for row in sorted(rows, key=lambda row: (row["learn"], row["bytes"], -row["recall"])):
        loss = interval(row, "loss", "{:.3f}") if row.get("loss") is not None else ""
        known = f"{row['bytes']:,}", interval(row, "recall", "{:.3f}"), loss
        lines.append(
            (f"{row['mixer']}, {row['layout']}", *known, "most for its bytes" if row["best"] else "")
        )
    heads = ("", f"bytes at {rows[0]['length']:,} tokens", "recall", "loss of text", "")
    return Table("Recall against bytes", heads, lines)


def _against_bytes(rows: Sequence[Row]) -> Plot:
    """A point for each model, by mixer; those with the most recall for their bytes joined."""
    looks = [*style.LOOKS.values(), *style.OTHERS]
    with style.figure() as (made, axes):
        best = sorted((row for row in rows if row["best"]), key=lambda row: row["bytes"])
        axes.plot(_xs(best), [row["recall"] for row in best], color=style.MUTED, zorder=0)
        for place, mixer in enumerate(dict.fromkeys(row["mixer"] for row in rows)):
            own = [row for row in rows if row["mixer"] == mixer]
            colour, _, marker = looks[place % len(looks)]
            fill = colour if place < len(looks) else "none"  # there are more mixers than colours
            axes.plot(
                _xs(own),
                [row["recall"] for row in own],
                color=colour,
                marker=marker,
                markerfacecolor=fill,
                linestyle="",
                label=mixer,
            )
        axes.set(xlabel=f"KiB of a sequence of {rows[0]['length']:,} tokens", ylabel="recall")
        axes.set_xscale("symlog", linthresh=1)
        made.legend(loc="outside upper left", ncols=4)
        caption = "Trained from scratch; means over seeds. Line: most recall for as many bytes."
        return Plot("pareto", "Recall against bytes", caption, style.svg(made), style.png(made))


def _xs(rows: Sequence[Row]) -> list[float]:
    return [row["bytes"] / 1024 for row in rows]


def _bars(rows: Sequence[Row]) -> Plot:
    """Loss of text, a bar for each model."""
    names = [f"{row['mixer']}, {row['layout']}" for row in rows]
    with style.figure() as (made, axes):
        lows = [0 if row["mean_low"] is None else row["mean"] - row["mean_low"] for row in rows]
        axes.barh(names, [row["mean"] for row in rows], xerr=lows, color=style.MAP, height=0.7)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)
        axes.set(xlabel="loss of held-out text, nats a token")
        caption = "Trained from scratch; means over seeds, 95 % interval."
        return Plot("loss", "Loss of text", caption, style.svg(made), style.png(made))
