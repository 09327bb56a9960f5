"""The one table of metrics of a run: what each is, how it is computed, and where it is shown.

The live monitor, ``metrics.json``, MLflow, the terminal, the table of a sweep and the report read it.
A metric about which nothing is known (accuracy without a grader, spread of one problem) is absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from seer_ray.analysis.reads import reads, tokens_read
from seer_ray.analysis.rows import Rows, Run, Totals, majority, pass_at_k
from seer_ray.analysis.words import count, percent, round_percent, with_error
from seer_ray.results.speed import Speed

Value = float | int
Values = Mapping[str, Value]
"""By name."""
Words = Callable[..., str]
"""A value in words; that of a metric with a standard error takes it too, None: not known."""


@dataclass(frozen=True)
class Line:
    """A line of a run's summary on the terminal, or a part of one: parts of one label stand side by side."""

    label: str
    words: Words
    """Empty: not worth saying."""
    joint: str = " · "
    """Between it and the part before it."""


@dataclass(frozen=True)
class Column:
    """A column of a table with one line a run."""

    head: str
    words: Words
    place: int = 0
    """From the left."""
    ratio: str = ""
    """Head of a column beside it: the value over that of the baseline."""


@dataclass(frozen=True)
class Metric:
    """Something to say of a run."""

    name: str
    """In ``metrics.json`` and MLflow. With ``{k}`` a family, of which ``of`` gives the members by k."""
    meaning: str
    unit: str
    columns: tuple[str, ...]
    """Of a row, that it is computed from."""
    of: Callable[[Run], Value | Mapping[int, Value] | None]
    stderr: str = ""
    """Name of the metric that is its standard error."""
    live: str = ""
    """Field of ``LiveStats`` and ``status.json``, while the job runs: only of what ``Totals`` sums up."""
    twin: bool = False
    """Says what another one says: not told to MLflow, whose page has a chart for each."""
    summary: Line | None = None
    sweep: Column | None = None
    """In the table of a sweep's points."""
    report: Column | None = None
    """In the report's table of settings, after those that have intervals."""

    def said(self, words: Words, values: Values) -> str:
        """In words; empty: not known."""
        if self.name not in values:
            return ""
        value = values[self.name]
        return words(value, values.get(self.stderr)) if self.stderr else words(value)


def _graded(of: Callable[[Totals], float | None]) -> Callable[[Run], float | None]:
    """Where a row is graded."""
    return lambda run: of(run.totals) if run.totals.graded else None


def _all(column: str, of: Callable[[list[Any]], Value] = sum) -> Callable[[Run], Value]:
    """Of all rows."""
    return lambda run: of(run.rows.all[column])


def _complete(column: str, of: Callable[[list[Any]], Value]) -> Callable[[Run], Value | None]:
    """Of rows that have a completion, where there is one."""
    return lambda run: of(run.rows.complete[column]) if run.rows.complete[column] else None


def _engine_rate(counter: str, scale: float = 1.0) -> Callable[[Run], float | None]:
    """Of a counter, a second of decode steps."""

    def found(run: Run) -> float | None:
        seconds = run.engines.get("decode_s", 0.0)
        return run.engines.get(counter, 0.0) / seconds / scale if seconds > 0 else None

    return found


def _no_answer(run: Run) -> float | None:
    answers = run.rows.complete["extracted_answer"]
    return answers.count(None) / len(answers) if run.totals.graded else None


def _chances(run: Run) -> dict[int, list[float]]:
    """pass@k of each problem that has k graded samples, by k: powers of two and all."""
    tallies = [
        [s.counted for s in samples if s.counted is not None] for samples in run.rows.problems.values()
    ]
    counts = [(len(tally), sum(tally)) for tally in tallies if tally]
    if not run.totals.graded:
        return {}
    most = max(n for n, _ in counts)
    ks = sorted({most, *(2**i for i in range(most.bit_length()))})
    return {k: [pass_at_k(n, c, k) for n, c in counts if n >= k] for k in ks}


def _pass_at(run: Run) -> dict[int, Value]:
    return {k: math.fsum(chances) / len(chances) for k, chances in _chances(run).items()}


def _pass_problems(run: Run) -> dict[int, Value]:
    problems = len(run.rows.problems)
    return {k: len(chances) for k, chances in _chances(run).items() if len(chances) < problems}


def _majority(run: Run) -> dict[int, Value]:
    problems = run.rows.problems.values()
    verdicts = [verdict for samples in problems if (verdict := majority(samples)) is not None]
    if not run.totals.graded or not verdicts:
        return {}
    return {max(map(len, problems)): sum(verdicts) / len(verdicts)}


def _nominal_read_rate(run: Run) -> float | None:
    columns = run.rows.complete
    nominal = available = 0.0
    for plan, *tokens in zip(*(columns[name] for name in _PLAN[:3]), strict=True):
        found = reads(plan)
        if found is None:
            return None
        nominal += math.fsum(kind.layers * tokens_read(kind.budget, *tokens) for kind in found)
        available += sum(kind.layers for kind in found) * tokens_read(None, *tokens)
    return nominal / available if available else None


def _sparse_per_dense(run: Run) -> float | None:
    plans = set(run.rows.complete["selector"])
    found = (reads(plans.pop()) if len(plans) == 1 else None) or ()
    dense = sum(kind.layers for kind in found if kind.budget is None)
    return sum(kind.layers for kind in found if kind.budget is not None) / dense if dense else None


_GRADE = ("problem_id", "correct", "error")
_ANSWERS = (*_GRADE, "sample", "extracted_answer")
_LENGTH = ("completion_tokens",)
_KV = ("attended_kv", "available_kv")
_PLAN = ("selector", "prompt_tokens", "completion_tokens", "error")

# fmt: off
METRICS = (
    Metric("accuracy/avg", "right samples (avg@k); errors count as wrong", "fraction", _GRADE,
           _graded(lambda totals: totals.accuracy.mean), stderr="accuracy/stderr",
           live="accuracy",
           summary=Line("accuracy", with_error), sweep=Column("accuracy", with_error, 1)),
    Metric("accuracy/stderr", "standard error of accuracy/avg, clustered by problem", "fraction", _GRADE,
           _graded(lambda totals: totals.accuracy.stderr), live="accuracy_se"),
    Metric("accuracy/avg_without_errors", "right among graded samples", "fraction", _GRADE,
           _graded(lambda totals: totals.accuracy.total / totals.graded)),
    Metric("accuracy/pass_at_{k}", "chance that one of k samples is right, over problems that have k",
           "fraction", _ANSWERS, _pass_at, summary=Line("pass@{k}", percent)),
    Metric("accuracy/pass_at_{k}_problems", "problems that have k graded samples, where not all have",
           "problems", _ANSWERS, _pass_problems),
    Metric("accuracy/majority_at_{k}", "problems whose most frequent answer is right", "fraction", _ANSWERS,
           _majority, summary=Line("majority@{k}", percent)),
    Metric("rows/total", "completions and errors", "rows", ("error",), _all("error", len)),
    Metric("rows/problems", "problems with a row", "problems", _ANSWERS, lambda run: len(run.rows.problems)),
    Metric("rows/errors", "rows with an error in place of a completion", "rows", ("error",),
           lambda run: run.totals.errors),
    Metric("rows/ungraded", "completions without a grade", "rows", ("correct", "error"),
           lambda run: run.rows.complete["correct"].count(None),
           summary=Line("ungraded", lambda n: f"{count(n, 'row')}, not counted above" if n else "")),
    Metric("rows/retried", "rows that more than one worker was given", "rows", ("attempts",),
           _all("attempts", lambda attempts: sum(n > 1 for n in attempts))),
    Metric("accuracy/no_answer_rate", "completions in which no answer was found", "fraction",
           ("extracted_answer", "error"), _no_answer,
           summary=Line("no answer", lambda rate: f"{percent(rate)} of the completions"),
           report=Column("No answer", round_percent, 2)),
    Metric("length/mean_tokens", "length of a completion, mean", "tokens", _LENGTH,
           _complete("completion_tokens", lambda lengths: sum(lengths) / len(lengths)),
           summary=Line("length", lambda n: f"{n:,.0f} tokens on average"),
           sweep=Column("tokens a chain", lambda n: f"{n:,.0f}", 4)),
    Metric("length/median_tokens", "length of a completion, median", "tokens", _LENGTH,
           _complete("completion_tokens", lambda lengths: float(np.median(lengths)))),
    Metric("length/p90_tokens", "length of a completion, 90th percentile", "tokens", _LENGTH,
           _complete("completion_tokens", lambda lengths: float(np.percentile(lengths, 90)))),
    Metric("length/max_tokens", "length of the longest completion", "tokens", _LENGTH,
           _complete("completion_tokens", max),
           summary=Line("length", lambda n: f"{n:,.0f} at most", joint=", ")),
    Metric("length/truncation_rate", "completions that were cut off at the limit", "fraction",
           ("finish_reason",),
           _complete("finish_reason", lambda reasons: reasons.count("length") / len(reasons)),
           summary=Line("length", lambda rate: f"{percent(rate)} cut off at the limit" if rate else ""),
           report=Column("Cut off", round_percent, 1)),
    Metric("tokens/prompt", "prompts of all rows", "tokens", ("prompt_tokens",), _all("prompt_tokens")),
    Metric("tokens/completion", "generated, of all rows", "tokens", _LENGTH, _all("completion_tokens")),
    Metric("time/prefill_s", "prefill, of all rows", "s", ("prefill_s",), _all("prefill_s", math.fsum)),
    Metric("time/decode_s", "first to last token, of all rows", "s", ("decode_s",),
           _all("decode_s", math.fsum)),
    Metric("time/queued_s", "waiting inside engines, of all rows", "s", ("queued_s",),
           _all("queued_s", math.fsum)),
    Metric("time/decoding_s", "steps of the engines, over the number of workers", "s", (),
           lambda run: run.speed.seconds if run.speed else None),
    Metric("time/engine_s", "steps of the engines", "s", (), lambda run: run.engines.get("step_s")),
    Metric("time/engine_decode_s", "decode steps of the engines", "s", (),
           lambda run: run.engines.get("decode_s")),
    Metric("speed/tokens_per_s", "generated tokens over time/decoding_s", "tokens/s", (),
           lambda run: run.speed.tokens_per_s if run.speed else None,
           summary=Line("speed", lambda rate: f"{rate:,.0f} tokens/s"),
           sweep=Column("tokens/s", lambda rate: f"{rate:,.0f}", 3, ratio="x dense")),
    Metric("speed/engine_decode_tokens_per_s", "generated tokens over time/engine_decode_s", "tokens/s", (),
           _engine_rate("new_tokens")),
    Metric("speed/engine_decode_gb_per_s", "bytes that decode steps read, over their time", "GB/s", (),
           _engine_rate("decode_bytes", 1e9)),
    Metric("speed/engine_decode_of_copy_rate", "decode steps at the device's copy rate, over their time",
           "fraction", (), _engine_rate("decode_floor_s")),
    Metric("kv/attended", "KV read, over steps, layers and KV heads", "tokens", _KV,
           _complete("attended_kv", sum)),
    Metric("kv/available", "KV that dense attention would read", "tokens", _KV,
           _complete("available_kv", sum)),
    Metric("kv/attended_per_token", "kv/attended over generated tokens", "tokens", (*_KV, *_LENGTH),
           lambda run: run.totals.attended / run.totals.tokens if run.totals.tokens else None, twin=True),
    Metric("kv/mean_attended", "KV read per layer, KV head and decode step", "tokens",
           (*_KV, *_LENGTH, "prompt_tokens"), lambda run: run.totals.mean_attended,
           live="mean_attended",
           summary=Line("attention", lambda n: f"{n:,.0f} KV tokens read per head and step")),
    Metric("kv/sparsity", "1 - kv/attended / kv/available", "fraction", _KV,
           lambda run: run.totals.sparsity, live="sparsity",
           summary=Line("attention", lambda sparsity: f"{percent(sparsity)} skipped")),
    Metric("kv/read_rate", "kv/attended over kv/available: reads relative to dense, measured", "fraction",
           _KV,
           lambda run: None if run.totals.sparsity is None else 1 - run.totals.sparsity, twin=True,
           sweep=Column("KV read", percent, 2)),
    Metric("kv/nominal_read_rate",
           "reads relative to dense that the layers' budgets allow at the lengths there were", "fraction",
           _PLAN, _nominal_read_rate,
           sweep=Column("nominal", percent, 2), report=Column("KV read, nominal", round_percent, 0)),
    Metric("plan/sparse_per_dense", "sparse layers for each dense one: the ratio that plan.ratio came to", "",
           ("selector", "error"), _sparse_per_dense),
    Metric("engine/preemptions", "times that chains were put back to make room", "", ("preemptions",),
           _all("preemptions")),
)
# fmt: on

COLUMNS = tuple(dict.fromkeys((*Totals.COLUMNS, *(name for metric in METRICS for name in metric.columns))))
"""What ``summarise`` reads of a table of completions."""
GAUGES = {metric.name: metric.live for metric in METRICS if metric.live} | {
    "rows/total": "done",
    "rows/errors": "errors",
    "live/running": "running",
    "live/queued": "queued",
    "live/workers": "workers_ready",
    "live/tokens_per_s": "tokens_per_s",
}
"""What MLflow is told while the job runs -> field of ``LiveStats``. Metrics of a finished run have their
names from the first row on: the last value is the final one."""
ENGINES = ("prefill_tokens", "preemptions", "waiting", "pages_used", "pages")
"""Counters of the engines that MLflow is told while the job runs: what no metric says."""


def summarise(
    table: pa.Table, speed: Speed | None = None, engines: Mapping[str, float] | None = None
) -> dict[str, Value]:
    """All metrics of completions that are known, under names that MLflow takes.

    Args:
        table: of the results schema; ``COLUMNS`` suffice. Any subset of a run's rows.
        speed: of the job; None: not measured
        engines: counters of the job's engines
    """
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    totals = Totals()
    for values in zip(*(columns[name] for name in Totals.COLUMNS), strict=True):
        totals.add(dict(zip(Totals.COLUMNS, values, strict=True)))
    run = Run(totals, Rows(columns), speed, engines or {})
    found: dict[str, Value | None] = {}
    for metric in METRICS:
        value = metric.of(run)
        if isinstance(value, Mapping):
            found |= {metric.name.format(k=k): member for k, member in value.items()}
        else:
            found[metric.name] = value
    return {name: value for name, value in found.items() if value is not None}


def live_fields(totals: Totals) -> dict[str, Any]:
    """Metrics of a job that runs, by the field of ``LiveStats``. None: not known yet."""
    run = Run(totals)
    return {metric.live: metric.of(run) for metric in METRICS if metric.live}


def live_values(live: Any) -> dict[str, Value]:
    """Metrics that a ``LiveStats`` holds, by name."""
    found = {metric.name: getattr(live, metric.live) for metric in METRICS if metric.live}
    return {name: value for name, value in found.items() if value is not None}


def tracked(values: Values) -> dict[str, Value]:
    """What MLflow is told of the metrics of a finished run: none that another one says."""
    twins = {metric.name for metric in METRICS if metric.twin}
    # Of one sample, what accuracy/avg says.
    twins |= {metric.name.format(k=1) for metric in METRICS if "{k}" in metric.name}
    if not values.get("rows/errors"):
        twins.add("accuracy/avg_without_errors")
    return {name: value for name, value in values.items() if name not in twins}


def known(values: Mapping[str, Any]) -> dict[str, Value]:
    """Without what is no finite number."""
    return {n: v for n, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def family(name: str, values: Values) -> dict[int, Value]:
    """Members of a family that there are, by k, ascending."""
    before, after = name.split("{k}")
    found = {n.removeprefix(before).removesuffix(after): value for n, value in values.items()}
    return {int(k): found[k] for k in sorted((k for k in found if k.isdigit()), key=int)}


def summary_lines(values: Values) -> dict[str, str]:
    """What a summary says, by label, in the order of the table; of families all but k = 1."""
    lines: dict[str, str] = {}

    def say(line: Line, label: str, text: str) -> None:
        if text:
            lines[label] = f"{lines[label]}{line.joint}{text}" if label in lines else text

    for metric in METRICS:
        if metric.summary and "{k}" in metric.name:
            for k, value in family(metric.name, values).items():
                if k > 1:
                    say(metric.summary, metric.summary.label.format(k=k), metric.summary.words(value))
        elif metric.summary and metric.name in values:
            say(metric.summary, metric.summary.label, metric.said(metric.summary.words, values))
    return lines


def columns_of(table: str) -> list[tuple[Metric, Column]]:
    """Of the table of a ``sweep`` or ``report``, from the left."""
    found = [(metric, column) for metric in METRICS if (column := getattr(metric, table))]
    return sorted(found, key=lambda pair: pair[1].place)
