"""The tables of a grid of trained models: means over seeds, each beside the model that has anchors alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seer_ray.analysis.means import mean_of
from seer_ray.study.cells import Row
from seer_ray.study.grid import ALL, Model, Trained

RECALLED = re.compile(r"(\d+)_(?:pairs/token_accuracy|steps/answers)")
"""Measures of recall, by how much is asked for."""

SHARE = re.compile(r"/(?:token_accuracy|solved|answers)$")


def cell_table(found: Trained) -> list[Row]:
    """Every measure of every model and seed."""
    return [
        _about(model) | {"cell": id, "seed": seed, "name": name, "value": value}
        for model, cells in found.cells.items()
        for seed, (id, values) in enumerate(zip(found.ids[model], cells, strict=True))
        for name, value in values.items()
    ]


def model_table(found: Trained) -> list[Row]:
    """Every measure of every model: its mean over seeds and the interval, and ``than``: how much more it is
    than that of the model with anchors alone, seed by seed, which saw the same data."""
    table = []
    for model, cells in found.cells.items():
        beside = found.cells[baseline_of(found, model)]
        for name in cells[0]:
            values = [one[name] for one in cells]
            row = _about(model) | {"name": name, "seeds": len(values)}
            row |= _mean("mean", values, share=SHARE.search(name) is not None)
            if model.layout != ALL and all(name in one for one in beside):
                less = [mine - other[name] for mine, other in zip(values, beside, strict=True)]
                row |= _mean("than", less)
            table.append(row)
    return table


def pareto_table(found: Trained, lengths: Sequence[int]) -> list[Row]:
    """Recall beside what a sequence keeps at the longest length, of models that learn to recall; with the
    loss of the text that models with the same layers learn.

    ``best``: no model recalls more with as few bytes, by the means.
    """
    if not lengths:
        return []
    table, size = [], f"memory/at_{max(lengths)}"
    for model, cells in found.cells.items():
        measure = hardest(cells[0])
        if measure is None:
            continue
        row = _about(model) | {"measure": measure, "length": max(lengths), "bytes": int(cells[0][size])}
        row |= _mean("recall", [one[measure] for one in cells], share=True)
        for other, theirs in found.cells.items():
            if (other.mixer, other.layout) == (model.mixer, model.layout) and "text/loss" in theirs[0]:
                row |= _mean("loss", [one["text/loss"] for one in theirs])
        table.append(row)
    for row in table:
        row["best"] = not any(_better(other, row) for other in table if other["learn"] == row["learn"])
    return table


def _better(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a model is as good in both and better in one."""
    mine, theirs = (-one["recall"], one["bytes"]), (-other["recall"], other["bytes"])
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def hardest(values: Mapping[str, float]) -> str | None:
    """The measure of recall that asks for most; None: nothing is recalled."""
    asked = [(int(match[1]), name) for name in values if (match := RECALLED.fullmatch(name))]
    return max(asked)[1] if asked else None


def baseline_of(found: Trained, model: Model) -> Model:
    """The model of anchors alone that learns the same."""
    return next(other for other in found.cells if (other.learn, other.layout) == (model.learn, ALL))


def headline_names(found: Trained) -> Iterator[tuple[str, str]]:
    """What is learned, and the measure that says how well."""
    for model, cells in found.cells.items():
        if model.layout == ALL:
            names = [hardest(cells[0]), "text/perplexity" if "text/perplexity" in cells[0] else None]
            yield from ((model.learn, name) for name in names if name is not None)


def _about(model: Model) -> Row:
    return {
        "learn": model.learn,
        "mixer": model.mixer,
        "layout": model.layout,
        "layers": " ".join(model.layers),
    }


def _mean(name: str, values: Sequence[float], share: bool = False) -> dict[str, float | None]:
    """A mean over seeds with the ends of its interval; None where one seed has none. ``share``: of a whole,
    and the interval ends where a share does."""
    mean = mean_of((seed, value, 1.0) for seed, value in enumerate(values))
    assert mean is not None
    low, high = mean.low, mean.high
    if share and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)
    return {name: mean.value, f"{name}_low": low, f"{name}_high": high}
