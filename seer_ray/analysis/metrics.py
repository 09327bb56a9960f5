"""The one table of metrics of a run: what each is, how it is computed, and where it is shown.

The live monitor, ``metrics.json``, MLflow, the terminal, the table of a sweep and the report read it.
A metric about which nothing is known (accuracy without a grader, spread of one problem) is absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from seer_ray.analysis.columns import exact_sum
from seer_ray.analysis.measures import (
    PLAN,
    Value,
    accepted_at,
    captured_share,
    draft_reads,
    draft_time,
    engine_rate,
    graded,
    in_form,
    majority_right,
    mean_known,
    no_answer,
    nominal_read_rate,
    of_all,
    of_complete,
    of_saved,
    pass_at,
    pass_problems,
    prefill_rate,
    prefill_sparsity,
    sparse_per_dense,
    strict,
    tokens_a_pass,
    truncated,
)
from seer_ray.analysis.metric import Column, Line, Metric, Values
from seer_ray.analysis.rows import Rows, Run, Totals
from seer_ray.analysis.sequential import Saved
from seer_ray.analysis.words import count, in_brief, percent, round_percent, skipped, with_interval
from seer_ray.results.speed import Speed

_GRADE = ("problem_id", "correct", "error")
_ANSWERS = (*_GRADE, "sample", "extracted_answer")
_LENGTH = ("completion_tokens",)
_KV = ("attended_kv", "available_kv")

# fmt: off
METRICS = (
    Metric("accuracy/avg", "right samples (avg@k); errors count as wrong", "fraction", _GRADE,
           graded(lambda totals: totals.accuracy.mean), interval=("accuracy/low", "accuracy/high"),
           live="accuracy",
           summary=Line("accuracy", with_interval), sweep=Column("right %", in_brief, 1)),
    Metric("accuracy/stderr", "standard error of accuracy/avg, clustered by problem", "fraction", _GRADE,
           graded(lambda totals: totals.accuracy.stderr), live="accuracy_se"),
    Metric("accuracy/low", "lower end of the 95 % interval of accuracy/avg", "fraction", _GRADE,
           graded(lambda totals: totals.accuracy.interval[0]), live="accuracy_low"),
    Metric("accuracy/high", "upper end of the 95 % interval of accuracy/avg", "fraction", _GRADE,
           graded(lambda totals: totals.accuracy.interval[1]), live="accuracy_high"),
    Metric("accuracy/avg_without_errors", "right among graded samples", "fraction", _GRADE,
           graded(lambda totals: totals.accuracy.total / totals.graded)),
    Metric("accuracy/pass_at_{k}", "chance that one of k samples is right, over problems that have k",
           "fraction", _ANSWERS, pass_at, summary=Line("pass@{k}", percent)),
    Metric("accuracy/pass_at_{k}_problems", "problems that have k graded samples, where not all have",
           "problems", _ANSWERS, pass_problems),
    Metric("accuracy/majority_at_{k}", "problems whose most frequent answer is right", "fraction", _ANSWERS,
           majority_right, summary=Line("majority@{k}", percent)),
    Metric("accuracy/score", "score of a completion, by graders that give parts of a point, mean", "fraction",
           ("score", "error"), mean_known("score"), summary=Line("score", percent),
           report=Column("Score", round_percent, 3)),
    Metric("rows/total", "completions and errors", "rows", ("error",), of_all("error", len)),
    Metric("rows/problems", "problems with a row", "problems", _ANSWERS,
           lambda run: len(run.rows.samples_of_problems())),
    Metric("rows/errors", "rows with an error in place of a completion", "rows", ("error",),
           lambda run: run.totals.errors),
    Metric("rows/ungraded", "completions without a grade", "rows", ("correct", "error"),
           lambda run: int(np.isnan(run.rows.complete("correct")).sum()),
           summary=Line("ungraded", lambda n: f"{count(n, 'row')}, not counted above" if n else "")),
    Metric("rows/retried", "rows that more than one worker was given", "rows", ("attempts",),
           of_all("attempts", lambda attempts: int((attempts > 1).sum()))),
    Metric("sequential/decided", "problems decided before all samples were there", "problems", (),
           of_saved(lambda saved: saved.problems),
           summary=Line("decided", lambda n: f"{count(n, 'problem')} before all samples were there")),
    Metric("sequential/saved_samples", "samples not taken, as their problem was decided", "rows", (),
           of_saved(lambda saved: saved.samples),
           summary=Line("decided", lambda n: f"{count(n, 'sample')} saved" if n else "")),
    Metric("sequential/saved_tokens", "of those, had they been as long as the others of their problem",
           "tokens", (), of_saved(lambda saved: saved.tokens),
           summary=Line("decided", lambda n: f"about {count(n, 'token')}" if n else "")),
    Metric("accuracy/no_answer_rate", "completions in which no answer was found", "fraction",
           ("extracted_answer", "error"), no_answer,
           summary=Line("no answer", lambda rate: f"{percent(rate)} of the completions"),
           report=Column("No answer", round_percent, 2)),
    Metric("form/rate", "completions with their answer in the form that the prompt asks for", "fraction",
           ("in_form", "error"), in_form,
           summary=Line("asked form", lambda rate: f"{percent(rate)} of the completions have it")),
    Metric("accuracy/strict", "right samples with their answer in the form that the prompt asks for",
           "fraction", (*_GRADE, "in_form"), strict,
           summary=Line("asked form", lambda strict: f"{percent(strict)} right counting only those")),
    Metric("length/mean_tokens", "length of a completion, mean", "tokens", _LENGTH,
           of_complete("completion_tokens", lambda lengths: exact_sum(lengths) / len(lengths)),
           summary=Line("length", lambda n: f"{n:,.0f} tokens on average"),
           sweep=Column("length", lambda n: f"{n:,.0f}", 4)),
    Metric("length/median_tokens", "length of a completion, median", "tokens", _LENGTH,
           of_complete("completion_tokens", lambda lengths: float(np.median(lengths)))),
    Metric("length/p90_tokens", "length of a completion, 90th percentile", "tokens", _LENGTH,
           of_complete("completion_tokens", lambda lengths: float(np.percentile(lengths, 90)))),
    Metric("length/max_tokens", "length of the longest completion", "tokens", _LENGTH,
           of_complete("completion_tokens", np.max),
           summary=Line("length", lambda n: f"{n:,.0f} at most", joint=", ")),
    Metric("length/truncation_rate", "completions that were cut off at the limit", "fraction",
           ("finish_reason", "error"), truncated,
           summary=Line("length", lambda rate: f"{percent(rate)} cut off at the limit" if rate else ""),
           report=Column("Cut off", round_percent, 1)),
    Metric("thinking/mean_tokens", "reasoning of a completion without its marks, mean", "tokens",
           ("thinking_tokens", "error"), mean_known("thinking_tokens"),
           summary=Line("thinking", lambda n: f"{n:,.0f} tokens on average")),
    Metric("thinking/forced_rate", "completions whose thinking was ended at sampling.thinking_budget",
           "fraction", ("thinking_forced", "error"), mean_known("thinking_forced"),
           summary=Line("thinking", lambda rate: f"{percent(rate)} ended at the budget")),
    Metric("tokens/prompt", "prompts of all rows", "tokens", ("prompt_tokens",), of_all("prompt_tokens")),
    Metric("tokens/completion", "generated, of all rows", "tokens", _LENGTH, of_all("completion_tokens")),
    Metric("time/prefill_s", "prefill, of all rows", "s", ("prefill_s",), of_all("prefill_s", math.fsum)),
    Metric("time/first_token_s", "from a request's submission to an engine to its first token, mean", "s",
           ("first_token_s", "error"), mean_known("first_token_s"),
           summary=Line("prompts", lambda s: f"{s:,.2f} s to the first token on average")),
    Metric("speed/prefill_tokens_per_s", "tokens of prompts computed, over the time of that", "tokens/s", (),
           prefill_rate),
    Metric("time/decode_s", "first to last token, of all rows", "s", ("decode_s",),
           of_all("decode_s", math.fsum)),
    Metric("time/queued_s", "waiting inside engines, of all rows", "s", ("queued_s",),
           of_all("queued_s", math.fsum)),
    Metric("time/decoding_s", "steps of the engines, over the number of workers", "s", (),
           lambda run: run.speed.seconds if run.speed else None),
    Metric("time/engine_s", "steps of the engines", "s", (), lambda run: run.engines.get("step_s")),
    Metric("time/engine_decode_s", "decode steps of the engines", "s", (),
           lambda run: run.engines.get("decode_s")),
    Metric("speed/tokens_per_s", "generated tokens over time/decoding_s", "tokens/s", (),
           lambda run: run.speed.tokens_per_s if run.speed else None,
           summary=Line("speed", lambda rate: f"{rate:,.0f} tokens/s"),
           sweep=Column("tokens/s", lambda rate: f"{rate:,.0f}", 3)),
    Metric("speed/engine_decode_tokens_per_s", "generated tokens over time/engine_decode_s", "tokens/s", (),
           engine_rate("new_tokens")),
    Metric("speed/engine_decode_gb_per_s", "bytes that decode steps read, over their time", "GB/s", (),
           engine_rate("decode_bytes", 1e9)),
    Metric("speed/engine_decode_of_copy_rate", "decode steps at the device's copy rate, over their time",
           "fraction", (), engine_rate("decode_floor_s")),
    Metric("speed/engine_captured_share", "decode steps that ran captured, not operation by operation",
           "fraction", (), captured_share,
           summary=Line("speed", lambda share: "" if share == 1 else f"{percent(share)} of steps captured")),
    Metric("speculation/acceptance", "draft tokens that became tokens", "fraction", (),
           lambda run: run.totals.acceptance, live="acceptance",
           summary=Line("drafts", lambda share: f"{percent(share)} accepted"),
           sweep=Column("accepted", percent, 5, True),
           report=Column("Drafts accepted", round_percent, 4, True)),
    Metric("speculation/acceptance_at_{k}", "the same at place k behind the last token that was decided",
           "fraction", (), accepted_at),
    Metric("speculation/tokens_per_pass", "tokens for each dense pass, of chains that were drafted", "tokens",
           (), tokens_a_pass,
           summary=Line("drafts", lambda n: f"{n:.2f} tokens for each dense pass")),
    Metric("speculation/draft_reads", "kv/attended that drafts read; the rest is what verified them",
           "fraction", (), draft_reads,
           summary=Line("drafts", lambda share: f"{percent(share)} of the KV read by drafts")),
    Metric("speculation/draft_time", "of time/engine_decode_s, that of draft steps", "fraction", (),
           draft_time),
    Metric("kv/attended", "KV read, over steps, layers and KV heads; by drafts and what verifies them, too",
           "tokens", _KV,
           of_complete("attended_kv", exact_sum)),
    Metric("kv/available", "KV that dense attention would read", "tokens", _KV,
           of_complete("available_kv", exact_sum)),
    Metric("kv/attended_per_token", "kv/attended over generated tokens", "tokens", (*_KV, *_LENGTH),
           lambda run: run.totals.attended / run.totals.tokens if run.totals.tokens else None, twin=True),
    Metric("kv/mean_attended", "KV read per layer, KV head and generated token", "tokens",
           (*_KV, *_LENGTH, "prompt_tokens"), lambda run: run.totals.mean_attended,
           live="mean_attended",
           summary=Line("attention", lambda n: f"{n:,.0f} KV tokens read per head and token")),
    Metric("kv/sparsity", "1 - kv/attended / kv/available; below 0: drafts had more read", "fraction", _KV,
           lambda run: run.totals.sparsity, live="sparsity",
           summary=Line("attention", skipped)),
    Metric("kv/read_rate", "kv/attended over kv/available: reads relative to dense, measured", "fraction",
           _KV,
           lambda run: None if run.totals.sparsity is None else 1 - run.totals.sparsity, twin=True,
           sweep=Column("KV read", percent, 2)),
    Metric("kv/nominal_read_rate",
           "reads relative to dense that the layers' budgets allow at the lengths there were", "fraction",
           PLAN, nominal_read_rate,
           sweep=Column("nominal", percent, 2), report=Column("KV read, nominal", round_percent, 0)),
    Metric("prefill/sparsity",
           "pairs of a token and a key that prompts left out, in layers that read prompts sparsely",
           "fraction", (), prefill_sparsity,
           summary=Line("prompts", lambda sparsity: f"{percent(sparsity)} of their attention skipped")),
    Metric("plan/sparse_per_dense", "sparse layers for each dense one: the ratio that plan.ratio came to", "",
           ("selector", "error"), sparse_per_dense),
    Metric("engine/preemptions", "times that chains were put back to make room", "", ("preemptions",),
           of_all("preemptions")),
)
# fmt: on

KEPT = tuple(dict.fromkeys(name for metric in METRICS for name in metric.columns))
"""What is kept of each row."""
COLUMNS = tuple(dict.fromkeys((*Totals.COLUMNS, *KEPT)))
"""What ``summarise`` reads of a table of completions."""
GAUGES = {metric.name: metric.live for metric in METRICS if metric.live} | {
    "rows/total": "done",
    "rows/errors": "errors",
    "live/running": "running",
    "live/queued": "queued",
    "live/to_grade": "to_grade",
    "live/workers": "workers_ready",
    "live/tokens_per_s": "tokens_per_s",
}
"""What MLflow is told while the job runs -> field of ``LiveStats``. Metrics of a finished run have their
names from the first row on: the last value is the final one."""
ENGINES = ("prefill_tokens", "preemptions", "captured_steps", "eager_steps", "waiting", "pages_used", "pages")
"""Counters of the engines that MLflow is told while the job runs: what no metric says."""


def summarise(
    batches: Iterable[pa.RecordBatch],
    speed: Speed | None = None,
    engines: Mapping[str, float] | None = None,
    first: int | None = None,
    saved: Saved | None = None,
) -> dict[str, Value]:
    """All metrics of completions that are known, under names that MLflow takes.

    Args:
        batches: of the results schema; ``COLUMNS`` suffice. Any subset of a run's rows.
        speed: of the job; None: not measured
        engines: counters of the job's engines
        first: samples of a problem that count for accuracy, see ``Totals``
        saved: samples that were not taken; None: all were to be
    """
    totals, rows = Totals(first), Rows(KEPT)
    for batch in batches:
        totals.add(batch)
        rows.add(batch)
    run = Run(totals, rows, speed, engines or {}, saved)
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
