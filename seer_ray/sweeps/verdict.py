"""What the points of a sweep come to together: a recommendation, and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from seer_ray.analysis.comparison import Comparison, compare
from seer_ray.analysis.recommend import MARGIN
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SweepConfig
from seer_ray.report.html import write_report
from seer_ray.report.written import FILE as REPORT
from seer_ray.results.sweep import SweepFolder

FILE = "recommendation.json"


@dataclass
class Verdict:
    recommendation: str | None = None
    """In a sentence or two, and in the line below what it rests on; so for each baseline."""
    report: str | None = None
    """Where it is."""
    artifacts: list[str] = field(default_factory=list)
    """Files in the sweep folder."""
    next_commands: list[str] = field(default_factory=list)
    comparison: Comparison | None = None
    """None: there is nothing to compare."""


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
        comparison = compare([uri], racing.margin if racing.enabled else MARGIN)
    except (ConfigError, ValueError) as error:
        note(f"no recommendation: {error}")
        return found
    found.comparison = comparison
    if judged := comparison.recommendations:
        folder.write_json(FILE, [dataclasses.asdict(one) for one in judged])
        found.artifacts.append(FILE)
        found.recommendation = "\n".join(f"{one.sentence}\nRests on {one.rests_on}." for one in judged)
    if config.results.report:
        found.artifacts += write_report(comparison, str(config.name), folder.store, note)
        found.report = folder.store.locate(REPORT) if REPORT in found.artifacts else None
    return found
