"""The page of a job that trains or measures: figures, plots, tables, and how they were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seer_ray.analysis.words import count
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.config.measuring import (
    GatesCalibrateConfig,
    GatesEvalConfig,
    GatesPromptsConfig,
    GatesSharesConfig,
)
from seer_ray.config.study import StudyProbeConfig, StudyTrainConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.report.content import Content, Table, figures_of, share
from seer_ray.report.gate_plots import draw_calibration, draw_gates, draw_shares
from seer_ray.report.headline import FIGURES
from seer_ray.report.origin import origin
from seer_ray.report.pages import render
from seer_ray.report.plots import Plot
from seer_ray.report.study import probe_content
from seer_ray.report.trained import trained_content
from seer_ray.report.training_plots import LAYER, draw_training
from seer_ray.report.written import FILE, write_page
from seer_ray.results.history import read_history
from seer_ray.results.job import JobFolder
from seer_ray.results.store import Store

CONFIGS = {
    kind.command: kind
    for kind in (
        *(PretrainConfig, DistillConfig),
        *(GatesEvalConfig, GatesSharesConfig, GatesCalibrateConfig, GatesPromptsConfig),
        *(StudyProbeConfig, StudyTrainConfig),
    )
}
EXPLAINED = (
    "KV: tokens read per head and step. Mass: attention probability inside the blocks read; of oracle: as a "
    "share of what the oracle keeps; worst: of its worst layer. Recall: of the oracle's blocks. KL in nats "
    "and top-1, the same next token as dense: every token sparse in every layer."
)


@dataclass(frozen=True)
class JobReport:
    """A page that is made, and not yet written."""

    html: str
    plots: list[Plot]

    def write(self, store: Store, file: str = FILE) -> list[str]:
        """The page and the plots beside it. Returns the names of all files."""
        return write_page(store, file, self.html, self.plots)


def make_job_report(folder: JobFolder, title: str | None = None) -> JobReport:
    """The page of a job, finished or not.

    Args:
        title: None: the folder's name

    Raises:
        ConfigError: nothing was recorded or measured yet, or it is torn.
    """
    content = MAKERS[folder.job](folder)
    html = render(
        "job.html",
        ("job.js",),
        title=title or str(folder.config.get("name") or folder.job),
        about=content.about,
        figures=content.figures[:FIGURES],
        plots=content.plots,
        tables=content.tables,
        facts=origin({"job": folder}, CONFIGS[folder.job]),
        notes=content.notes,
    )
    return JobReport(html, content.plots)


def write_job_report(folder: JobFolder, note: Callable[[str], None]) -> list[str]:
    """The page in the job's own folder: the names of its files. A job does not fail for it."""
    try:
        return make_job_report(folder).write(folder.store)
    except Exception as error:
        note(f"no report ({type(error).__name__}: {one_line(error)}); what it would show is all there")
        return []


def _training(folder: JobFolder) -> Content:
    records = read_history(folder.store)
    if not records:
        raise ConfigError(
            f"{folder.uri}: nothing is recorded yet; give the job's command again to go on with it"
        )
    last: dict[str, float] = {}
    for record in records:
        last |= record
    losses = [name for name in ("eval/loss", "train/loss") if name in last]
    held_out = [
        name for name in last if name.startswith("eval/") and LAYER not in name and name not in losses
    ]
    figures = [(f"{last[name]:.4g}", f"{name}, last") for name in (*losses[:1], *held_out)]
    if "train/tokens" in last:
        figures.insert(1, (f"{last['train/tokens']:,.0f}", "tokens learned from"))
    layers = sorted({name for name in last if LAYER in name})
    tables = [
        _plain(
            "Last values",
            {n: v for n, v in last.items() if LAYER not in n and n not in ("step", "time/eta_s")},
        )
    ]
    if layers:
        tables.append(_by_layer({name: last[name] for name in layers}))
    return Content(f"{folder.job} · {last['step']:,.0f} steps", figures, draw_training(records), tables)


def _by_layer(values: Mapping[str, float]) -> Table:
    """Metrics whose names end with their layer."""
    kinds = list(dict.fromkeys(name.partition(LAYER)[0] for name in values))
    layers = sorted({name.partition(LAYER)[2] for name in values})
    rows = []
    for layer in layers:
        found = [values.get(f"{kind}{LAYER}{layer}") for kind in kinds]
        rows.append((f"layer {layer}", *("" if value is None else f"{value:,.4g}" for value in found)))
    return Table("By layer, last values", ("", *kinds), rows)


def _plain(title: str, values: Mapping[str, float]) -> Table:
    return Table(title, ("metric", "value"), [(name, f"{value:,.6g}") for name, value in values.items()])


def _gates(folder: JobFolder) -> Content:
    said = figures_of(folder)
    rows = [row for row in said["table"] if row["positions"] == "all"]
    gates = [row for row in rows if row["selector"] in said["gates"]] or rows
    least = min(row["read"] for row in gates)  # the smallest budget tells gates apart
    best = max(
        (row for row in gates if row["read"] <= 1.05 * least),
        key=lambda row: (-(row["kl"] or 0), row["mass"]),
    )
    figures = [
        (
            share(best["top1"]),
            f"of the next tokens of {best['selector']} at a budget of {best['budget']} as with dense "
            "attention",
        ),
        (share(best["mass"]), "of the attention mass kept"),
        (share(best["of_oracle"]), "of what the oracle keeps"),
    ]
    heads = ("budget, selector", "KV", "KL", "top-1", "mass", "of oracle", "worst", "recall")
    tables = []
    for kind in dict.fromkeys(row["positions"] for row in said["table"]):
        some = [row for row in said["table"] if row["positions"] == kind]
        tables.append(Table(f"Positions: {kind}", heads, [_gate_row(row) for row in some]))
    for source, kind in dict.fromkeys((row["source"], row["positions"]) for row in said["sources"]):
        some = [row for row in said["sources"] if (row["source"], row["positions"]) == (source, kind)]
        tables.append(Table(f"{source}, positions: {kind}", heads, [_gate_row(row) for row in some]))
    sets = [f"{label}: {where}" for label, where in said["gates"].items()]
    plots = draw_gates(said["layers"], said["table"], list(said["gates"]))
    if said.get("calibration"):  # not measured before
        plots += draw_calibration(said["calibration"], said["calibration_layers"], list(said["gates"]))
        tables.append(_calibrated(said["calibration"]))
    known = [figure for figure in figures if figure[0]]
    return Content(_measured(said), known, plots, tables, [EXPLAINED, *sets])


def _gate_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    worst = share(row["worst_of_oracle"])
    return (
        f"{row['budget']}, {row['selector']}",
        f"{row['read']:,.0f}",
        "" if row["kl"] is None else f"{row['kl']:.4f}",
        *(share(row[name]) for name in ("top1", "mass", "of_oracle")),
        f"{worst} (layer {row['worst_layer']})" if worst else "",
        share(row["recall"]),
    )


def _calibrated(rows: Sequence[Mapping[str, Any]]) -> Table:
    lines: list[tuple[str, ...]] = [
        (f"{row['selector']}, {share(row['level'])}", share(row["predicted"]), share(row["kept"]))
        for row in rows
    ]
    return Table("Mass of the shares, and what is kept", ("selector, mass", "predicted", "kept"), lines)


def _calibration(folder: JobFolder) -> Content:
    said = figures_of(folder)
    last = said["calibration"][-1]
    figures = [(share(last["kept"]), f"of the attention kept at a mass of {last['level']:g}, fitted")]
    plots = draw_calibration(said["calibration"], said["layers"], [])
    layers = sorted({row["layer"] for row in said["layers"]})
    lines: list[tuple[str, ...]] = [
        (f"layer {layer}", ", ".join(f"{one:.3g}" for one in heads))
        for layer, heads in zip(layers, said["temperatures"], strict=True)
    ]
    heads = Table("Temperature of each KV head", ("", "temperature"), lines)
    tables = [_calibrated(said["calibration"]), heads]
    notes = ["Of the attention to complete blocks, on the text that the temperatures were fitted on."]
    return Content(_measured(said), figures, plots, tables, notes)


def _prompts(folder: JobFolder) -> Content:
    """Budgets are densities."""
    said = figures_of(folder)
    rows, gates = said["table"], list(said["gates"])
    figures = []
    for row in rows:
        if row["selector"] == (gates or [row["selector"]])[0]:
            figures.append(
                (share(row["mass"]), f"of the attention mass kept at a density of {row['budget']}")
            )
    heads = ("density, selector", "KV", "KL", "top-1", "mass", "of oracle", "worst", "recall")
    tables = [Table("What prompts keep", heads, [_gate_row(row) for row in rows])]
    known = [row for row in rows if row["perplexity"] is not None]
    if known:
        lines: list[tuple[str, ...]] = [
            (
                f"{r['budget']}, {r['selector']}",
                f"{r['perplexity']:.3f}",
                f"{r['dense']:.3f}",
                share(r["more"]),
            )
            for r in known
        ]
        tables.append(Table("Perplexity", ("density, selector", "sparse", "dense", "more"), lines))
    notes = [
        "Of the rows of prompts that leave something out. KV: tokens read per head and block of rows. Mass: "
        "attention probability inside the blocks read. Recall: of the oracle's blocks. Perplexity, KL in "
        "nats and top-1: every layer's prompt sparse.",
        *(f"{label}: {where}" for label, where in said["gates"].items()),
    ]
    return Content(_measured(said), figures[:3], draw_gates(said["layers"], rows, gates), tables, notes)


def _shares(folder: JobFolder) -> Content:
    said = figures_of(folder)
    spent: list[dict[str, Any]] = said["spent"]
    own = [one for one in spent if one["selector"] == spent[0]["selector"]]
    middle = own[len(own) // 2]
    figures = [
        (f"{middle['kl']:.4f}", f"KL expected at a mean of {middle['budget']:,} tokens, nats"),
        (f"{middle['uniform']:.4f}", "where every head has as much"),
        (f"{middle['read']:,.0f}", "KV tokens read per head and step, on average"),
    ]
    lines: list[tuple[str, ...]] = [
        (
            f"{one['selector']}, {one['budget']:,}",
            f"{one['read']:,.0f}",
            f"{one['kl']:.5f}",
            f"{one['uniform']:.5f}",
        )
        for one in spent
    ]
    by_layer = [
        (f"layer {row['layer']}", f"{row['kl']:.5f}", *(f"{one['layers'][place]:,.0f}" for one in own))
        for place, row in enumerate(said["layers"])
    ]
    budgets = [f"{one['budget']:,}" for one in own]
    tables = [
        Table("A mean budget, shared", ("selector, budget", "KV", "KL, shared", "KL, uniform"), lines),
        Table("KV tokens read by layer", ("", "KL with it sparse alone", *budgets), by_layer),
    ]
    notes = ["KL of the next token in nats: the sum over heads, each sparse alone, which is expected."]
    return Content(_measured(said), figures, draw_shares(said["layers"], own), tables, notes)


def _measured(said: Mapping[str, Any]) -> str:
    documents = f"{count(said['documents'], 'document')}, {said['tokens']:,} tokens"
    return f"{said['model']} · {documents} · blocks of {said['block_size']}"


MAKERS: dict[str, Callable[[JobFolder], Content]] = {
    PretrainConfig.command: _training,
    DistillConfig.command: _training,
    GatesEvalConfig.command: _gates,
    GatesSharesConfig.command: _shares,
    GatesCalibrateConfig.command: _calibration,
    GatesPromptsConfig.command: _prompts,
    StudyProbeConfig.command: probe_content,
    StudyTrainConfig.command: trained_content,
}
