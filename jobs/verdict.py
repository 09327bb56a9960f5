"""What the points of a sweep come to together: a recommendation, and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from seer_ray.analysis import runs
from seer_ray.analysis.racing import Decision
from seer_ray.analysis.racing import Verdict as Race
from seer_ray.analysis.recommend import MARGIN, Recommendation, recommend
from seer_ray.analysis.runs import Contender, baseline_of
from seer_ray.config import ConfigError, SweepConfig
from seer_ray.results.sweep import SweepFolder

FILE = "recommendation.json"


@dataclass
class Verdict:
    recommendation: str | None = None
    """In a sentence or two, with what it rests on."""
    report: str | None = None
    """Where it is."""
    artifacts: list[str] = field(default_factory=list)
    """Files in the sweep folder."""
    next_commands: list[str] = field(default_factory=list)


def verdict(uri: str, folder: SweepFolder, config: SweepConfig, note: Callable[[str], None]) -> Verdict:
    """Reads the committed rows of all points and writes what they come to into the sweep folder.

    Args:
        uri: Of the sweep folder.
        folder: The same, open to write.
        config: Of the sweep.
        note: Told why there is no recommendation, where there is none.
    """
    found = Verdict(next_commands=[f"seer-ray compare {uri}"])
    try:
        racing = config.sweep.racing
        margin = racing.margin if racing.enabled else MARGIN
        judged = _recommend(folder, [run for run in runs.load([uri]) if run.outcomes.present.any()], margin)
    except (ConfigError, ValueError) as error:
        note(f"no recommendation: {error}")
        return found
    if judged:
        folder.write_json(FILE, [dataclasses.asdict(one) for one in judged])
        found.artifacts.append(FILE)
        found.recommendation = " ".join(f"{one.sentence} {one.rests_on}" for one in judged)
    return found


def _recommend(folder: SweepFolder, settings: Sequence[Contender], margin: float) -> list[Recommendation]:
    """One for each baseline that something can be compared with."""
    decided = {entry["slug"]: entry.get("decision") for entry in folder.points}
    rivals: dict[str, list[Contender]] = {}
    baselines: dict[str, Contender] = {}
    for setting in settings:
        baseline = baseline_of(settings, setting)
        if baseline is not None and not setting.dense:
            baselines[baseline.name] = baseline
            rivals.setdefault(baseline.name, []).append(setting)
    return [
        recommend(
            baselines[name],
            others,
            margin,
            decided={
                other.name: Decision(**{**said, "verdict": Race(said["verdict"])})
                for other in others
                if (said := decided.get(other.folder.rstrip("/").rpartition("/")[2]))
            },
        )
        for name, others in rivals.items()
    ]
