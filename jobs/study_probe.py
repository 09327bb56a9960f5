"""What a pretrained model relies on: layers relaxed alone and in company, and which stay dense."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from seer_ray.config.study import PLANNED, StudyProbeConfig
from seer_ray.driver.frame import Frame
from seer_ray.results.job import JobFolder
from seer_ray.results.tables import write_table
from seer_ray.status.live import MeasureLive, Reporter
from seer_ray.study import probe, prober
from seer_ray.study.frame import Kind, StudyPlan, StudySummary, plan_study, studied
from seer_ray.study.tables import (
    REGIME,
    TEXT,
    attention_table,
    choice_table,
    cooperation_table,
    profile_table,
    set_table,
)


@dataclass
class ProbeSummary(StudySummary):
    """What a probe came to. Losses in nats a token."""

    model: str = ""
    regime: str = REGIME
    layers: list[int] = field(default_factory=list)
    """That were relaxed."""
    cheap: str = ""
    """What layers do in the choices."""
    attention: list[dict[str, Any]] = field(default_factory=list)
    """Of these and the following see ``study.tables``."""
    profile: list[dict[str, Any]] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)
    cooperation: list[dict[str, Any]] = field(default_factory=list)
    greedy: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)


def main(
    config: StudyProbeConfig, reporter: Reporter[MeasureLive, ProbeSummary] | None = None
) -> ProbeSummary:
    """Runs the study to its end; see ``seer_ray.study.frame.studied``."""
    return studied(config, KIND, reporter)


def plan(config: StudyProbeConfig) -> StudyPlan:
    """What the job would do; reads no document and no weights."""
    scope = probe.scope_of(config)
    about = [
        f"relaxations: {', '.join(scope.relaxations)}",
        f"{len(scope.probed)} layers alone, {len(scope.sets)} sets; {scope.kept or 'none'} to stay dense",
    ]
    return plan_study(config, KIND, about)


def _summarise(
    frame: Frame[StudyProbeConfig, JobFolder], found: probe.Found, facts: dict[str, Any]
) -> tuple[ProbeSummary, dict[str, float]]:
    config, sets = frame.config, set_table(found)
    summary = ProbeSummary(
        **facts,
        model=config.model.name,
        layers=found.scope.probed,
        cheap=config.choice.cheap if found.scope.kept else "",
        attention=attention_table(found),
        profile=profile_table(found),
        sets=sets,
        cooperation=cooperation_table(sets),
        greedy=found.steps,
        choices=choice_table(found) if found.compared else [],
    )
    for name in ("attention", "profile", "sets", "cooperation", "choices"):
        summary.files += write_table(frame.folder.store, name, getattr(summary, name))
    _write_plan(frame, found, summary)
    metrics = {
        f"delta/{row['relaxation']}/{row['set']}": row["delta"]
        for row in sets
        if row["source"] == TEXT and not row["drawn"]
    }
    metrics |= {f"index/{row['relaxation']}/{row['set']}": row["index"] for row in summary.cooperation}
    metrics |= {
        f"delta/choice/{row['choice']}": row["delta"] for row in summary.choices if row["source"] == TEXT
    }
    for row in summary.profile:
        if row["source"] == TEXT:
            frame.tracker.log({f"by_layer/delta/{row['relaxation']}": row["delta"]}, step=row["layer"])
    return summary, {re.sub(r"[^\w./-]+", "_", name): value for name, value in metrics.items()}


def _write_plan(frame: Frame[StudyProbeConfig, JobFolder], found: probe.Found, summary: ProbeSummary) -> None:
    """The choice as options for ``seer-ray run --config`` and ``seer-ray sweep --config``."""
    if not found.ranking:
        return
    said: dict[str, Any] = {"ranking": found.ranking}
    if found.scope.kept:
        said["anchors"] = found.scope.kept
    if found.scope.kept and summary.cheap in PLANNED:
        said["cheap"] = summary.cheap
    text = yaml.safe_dump({"plan": said}, default_flow_style=None, sort_keys=False)
    frame.folder.store.write("plan.yaml", text.encode())
    summary.files.append("plan.yaml")
    if found.scope.kept:
        place = f"{frame.folder.uri}/plan.yaml"
        summary.next_commands.append(f"seer-ray run --config {place} model.name={summary.model}")


KIND = Kind(
    ProbeSummary,
    probe.stages,
    probe.expected,
    prober.build,
    probe.probe_contents,
    probe.dataset,
    _summarise,
)
