"""What a measurement of gates gives: one figure per document, and their averages."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seer_ray.analysis.clustered import ratio

ALL = "all"


@dataclass(frozen=True)
class LayerFigure:
    """One document, layer, selector and budget, averaged over ``rows`` decode steps and the heads."""

    document: str
    """Its id; all of one source and id count as one independent draw."""
    source: str
    layer: int
    selector: str
    budget: str
    positions: str
    """``all``, or ``>4096``: the rows beyond that position."""
    rows: int
    recall: float
    """Share of the oracle's blocks that are read, forced ones counted, mean over KV heads."""
    mass: float
    """Attention probability inside the blocks read, mean over query heads."""
    read: float
    """KV tokens read per KV head and row, counted from the selection."""


@dataclass(frozen=True)
class OutputFigure:
    """One document, selector (in every layer) and budget: next-token distributions against dense ones."""

    document: str
    source: str
    selector: str
    budget: str
    positions: str
    """As of a layer, or ``sharp`` and ``flat``: see ``quality.LayerQuality.sharp``."""
    rows: int
    kl: float
    """KL(dense || sparse), nats, mean over rows."""
    top1: float
    """Share of rows whose most likely token is the dense one."""


@dataclass(frozen=True)
class CalibrationFigure:
    """One document, layer and selector whose scores are shares: the mass that it predicts, and what is kept.

    Both of the complete blocks that a mass selects, without a cap, averaged over ``rows`` and KV heads.
    """

    document: str
    source: str
    layer: int
    selector: str
    level: float
    """The mass that was asked for."""
    rows: int
    predicted: float
    """Sum of the shares of the blocks; more than ``level``, as blocks are whole."""
    kept: float
    """Attention to them, of that to all complete blocks."""


@dataclass
class Figures:
    """All of one measurement."""

    layers: list[LayerFigure] = field(default_factory=list)
    outputs: list[OutputFigure] = field(default_factory=list)
    calibration: list[CalibrationFigure] = field(default_factory=list)
    kinds: list[OutputFigure] = field(default_factory=list)
    """Of sharp and of flat rows."""

    def layer_table(self, *by: str) -> list[dict[str, Any]]:
        """Means of ``recall``, ``mass``, ``read`` by the named fields, and by positions, budget and selector.

        Averages over layers are of those that every selector has figures of: gates may be in some layers
        only. ``of_oracle``: the mass as a share of the oracle's.
        """
        keys = tuple(dict.fromkeys((*by, "positions", "budget", "selector")))
        shared = self._shared()
        chosen = [each for each in self.layers if "layer" in by or each.layer in shared]
        table = _average(chosen, keys, ("recall", "mass", "read"))
        best = {_but_selector(row, keys): row["mass"] for row in table if row["selector"] == "oracle"}
        for row in table:
            oracle = best.get(_but_selector(row, keys))
            row["of_oracle"] = row["mass"] / oracle if oracle else math.nan
        return table

    def _shared(self) -> set[int]:
        """Layers that all selectors have figures of."""
        layers: dict[str, set[int]] = defaultdict(set)
        for figure in self.layers:
            layers[figure.selector].add(figure.layer)
        return set.intersection(*layers.values()) if layers else set()

    def output_table(self, *by: str) -> list[dict[str, Any]]:
        """Means of ``kl`` and ``top1`` by the named fields, and by positions, budget and selector."""
        keys = tuple(dict.fromkeys((*by, "positions", "budget", "selector")))
        return _average(self.outputs, keys, ("kl", "top1"))

    def kinds_table(self) -> list[dict[str, Any]]:
        """The same of sharp and of flat rows."""
        return _average(self.kinds, ("positions", "budget", "selector"), ("kl", "top1"))

    def calibration_table(self, *by: str) -> list[dict[str, Any]]:
        """Means of ``predicted`` and ``kept`` by the named fields, and by selector and level."""
        keys = tuple(dict.fromkeys((*by, "selector", "level")))
        return _average(self.calibration, keys, ("predicted", "kept"))

    def table(self, *by: str) -> list[dict[str, Any]]:
        """Both kinds together, averaged over layers and by the named fields.

        ``worst_of_oracle`` is ``of_oracle`` of the layer where it is least, ``worst_layer``; what was not
        measured is None.
        """
        keys = tuple(dict.fromkeys((*by, "positions", "budget", "selector")))
        outputs = {tuple(row[key] for key in keys): row for row in self.output_table(*by)}
        layers: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        shared = self._shared()
        for row in self.layer_table(*by, "layer"):
            if row["layer"] in shared:
                layers[tuple(row[key] for key in keys)].append(row)
        table = []
        for row in self.layer_table(*by):
            key = tuple(row[key] for key in keys)
            worst = min(layers[key], key=lambda one: one["of_oracle"])
            known = {"worst_of_oracle": worst["of_oracle"], "worst_layer": worst["layer"]}
            output = outputs.get(key, {})
            known |= {name: output.get(name) for name in ("kl", "kl_se", "top1", "top1_se")}
            table.append(row | {"rows": row["rows"] // len(layers[key])} | known)
        return table


def _but_selector(row: dict[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[key] for key in keys if key != "selector")


def _average(
    figures: Iterable[LayerFigure | OutputFigure | CalibrationFigure],
    keys: Sequence[str],
    values: Sequence[str],
) -> list[dict[str, Any]]:
    """Weighted by rows; ``<value>_se``: their standard error, documents being the independent draws."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for figure in figures:
        row = dataclasses.asdict(figure)
        groups[tuple(row[key] for key in keys)].append(row)
    table = []
    for group, rows in groups.items():
        documents: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            documents[row["source"], row["document"]].append(row)
        counts = [sum(row["rows"] for row in own) for own in documents.values()]
        line = dict(zip(keys, group, strict=True)) | {"documents": len(documents), "rows": sum(counts)}
        for value in values:
            sums = [sum(row["rows"] * row[value] for row in own) for own in documents.values()]
            line[value], line[f"{value}_se"] = map(float, ratio(sums, counts))
        table.append(line)
    return table
