"""The tables of a probe, with intervals by document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from seer_ray.analysis.means import mean_of
from seer_ray.study.cells import Row
from seer_ray.study.indicators import NAMES
from seer_ray.study.probe import NONE, Found

TEXT, REGIME = "text", "zero-shot"
"""What all text together is called; how everything here was measured: nothing was trained afterwards."""


def attention_table(found: Found) -> list[Row]:
    """``layer`` and its indicators, means over the text's rows."""
    table = []
    rows = sorted((row for row in found.attention if not row["recall"]), key=lambda row: row["layer"])
    for layer, own in groupby(rows, key=lambda row: row["layer"]):
        some = list(own)
        total = sum(row["rows"] for row in some)
        table.append(
            {"layer": layer} | {name: sum(row["rows"] * row[name] for row in some) / total for name in NAMES}
        )
    return table


def profile_table(found: Found) -> list[Row]:
    """Every layer alone, by relaxation, layer and kind of text."""
    return [
        {"relaxation": kind, "layer": layer, **figures}
        for (kind, layer), rows in found.alone.items()
        for figures in _by_source(rows)
    ]


def set_table(found: Found) -> list[Row]:
    """Every set, by relaxation, set and kind of text; of text in all also the cooperation index: what the set
    costs beyond the sum of what its layers cost alone. Above 0: they back each other up."""
    table = []
    for (kind, one), rows in found.together.items():
        about = {"relaxation": kind, "set": one.name, "drawn": one.drawn, "layers": list(one.layers)}
        alone = [found.alone[kind, layer] for layer in one.layers]
        for figures in _by_source(rows):
            said = {**about, "size": len(one.layers), **figures}
            if figures["source"] == TEXT:
                said |= _prefixed("index", _text(rows), _index(alone))
            table.append(said)
    return table


def cooperation_table(sets: Sequence[Row]) -> list[Row]:
    """The index of each named set beside that of random sets of its size: their mean, lowest and highest."""
    table = []
    for row in sets:
        if row["source"] != TEXT or row["drawn"]:
            continue
        drawn = [
            other
            for other in sets
            if other["drawn"]
            and other["source"] == TEXT
            and (other["relaxation"], other["size"]) == (row["relaxation"], row["size"])
        ]
        said = {name: row[name] for name in ("relaxation", "set", "size", "delta", "delta_low", "delta_high")}
        said |= {name: row[name] for name in ("index", "index_low", "index_high")}
        for name in ("delta", "index"):
            values = [other[name] for other in drawn]
            said[f"random_{name}"] = sum(values) / len(values) if values else None
            said[f"random_{name}_least"] = min(values, default=None)
            said[f"random_{name}_most"] = max(values, default=None)
        table.append(said | {"draws": len(drawn)})
    return table


def choice_table(found: Found, baseline: str = "spaced, last") -> list[Row]:
    """Each choice on documents that none has seen, by kind of text; of text in all also its loss less that of
    equal spacing, on the same documents."""
    table = []
    for name, rows in found.compared.items():
        about = {"choice": name, "dense": sorted(found.choices.get(name, []))}
        for figures in _by_source(rows):
            said = {**about, **figures}
            if figures["source"] == TEXT and name != baseline:
                said |= _prefixed("than_spaced", _text(rows), _less(found.compared[baseline]))
            table.append(said)
    return sorted(table, key=lambda row: row["choice"] == NONE)


Value = Callable[[int, Row], float]
"""(place among the rows of a cell, row) -> a figure of that document."""


def _text(rows: Iterable[Row]) -> list[tuple[int, Row]]:
    return [(place, row) for place, row in enumerate(rows) if not row["recall"]]


def _index(alone: Sequence[Sequence[Row]]) -> Value:
    def value(place: int, row: Row) -> float:
        singles = sum(rows[place]["nll"] - rows[place]["dense_nll"] for rows in alone)
        return float(row["nll"] - row["dense_nll"] - singles)

    return value


def _less(others: Sequence[Row]) -> Value:
    return lambda place, row: float(row["nll"] - others[place]["nll"])


def _by_source(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Figures of all text, of each kind of text if there are several, and of each retrieval task."""
    text = _text(rows)
    parts: list[tuple[str, list[tuple[int, Row]]]] = [(TEXT, text)] if text else []
    sources = list(dict.fromkeys(row["source"] for _, row in text))
    for source in sources if len(sources) > 1 else []:
        parts.append((source, [one for one in text if one[1]["source"] == source]))
    tasks = [(place, row) for place, row in enumerate(rows) if row["recall"]]
    for task in dict.fromkeys(row["source"] for _, row in tasks):
        parts.append((task, [one for one in tasks if one[1]["source"] == task]))
    for source, some in parts:
        said: dict[str, Any] = {"source": source, "recall": some[0][1]["recall"], "regime": REGIME}
        said |= _prefixed("delta", some, lambda place, row: row["nll"] - row["dense_nll"])
        for name in ("nll", "dense_nll", "kl", "top1", "right", "dense_right"):
            mean = mean_of((_cluster(row), row[name], row["rows"]) for _, row in some)
            assert mean is not None
            said[name] = mean.value
        yield said


def _prefixed(name: str, rows: Iterable[tuple[int, Row]], value: Value) -> dict[str, Any]:
    """A mean with the ends of its interval."""
    mean = mean_of((_cluster(row), value(place, row), row["rows"]) for place, row in rows)
    assert mean is not None
    return {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high, "documents": mean.documents}


def _cluster(row: Row) -> tuple[str, str]:
    return row["source"], row["document"]
