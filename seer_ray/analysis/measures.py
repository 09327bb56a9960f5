"""How the metrics of a run (``metrics.py``) are computed. None: nothing is known about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from seer_ray.analysis.reads import reads, tokens_read
from seer_ray.analysis.rows import Run, Totals, majority, pass_at_k
from seer_ray.analysis.sequential import Saved

Value = float | int
PLAN = ("selector", "prompt_tokens", "completion_tokens", "error")
"""Of a row, that the nominal reads are computed from."""


def graded(of: Callable[[Totals], float | None]) -> Callable[[Run], float | None]:
    """Where a row is graded."""
    return lambda run: of(run.totals) if run.totals.graded else None


def of_all(column: str, of: Callable[[list[Any]], Value] = sum) -> Callable[[Run], Value]:
    """Of all rows."""
    return lambda run: of(run.rows.all[column])


def of_complete(column: str, of: Callable[[list[Any]], Value]) -> Callable[[Run], Value | None]:
    """Of rows that have a completion, where there is one."""
    return lambda run: of(run.rows.complete[column]) if run.rows.complete[column] else None


def engine_rate(counter: str, scale: float = 1.0) -> Callable[[Run], float | None]:
    """Of a counter, a second of decode steps."""

    def found(run: Run) -> float | None:
        seconds = run.engines.get("decode_s", 0.0)
        return run.engines.get(counter, 0.0) / seconds / scale if seconds > 0 else None

    return found


def captured_share(run: Run) -> float | None:
    """Of the engines' decode steps."""
    return share_captured(run.engines)


def share_captured(engines: Mapping[str, float]) -> float | None:
    """Of decode steps, those that were captured; None: there were none, or nobody counted."""
    captured, eager = (engines.get(f"{kind}_steps", 0) for kind in ("captured", "eager"))
    return captured / (captured + eager) if captured + eager else None


def prefill_rate(run: Run) -> float | None:
    """Prompt tokens a second of their passes."""
    seconds = run.engines.get("prefill_s", 0.0)
    return run.engines.get("prefill_tokens", 0.0) / seconds if seconds > 0 else None


def prefill_sparsity(run: Run) -> float | None:
    """None: all prompts were read densely."""
    available = run.engines.get("prefill_available", 0)
    return 1 - run.engines.get("prefill_attended", 0) / available if available else None


def no_answer(run: Run) -> float | None:
    answers = run.rows.complete["extracted_answer"]
    return answers.count(None) / len(answers) if run.totals.graded else None


def mean_known(column: str) -> Callable[[Run], float | None]:
    """Mean over the completions of which it is known, where there are any."""

    def found(run: Run) -> float | None:
        values = [value for value in run.rows.complete[column] if value is not None]
        return sum(values) / len(values) if values else None

    return found


def of_saved(of: Callable[[Saved], int]) -> Callable[[Run], int | None]:
    """Of a run whose problems are sampled until they are decided."""
    return lambda run: of(run.saved) if run.saved is not None else None


def in_form(run: Run) -> float | None:
    return mean_known("in_form")(run)


def strict(run: Run) -> float | None:
    """As accuracy counts, where the prompt of every graded row asks for a form that is known."""
    columns = run.rows.all
    rows = list(zip(columns["correct"], columns["in_form"], columns["error"], strict=True))
    counted = [(right, form) for right, form, error in rows if error is None and right is not None]
    if not counted or any(form is None for _, form in counted):
        return None
    return sum(right and form for right, form in counted) / (len(counted) + run.totals.errors)


def chances(run: Run) -> dict[int, list[float]]:
    """pass@k of each problem that has k graded samples, by k: powers of two and all."""
    first = run.totals.first
    tallies = [
        [s.counted for s in samples if s.counted is not None and (first is None or s.number < first)]
        for samples in run.rows.problems.values()
    ]
    counts = [(len(tally), sum(tally)) for tally in tallies if tally]
    if not run.totals.graded:
        return {}
    most = max(n for n, _ in counts)
    ks = sorted({most, *(2**i for i in range(most.bit_length()))})
    return {k: [pass_at_k(n, c, k) for n, c in counts if n >= k] for k in ks}


def pass_at(run: Run) -> dict[int, Value]:
    return {k: math.fsum(chances) / len(chances) for k, chances in chances(run).items()}


def pass_problems(run: Run) -> dict[int, Value]:
    problems = len(run.rows.problems)
    return {k: len(chances) for k, chances in chances(run).items() if len(chances) < problems}


def majority_right(run: Run) -> dict[int, Value]:
    problems = run.rows.problems.values()
    verdicts = [verdict for samples in problems if (verdict := majority(samples)) is not None]
    if not run.totals.graded or not verdicts:
        return {}
    return {max(map(len, problems)): sum(verdicts) / len(verdicts)}


def nominal_read_rate(run: Run) -> float | None:
    columns = run.rows.complete
    nominal = available = 0.0
    for plan, *tokens in zip(*(columns[name] for name in PLAN[:3]), strict=True):
        found = reads(plan)
        if found is None:
            return None
        nominal += math.fsum(kind.layers * tokens_read(kind.budget, *tokens) for kind in found)
        available += sum(kind.layers for kind in found) * tokens_read(None, *tokens)
    return nominal / available if available else None


def sparse_per_dense(run: Run) -> float | None:
    plans = set(run.rows.complete["selector"])
    found = (reads(plans.pop()) if len(plans) == 1 else None) or ()
    dense = sum(kind.layers for kind in found if kind.budget is None)
    return sum(kind.layers for kind in found if kind.budget is not None) / dense if dense else None
