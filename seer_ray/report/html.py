"""A report: one HTML file that needs no network, and its plots as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np

from seer_ray.analysis import wording
from seer_ray.analysis.estimates import Estimate
from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Answer, Keeps, Recommendation
from seer_ray.analysis.standing import Comparison, Standing, compare
from seer_ray.config.errors import one_line
from seer_ray.report import plots as figures
from seer_ray.report import style
from seer_ray.report.embed import Embedded, embed
from seer_ray.report.plots import Plot
from seer_ray.results.store import Store

FILE, PLOTS = "report.html", "plots"
LIMIT = 24 << 20
"""Bytes of texts and maps in a page, about."""
SCRIPTS = ("page.js", "problems.js", "viewer.js", "map.js", "start.js")
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
        store.make_folder()
        store.make_folder(PLOTS)
        files: dict[str, bytes] = {}
        for plot in self.plots:
            files[f"{PLOTS}/{plot.name}.png"] = plot.png
            files[f"{PLOTS}/{plot.name}.svg"] = plot.svg.encode()
        for name, data in (files | {file: self.html.encode()}).items():
            store.write(name, data)
        return [file, *files]


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
        margin: accuracy that may be lost, a share
        confidence: of the intervals and the recommendation
        limit: bytes of chains and maps in the page, about; what does not fit is cut, and the page says so

    Raises:
        ConfigError: a folder cannot be read, holds nothing, or they are not about the same problems.
    """
    names = [uri.partition("?")[0].rstrip("/").rpartition("/")[2] for uri in uris]
    return report_of(compare(uris, margin, confidence), title or ", ".join(names), limit)


def report_of(comparison: Comparison, title: str, limit: int = LIMIT) -> Report:
    """The report of a comparison that is made already."""
    plots = figures.draw(comparison)
    return Report(page(comparison, plots, title, limit), plots, comparison)


def page(comparison: Comparison, plots: Sequence[Plot], title: str, limit: int = LIMIT) -> str:
    """The HTML file."""
    embedded = embed(comparison, limit)
    parts = {
        "title": escape(title),
        "about": escape(_about(comparison)),
        "css": _asset("report.css").replace("{{variables}}", style.css_variables()),
        "verdicts": "".join(map(_verdict, comparison.recommendations)),
        "tiles": "".join(_tile(*tile) for tile in _tiles(comparison)),
        "settings": _settings(comparison),
        "plots": "".join(map(_figure, plots)) or "<p>There is nothing to draw yet.</p>",
        "footer": "".join(f"<p>{escape(note)}</p>" for note in _notes(comparison, embedded)),
        "maps": "\n".join(
            f'<script type="text/plain" id="map-{i}">{data}</script>' for i, data in enumerate(embedded.maps)
        ),
        "data": embedded.data,
        "js": "\n".join(map(_asset, SCRIPTS)),
    }
    # Piece by piece, as what is filled in may look like a place to fill.
    html = []
    for piece in _asset("report.html").split("{{"):
        name, mark, rest = piece.partition("}}")
        html.append(parts[name] + rest if mark else piece)
    return "".join(html)


def _asset(name: str) -> str:
    return resources.files("seer_ray.report").joinpath("page", name).read_text(encoding="utf-8")


def _about(comparison: Comparison) -> str:
    options = [one.setting.options for one in comparison.standings]
    models = dict.fromkeys(str(option.get("model.name")).rpartition("/")[2] for option in options)
    tasks = dict.fromkeys(str(option.get("task.name")) for option in options)
    samples = len(comparison.standings[0].setting.outcomes.numbers)
    problems = len(comparison.problems)
    parts = [
        f"{', '.join(models)} on {', '.join(tasks)}",
        f"{problems:,} problem{'s' if problems != 1 else ''}",
        f"{samples} sample{'s' if samples != 1 else ''} each",
    ]
    if len(comparison.standings) > 1:
        parts.append(f"{len(comparison.standings)} settings")
    return " · ".join(parts)


def _verdict(recommendation: Recommendation) -> str:
    return (
        f'<div class="verdict {_ANSWERS[recommendation.answer]}"><p>{escape(recommendation.sentence)}</p>'
        f'<p class="rests">Rests on: {escape(recommendation.rests_on)}.</p></div>'
    )


def _tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _tiles(comparison: Comparison) -> list[tuple[str, str]]:
    """The figures of the run, or of the setting that is recommended; else of the sweep as a whole."""
    choices = [r.choice for r in comparison.recommendations if r.choice]
    names = {one.name: one for one in comparison.standings}
    one = names[choices[0]] if choices else comparison.standings[0]
    if not choices and len(names) > 1:
        return []
    tiles = []
    if one.accuracy:
        known = np.isfinite(one.accuracy.low)
        spread = f", {100 * one.accuracy.low:.1f} to {100 * one.accuracy.high:.1f} %" if known else ""
        tiles.append((f"{100 * one.accuracy.value:.1f} %", f"accuracy{spread}"))
    if one.assessment:
        tiles.append((wording.points(one.assessment.difference.value), "points against dense, paired"))
    if one.share:
        tiles.append((wording.percent(one.share), "of the KV read"))
    if one.attended_per_step:
        tiles.append((f"{one.attended_per_step:,.0f}", "KV tokens per head and step"))
    if one.speedup:
        tiles.append((f"{one.speedup:.2f}x", "decoding speed against dense"))
    elif one.setting.speed:
        tiles.append((f"{one.setting.speed.tokens_per_s:,.0f}", "tokens per second"))
    if one.lengths:
        tiles.append((f"{one.lengths.mean:,.0f}", "tokens a chain, on average"))
    return tiles


def _settings(comparison: Comparison) -> str:
    """One line a setting."""
    chosen = {r.choice for r in comparison.recommendations}
    compared = any(one.assessment for one in comparison.standings)
    heads = [
        "Setting",
        "Accuracy",
        *(["Against dense"] if compared else []),
        "KV read",
        "Tokens / s",
        "Length",
    ]
    heads += ["Cut off", "No answer", "Rows"]
    head = "".join(f"<th{' class=num' if i else ''}>{title}</th>" for i, title in enumerate(heads))
    lines = []
    for one in comparison.standings:
        swatch = f'<span class="swatch" style="background: var({style.variable(one.colour)})"></span>'
        tag = ""
        if one.assessment:
            kind = _KEEPS[one.assessment.keeps]
            tag = (
                f'<span class="tag {kind}" title="{escape(one.assessment.why)}">{one.assessment.keeps}</span>'
            )
        cells = [_cell(*_estimate(one.accuracy, one))]
        if compared:
            cells.append(_cell(*_against(one)))
        cells += [_cell(*cell) for cell in _costs(one)]
        marked = ' class="chosen"' if one.name in chosen else ""
        lines.append(f"<tr{marked}><td>{swatch}{escape(one.name)}{tag}</td>{''.join(cells)}</tr>")
    body = "".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str, small: str = "") -> str:
    return f'<td class="num">{escape(value)}{f"<small>{escape(small)}</small>" if small else ""}</td>'


def _estimate(found: Estimate | None, one: Standing) -> tuple[str, str]:
    if found is None:
        return "–", ""
    if not np.isfinite(found.low):
        return f"{100 * found.value:.1f} %", "one problem"
    return f"{100 * found.value:.1f} %", f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _against(one: Standing) -> tuple[str, str]:
    if one.assessment is None:
        return "–", ""
    found = one.assessment.difference
    return wording.points(found.value), f"{wording.points(found.low)} to {wording.points(found.high)}"


def _costs(one: Standing) -> list[tuple[str, str]]:
    """What a setting costs: KV, speed, length, cut off, no answer, rows."""
    outcomes, speed, drift = one.setting.outcomes, one.setting.speed, one.assessment and one.assessment.drift
    reads = f"{one.attended_per_step:,.0f} a head and step" if one.attended_per_step else ""
    times = f"{one.speedup:.2f}x dense" if one.speedup else ""
    longer = f"{100 * drift.value:+.1f} %".replace("-", "−") if drift else ""
    done, missing = int(outcomes.present.sum()), outcomes.missing
    flaws = [f"{missing:,} missing"] if missing else []
    flaws += [f"{outcomes.errors:,} errors"] if outcomes.errors else []
    flaws += [f"{outcomes.ungraded:,} ungraded"] if outcomes.ungraded else []
    return [
        (wording.percent(one.share) if one.share is not None else "–", reads),
        (f"{speed.tokens_per_s:,.1f}" if speed else "–", times),
        (f"{one.lengths.mean:,.0f}" if one.lengths else "–", longer),
        (wording.percent(one.truncation.value) if one.truncation else "–", ""),
        (wording.percent(one.no_answer.value) if one.no_answer else "–", ""),
        (f"{done:,}", ", ".join(flaws)),
    ]


def _figure(plot: Plot) -> str:
    drawn = style.inline(plot.svg, plot.name)
    return f"<figure><h3>{plot.title}</h3>{drawn}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _notes(comparison: Comparison, embedded: Embedded) -> list[str]:
    """How things were measured, and what the page leaves out."""
    confidence = f"{100 * comparison.confidence:g} %"
    notes = [
        f"Accuracy is the share of right samples (avg@k); errors count as wrong, missing samples not at all. "
        f"Intervals: {confidence}, clustered by problem. KV read is counted from the selections themselves.",
    ]
    jobs = {one.setting.job for one in comparison.standings}
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
