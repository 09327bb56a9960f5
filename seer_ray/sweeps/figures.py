"""What MLflow shows of a sweep as a whole: its best points, and accuracy as a curve over the budget."""

from __future__ import annotations

import re

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.analysis.words import percent, round_percent


def figures(comparison: Comparison) -> dict[str, float | None]:
    """Accuracy of the dense, the best sparse and the recommended setting, and what the last one reads; those
    that there are."""
    known = [run for run in comparison.runs if run.accuracy]
    dense = [run for run in known if run.setting.dense]
    sparse = [run for run in known if not run.setting.dense]
    found = {
        "accuracy/dense": _accuracy(dense[0]) if len(dense) == 1 else None,
        "accuracy/best": max(map(_accuracy, sparse), default=None),
    }
    if (chosen := recommended(comparison)) is not None:
        found |= {
            "accuracy/recommended": _accuracy(chosen) if chosen.accuracy else None,
            "kv/recommended_share": chosen.attended_share,
            "sweep/recommended_budget": chosen.setting.budget,
        }
    return found


def curves(comparison: Comparison) -> dict[int, dict[str, float | None]]:
    """Budget -> accuracy by what else the settings are: the step of such a metric is its budget in tokens."""
    found: dict[int, dict[str, float | None]] = {}
    for run in comparison.runs:
        if run.accuracy and run.setting.budget is not None:
            name = re.sub(r"[^\w\-./ :]", "_", " ".join(_family(run)))
            found.setdefault(run.setting.budget, {})[f"accuracy/by_budget/{name}"] = _accuracy(run)
    return dict(sorted(found.items()))


def lines(comparison: Comparison) -> dict[str, str]:
    """The same for the description, by label."""
    said = {
        run.name: f"{percent(_accuracy(run))} right"
        + (f", {round_percent(run.attended_share)} of the KV read" if run.attended_share is not None else "")
        for run in comparison.runs
        if run.accuracy
    }
    sentences = [one.sentence for one in comparison.recommendations]
    return said | ({"recommendation": " ".join(sentences)} if sentences else {})


def recommended(comparison: Comparison) -> ComparedRun | None:
    """The one setting to take; None: there is none, or one for each of several baselines."""
    names = {one.choice for one in comparison.recommendations if one.choice}
    return next((run for run in comparison.runs if names == {run.name}), None)


def _accuracy(run: ComparedRun) -> float:
    assert run.accuracy is not None
    return run.accuracy.value


def _family(run: ComparedRun) -> list[str]:
    """A setting's name without its budget."""
    return [word for word in run.name.split() if word != f"{run.setting.budget:,}"]
