"""The page of a study: what holds alone, what in company, what skipping breaks, where recall comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from seer_ray.analysis.words import signed_interval, signed_range
from seer_ray.report import style
from seer_ray.report.content import Content, Table, figures_of
from seer_ray.report.drawing import Plot
from seer_ray.results.job import JobFolder

Row = dict[str, Any]
TEXT = "text"
HARMLESS = 0.01
"""Nats a token, below which a layer is said to do without."""
MOST = 6
"""Layers that a table names."""
BROKEN = ("skip", "silent")
"""Relaxations that leave the layer's mixing out."""
NOTES = [
    "Zero-shot: layers of trained weights were relaxed and nothing was trained afterwards. This is reliance, "
    "what these weights count on; it is not necessity, what a model trained so would need.",
    "Δ: loss more than that of the dense model, nats a token, on the same text, with its 95 % interval over "
    "documents. KL of the next token to the dense model's; top-1: the same most likely token.",
    "Index: Δ of a set less the sum of the Δ of its layers alone. Above 0, layers back each other up, and "
    "relaxing them together costs more; below 0, they break the same thing.",
]


def probe_content(folder: JobFolder) -> Content:
    """Of ``seer-ray study probe``."""
    said = figures_of(folder)
    profile, text = said["profile"], [row for row in said["profile"] if row["source"] == TEXT]
    tables = [_alone(text)]
    if said["cooperation"]:
        tables.append(_company(said["cooperation"]))
    if broken := [row for row in text if row["relaxation"] in BROKEN]:
        tables.append(_broken(broken, said["cooperation"]))
    if recalled := [row for row in profile if row["recall"]]:
        tables.append(_recall(recalled))
    if said["choices"]:
        tables.append(_choices(said["choices"], said["cheap"]))
    tables += [_by_layer(text), _attention(said["attention"])]
    sources = list(dict.fromkeys(row["source"] for row in profile if not row["recall"]))
    tables += [
        _alone([row for row in profile if row["source"] == source], f" of {source}")
        for source in sources
        if source != TEXT
    ]
    plots = [_lines(text, "delta", "loss more than dense, nats", "profile", "Each layer relaxed alone")]
    if recalled:
        title = "Answers still read, each layer relaxed alone"
        plots.append(_lines(recalled, "right", "tokens of answers that are right, share", "recall", title))
    documents = max(row["documents"] for row in text)
    about = f"{said['model']} · zero-shot · {documents} documents, {len(said['layers'])} layers"
    return Content(about, _headline(said, text), plots, tables, NOTES)


def _headline(said: Row, text: Sequence[Row]) -> list[tuple[str, str]]:
    found = []
    kinds = dict.fromkeys(row["relaxation"] for row in text)
    middle = {k: median(row["delta"] for row in text if row["relaxation"] == k) for k in kinds}
    least = min(middle, key=lambda kind: middle[kind])
    found.append((f"{middle[least]:+.3f}", f"nats of a layer that is {least} alone, median; the least"))
    if indices := [row for row in said["cooperation"] if row["index_low"] is not None]:
        most = max(indices, key=lambda row: row["index"])
        found.append(
            (signed_interval(most, "index"), f"index of {most['set']} as {most['relaxation']}; the largest")
        )
    for row in said["choices"]:
        if row["choice"] == "greedy" and row["source"] == TEXT and row.get("than_spaced") is not None:
            what = f"nats less or more than equal spacing, {len(row['dense'])} chosen layers dense"
            found.append((signed_interval(row, "than_spaced"), what))
    return found


def _alone(text: Sequence[Row], where: str = "") -> Table:
    rows = []
    for kind in dict.fromkeys(row["relaxation"] for row in text):
        own = sorted((row for row in text if row["relaxation"] == kind), key=lambda row: row["delta"])
        without = sum(row["delta"] < HARMLESS for row in own)
        worst = own[-1]
        rows.append(
            (
                kind,
                f"{median(row['delta'] for row in own):+.4f}",
                f"{without} of {len(own)}",
                f"{signed_interval(worst, 'delta')} (layer {worst['layer']})",
                f"{worst['kl']:.3f}",
                f"{100 * worst['top1']:.1f} %",
            )
        )
    heads = ("zero-shot", "median Δ", f"layers with Δ < {HARMLESS}", "most Δ", "its KL", "its top-1")
    return Table(f"What holds alone{where}", heads, rows)


def _company(rows: Sequence[Row]) -> Table:
    lines = [
        (
            f"{row['relaxation']}, {row['set']}",
            str(row["size"]),
            signed_interval(row, "delta"),
            signed_interval(row, "index"),
            *(signed_range(row, f"random_{name}") for name in ("delta", "index")),
        )
        for row in rows
    ]
    heads = ("zero-shot", "layers", "Δ", "index", "Δ of random sets", "index of random sets")
    return Table("What holds in company", heads, lines)


def _broken(rows: Sequence[Row], sets: Sequence[Row]) -> Table:
    lines = []
    for kind in dict.fromkeys(row["relaxation"] for row in rows):
        own = [row for row in rows if row["relaxation"] == kind]
        for row in sorted(own, key=lambda row: -row["delta"])[:MOST]:
            agree = f"{row['kl']:.3f}", f"{100 * row['top1']:.1f} %"
            lines.append((f"{kind}, layer {row['layer']}", signed_interval(row, "delta"), *agree))
        for row in sets:
            if row["relaxation"] == kind:
                lines.append((f"{kind}, {row['set']}", signed_interval(row, "delta"), "", ""))
    return Table("What skipping breaks", ("zero-shot", "Δ", "KL", "top-1"), lines)


def _recall(rows: Sequence[Row]) -> Table:
    lines = []
    for task, kind in dict.fromkeys((row["source"], row["relaxation"]) for row in rows):
        own = [row for row in rows if (row["source"], row["relaxation"]) == (task, kind)]
        worst = sorted(own, key=lambda row: (row["right"], -row["delta"]))[:MOST]
        named = ", ".join(f"{row['layer']} ({100 * row['right']:.0f} %)" for row in worst)
        lines.append((f"{task}, {kind}", f"{100 * own[0]['dense_right']:.0f} %", named))
    heads = ("zero-shot", "dense", "layers that cost it most (what is left)")
    return Table("Where recall comes from: tokens of answers that are right", heads, lines)


def _choices(rows: Sequence[Row], cheap: str) -> Table:
    lines = []
    for row in rows:
        than = signed_interval(row, "than_spaced") if row.get("than_spaced") is not None else ""
        lines.append(
            (
                f"{row['choice']}, {row['source']}",
                ", ".join(map(str, row["dense"])),
                signed_interval(row, "delta"),
                than,
                f"{row['kl']:.3f}",
                f"{100 * row['right']:.1f} %",
            )
        )
    heads = ("zero-shot", "dense layers", "Δ", "less that of equal spacing", "KL", "right")
    title = f"Which layers stay dense, all others {cheap}: equal reads, on documents that no choice has seen"
    return Table(title, heads, lines)


def _by_layer(text: Sequence[Row]) -> Table:
    kinds = list(dict.fromkeys(row["relaxation"] for row in text))
    by = {(row["relaxation"], row["layer"]): row["delta"] for row in text}
    layers = sorted({row["layer"] for row in text})
    lines = [(f"layer {layer}", *(f"{by[kind, layer]:+.4f}" for kind in kinds)) for layer in layers]
    return Table("Δ of each layer alone, zero-shot", ("", *kinds), lines)


def _attention(rows: Sequence[Row]) -> Table:
    names = [name for name in rows[0] if name != "layer"]
    lines = [(f"layer {row['layer']}", *(f"{row[name]:.3f}" for name in names)) for row in rows]
    return Table("What dense attention looks like", ("", *names), lines)


def _lines(rows: Iterable[Row], value: str, label: str, name: str, title: str) -> Plot:
    """One line for each relaxation over the layers."""
    some = list(rows)
    looks = [*style.LOOKS.values(), *style.OTHERS]
    with style.figure() as (made, axes):
        for place, kind in enumerate(dict.fromkeys(row["relaxation"] for row in some)):
            own = sorted((row for row in some if row["relaxation"] == kind), key=lambda row: row["layer"])
            colour, _, marker = looks[place % len(looks)]
            xs, ys = [row["layer"] for row in own], [row[value] for row in own]
            dash = "--" if place >= len(looks) else "-"  # there are more relaxations than colours
            axes.plot(xs, ys, color=colour, marker=marker, linestyle=dash, markersize=4, label=kind)
        axes.set(xlabel="layer", ylabel=label)
        if value == "delta":
            axes.set_yscale("symlog", linthresh=HARMLESS)
        style.whole_ticks(axes)
        made.legend(loc="outside upper left", ncols=4)
        caption = "Zero-shot: nothing was trained afterwards."
        return Plot(name, title, caption, style.svg(made), style.png(made))
