"""A report: one HTML file that needs no network, and its plots as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seer_ray.analysis import words
from seer_ray.analysis.comparison import ComparedRun, Comparison, compare
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.metric import Column, Metric
from seer_ray.analysis.metrics import columns_of
from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Answer, Keeps
from seer_ray.analysis.runs import first_samples
from seer_ray.config.errors import one_line
from seer_ray.config.options import RunConfig
from seer_ray.report import style
from seer_ray.report.drawing import Plot, colour
from seer_ray.report.embed import Embedded, embed
from seer_ray.report.headline import headline
from seer_ray.report.origin import origin
from seer_ray.report.pages import render
from seer_ray.report.plots import draw
from seer_ray.report.written import FILE, write_page
from seer_ray.results.store import Store

LIMIT = 24 << 20
"""Bytes of texts and maps in a page, about."""
SCRIPTS = ("filters.js", "problems.js", "map.js", "viewer.js", "start.js")
_KEEPS = {Keeps.YES: "yes", Keeps.NO: "no", Keeps.UNKNOWN: "unknown"}
_ANSWERS = {Answer.TAKE: "take", Answer.NONE: "none", Answer.MORE: "more"}


@dataclass(frozen=True)
class Report:
    """A report that is made, and not yet written."""

    html: str
    plots: list[Plot]
    comparison: Comparison

    def write(self, store: Store, file: str = FILE) -> list[str]:
        """The page and the plots beside it, in ``plots/``. Returns the names of all files."""
        return write_page(store, file, self.html, self.plots)


def make_report(
    uris: Sequence[str],
    title: str | None = None,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    limit: int = LIMIT,
) -> Report:
    """The report of runs and sweeps of the same problems. The same rows give the same page.

    Args:
        uris: of run folders and sweeps
        title: None: the names of the folders
        margin: accuracy that may be lost, a fraction
        confidence: of the intervals and the recommendation
        limit: bytes of chains and maps in the page, about; what does not fit is cut, and the page says so

    Raises:
        ConfigError: a folder cannot be read, holds nothing, or they are not about the same problems.
    """
    names = [uri.partition("?")[0].rstrip("/").rpartition("/")[2] for uri in uris]
    return report_of(compare(uris, margin, confidence), title or ", ".join(names), limit)


def report_of(comparison: Comparison, title: str, limit: int = LIMIT) -> Report:
    """The report of a comparison that is made already."""
    plots = draw(comparison)
    return Report(page(comparison, plots, title, limit), plots, comparison)


def page(comparison: Comparison, plots: Sequence[Plot], title: str, limit: int = LIMIT) -> str:
    """The HTML file. All text is escaped but what is made here: styles, scripts and plots."""
    embedded = embed(comparison, limit)
    compared, own = any(run.assessment for run in comparison.runs), _own(comparison.runs)
    return render(
        "report.html",
        SCRIPTS,
        title=title,
        about=_about(comparison),
        recommendations=comparison.recommendations,
        answers=_ANSWERS,
        figures=headline(comparison),
        heads=_heads(compared, own),
        runs=comparison.runs,
        chosen={recommendation.choice for recommendation in comparison.recommendations},
        keeps=_KEEPS,
        variable=style.variable,
        colour=colour,
        cells=lambda run: _cells(run, compared, own),
        plots=plots,
        facts=origin({run.name: run.folder for run in comparison.runs}, RunConfig),
        notes=_notes(comparison, embedded),
        embedded=embedded,
    )


def _about(comparison: Comparison) -> str:
    options = [one.setting.options for one in comparison.runs]
    models = dict.fromkeys(str(option.get("model.name")).rpartition("/")[2] for option in options)
    tasks = dict.fromkeys(str(option.get("task.name")) for option in options)
    samples = len(comparison.runs[0].setting.outcomes.numbers)
    problems = len(comparison.problems)
    parts = [
        f"{', '.join(models)} on {', '.join(tasks)}",
        words.count(problems, "problem"),
        f"{words.count(samples, 'sample')} each",
    ]
    if len(comparison.runs) > 1:
        parts.append(f"{len(comparison.runs)} settings")
    return " · ".join(parts)


Cell = tuple[str, str]
"""Text, and what stands in small letters below it."""


def _own(runs: Sequence[ComparedRun]) -> list[tuple[Metric, Column]]:
    """Columns of the table of settings that are metrics."""
    return [
        (metric, column)
        for metric, column in columns_of("report")
        if not column.optional or any(metric.name in run.metrics for run in runs)
    ]


def _heads(compared: bool, own: Sequence[tuple[Metric, Column]]) -> list[str]:
    """Of the table of settings, beside their names."""
    against = ["Against dense"] if compared else []
    heads = [column.head for _, column in own]
    return ["Accuracy", *against, "KV read", "Tokens / s", "Length", *heads, "Rows"]


def _cells(run: ComparedRun, compared: bool, columns: Sequence[tuple[Metric, Column]]) -> list[Cell]:
    """What stands below ``_heads`` of one run."""
    against = [_against(run)] if compared else []
    own = [(metric.said(column.words, run.metrics) or "–", "") for metric, column in columns]
    return [_accuracy(run.accuracy), *against, *_costs(run), *own, _rows(run)]


def _accuracy(found: Estimate | None) -> Cell:
    if found is None:
        return "–", ""
    if not np.isfinite(found.low):
        return words.percent(found.value), "one problem"
    return words.percent(found.value), f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _against(run: ComparedRun) -> Cell:
    if run.assessment is None:
        return "–", ""
    found = run.assessment.difference
    return words.points(found.value), found.ends


def _costs(run: ComparedRun) -> list[Cell]:
    """KV, speed and length."""
    speed, drift = run.setting.speed, run.assessment and run.assessment.drift
    reads, length = run.metrics.get("kv/mean_attended"), run.metrics.get("length/mean_tokens")
    return [
        (
            words.round_percent(run.attended_share) if run.attended_share is not None else "–",
            f"{reads:,.0f} a head and token" if reads else "",
        ),
        (f"{speed.tokens_per_s:,.1f}" if speed else "–", f"{run.speedup:.2f}x dense" if run.speedup else ""),
        (f"{length:,.0f}" if length is not None else "–", words.signed_percent(drift.value) if drift else ""),
    ]


def _rows(run: ComparedRun) -> Cell:
    outcomes = run.setting.outcomes
    flaws = {"missing": outcomes.missing, "errors": outcomes.errors, "ungraded": outcomes.ungraded}
    done = int(outcomes.present.sum())
    return f"{done:,}", ", ".join(f"{number:,} {flaw}" for flaw, number in flaws.items() if number)


def _notes(comparison: Comparison, embedded: Embedded) -> list[str]:
    """How things were measured, and what the page leaves out."""
    confidence = f"{100 * comparison.confidence:g} %"
    notes = [
        f"Accuracy is the share of right samples (avg@k); errors count as wrong, missing samples not at all. "
        f"Intervals: {confidence}, clustered by problem. KV read is counted from the selections themselves.",
    ]
    for first in sorted({f for one in comparison.runs if (f := first_samples(one.setting.options))}):
        notes.append(
            f"Where problems were sampled until they were decided, accuracy, lengths and reads are those of "
            f"their first {first} samples: later ones are there because of what the earlier ones showed."
        )
    jobs = {one.setting.job for one in comparison.runs}
    if len(jobs) > 1:
        notes.append("The settings come from several jobs: their tokens per second are not compared.")
    for assessment in (a for r in comparison.recommendations for a in r.assessments):
        notes += [f"{caution[0].upper()}{caution[1:]}." for caution in assessment.cautions]
    return [*dict.fromkeys(notes), *embedded.notes]


def write_report(comparison: Comparison, title: str, store: Store, note: Callable[[str], None]) -> list[str]:
    """The report of a run or sweep in its own folder: the names of its files. A job does not fail for it."""
    try:
        return report_of(comparison, title).write(store)
    except Exception as error:
        note(f"no report ({type(error).__name__}: {one_line(error)}); what it would show is all there")
        return []
