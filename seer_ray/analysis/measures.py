"""How the metrics of a run (``metrics.py``) are computed. None: nothing is known about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from seer_ray.analysis.columns import Array, exact_sum
from seer_ray.analysis.reads import reads, tokens_read
from seer_ray.analysis.rows import Run, Totals, majority, pass_at_k
from seer_ray.analysis.sequential import Saved

Value = float | int
PLAN = ("selector", "prompt_tokens", "completion_tokens", "error")
"""Of a row, that the nominal reads are computed from."""


def graded(of: Callable[[Totals], float | None]) -> Callable[[Run], float | None]:
    """Where a row is graded."""
    return lambda run: of(run.totals) if run.totals.graded else None


def of_all(column: str, of: Callable[[Array], Value] = exact_sum) -> Callable[[Run], Value]:
    """Of all rows."""
    return lambda run: plain(of(run.rows.all[column]))


def of_complete(column: str, of: Callable[[Array], Value]) -> Callable[[Run], Value | None]:
    """Of rows that have a completion, where there is one."""

    def found(run: Run) -> Value | None:
        values = run.rows.complete(column)
        return plain(of(values)) if len(values) else None

    return found


def plain(value: Value) -> Value:
    """Without NumPy's types."""
    return value.item() if isinstance(value, np.generic) else value


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


def accepted_at(run: Run) -> dict[int, Value]:
    """Of the draft tokens at each place, from 1 on."""
    drafted, accepted = run.totals.drafted.tolist(), run.totals.accepted.tolist()
    return {
        place: own / all for place, (own, all) in enumerate(zip(accepted, drafted, strict=True), 1) if all
    }


def tokens_a_pass(run: Run) -> float | None:
    """Of chains that were drafted: a pass brings the token that it decides itself, and those it accepts."""
    return run.totals.drafted_tokens / run.totals.passes if run.totals.passes else None


def draft_reads(run: Run) -> float | None:
    """Of all that was read, that by drafts; None: nothing was drafted."""
    known = run.totals.drafted.any() and run.totals.attended
    return run.totals.drafted_kv / run.totals.attended if known else None


def draft_time(run: Run) -> float | None:
    """Of decode steps' time, that of draft steps."""
    seconds = run.engines.get("decode_s", 0.0)
    drafted = run.engines.get("draft_s")
    return drafted / seconds if drafted is not None and seconds > 0 else None


def no_answer(run: Run) -> float | None:
    return float(np.mean(run.rows.complete("extracted_answer") < 0)) if run.totals.graded else None


def truncated(run: Run) -> float | None:
    reasons, length = run.rows.complete("finish_reason"), run.rows.all.names["finish_reason"].number("length")
    return float(np.mean(reasons == length)) if len(reasons) else None


def mean_known(column: str) -> Callable[[Run], float | None]:
    """Mean over the completions of which it is known, where there are any."""

    def found(run: Run) -> float | None:
        values = run.rows.complete(column)
        values = values[~np.isnan(values)]
        return math.fsum(values) / len(values) if len(values) else None

    return found


def of_saved(of: Callable[[Saved], int]) -> Callable[[Run], int | None]:
    """Of a run whose problems are sampled until they are decided."""
    return lambda run: of(run.saved) if run.saved is not None else None


def in_form(run: Run) -> float | None:
    return mean_known("in_form")(run)


def strict(run: Run) -> float | None:
    """As accuracy counts, where the prompt of every graded row asks for a form that is known."""
    right, form = run.rows.complete("correct"), run.rows.complete("in_form")
    right, form = right[~np.isnan(right)], form[~np.isnan(right)]
    if not len(right) or np.isnan(form).any():
        return None
    return int((right * form).sum()) / (len(right) + run.totals.errors)


def chances(run: Run) -> dict[int, Array]:
    """pass@k of each problem that has k graded samples, by k: powers of two and all."""
    if not run.totals.graded:
        return {}
    value, problem = run.rows.counted(run.totals.first), run.rows.all["problem_id"]
    known = ~np.isnan(value)
    graded = np.bincount(problem[known])
    right = np.bincount(problem[known], value[known]).astype(int)
    tallies, of = np.unique(np.stack([graded, right])[:, graded > 0], axis=1, return_inverse=True)
    most = int(graded.max())
    ks = sorted({most, *(2**i for i in range(most.bit_length()))})
    found = {}
    for k in ks:
        each = np.array([pass_at_k(n, c, k) if n >= k else math.nan for n, c in tallies.T.tolist()])[of]
        found[k] = each[~np.isnan(each)]
    return found


def pass_at(run: Run) -> dict[int, Value]:
    return {k: math.fsum(chances) / len(chances) for k, chances in chances(run).items()}


def pass_problems(run: Run) -> dict[int, Value]:
    problems = len(run.rows.samples_of_problems())
    return {k: len(chances) for k, chances in chances(run).items() if len(chances) < problems}


def majority_right(run: Run) -> dict[int, Value]:
    if not run.totals.graded:
        return {}
    verdicts = [verdict for samples in run.rows.problems() if (verdict := majority(samples)) is not None]
    most = int(run.rows.samples_of_problems().max())
    return {most: sum(verdicts) / len(verdicts)} if verdicts else {}


def nominal_read_rate(run: Run) -> float | None:
    plans, prompts, lengths = (run.rows.complete(name) for name in PLAN[:3])
    nominal = available = 0
    for plan, text in _plans(run).items():
        if (found := reads(text)) is None:
            return None
        tokens = prompts[plans == plan].astype(np.int64), lengths[plans == plan].astype(np.int64)
        nominal += sum(
            kind.layers * exact_sum(tokens_read(kind.budget, *tokens, kind.fraction)) for kind in found
        )
        available += sum(kind.layers for kind in found) * exact_sum(tokens_read(None, *tokens))
    return nominal / available if available else None


def sparse_per_dense(run: Run) -> float | None:
    plans = list(_plans(run).values())
    found = (reads(plans[0]) if len(plans) == 1 else None) or ()
    dense = sum(kind.layers for kind in found if kind.budget is None)
    return sum(kind.layers for kind in found if kind.budget is not None) / dense if dense else None


def _plans(run: Run) -> dict[int, str]:
    """Of the completions, by number."""
    texts = run.rows.all.names["selector"].texts
    return {number: texts[number] for number in np.unique(run.rows.complete("selector")).tolist()}
