"""Runs that are there already, against one of them."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.analysis.recommend import CONFIDENCE, MARGIN, Recommendation, recommend
from seer_ray.analysis.runs import Contender, baseline_of, expand, load
from seer_ray.analysis.standing import check_claims
from seer_ray.config.errors import ConfigError, did_you_mean


def main(
    uris: Sequence[str], baseline: str | None = None, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> Recommendation:
    """Compares runs and the points of sweeps.

    Args:
        uris: of run and sweep folders
        baseline: name or folder of what the others are compared with; None: the dense one, where there is one
            and not more, else the first given
        margin: accuracy that may be lost, a share above 0 and below 1
        confidence: in (0, 1)

    Raises:
        ConfigError: nothing to compare, or not comparable.
    """
    check_claims(margin, confidence)
    runs = load(uris)
    if len(runs) < 2:
        raise ConfigError(f"{', '.join(uris)}: one run alone; name two or more, or a sweep")
    chosen = _named(runs, baseline) if baseline else baseline_of(runs) or _first(runs, uris)
    others = [run for run in runs if run is not chosen]
    try:
        return recommend(chosen, others, margin, confidence)
    except ValueError as error:
        raise ConfigError(f"cannot be compared: {error}") from None


def _first(runs: Sequence[Contender], uris: Sequence[str]) -> Contender:
    place = expand(uris)[0][0]
    return next(run for run in runs if run.folder == place)


def _named(runs: Sequence[Contender], name: str) -> Contender:
    """By its short name, its folder, or the last part of that."""
    found = [
        run
        for run in runs
        if name.rstrip("/") in (run.name, run.folder.rstrip("/"), run.folder.rstrip("/").rpartition("/")[2])
    ]
    if len(found) != 1:
        names = [run.name for run in runs]
        raise ConfigError(f"--baseline {name}: must be one of {', '.join(names)}{did_you_mean(name, names)}")
    return found[0]
