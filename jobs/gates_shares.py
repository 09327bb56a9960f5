"""How a budget is best divided over the layers: measured, and written as options for runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from seer_ray.config.training import GatesSharesConfig
from seer_ray.driver.measure import (
    MeasurePlan,
    MeasureSummary,
    Measuring,
    measured,
    plan_of,
)
from seer_ray.fidelity.division import Division, check_shares, divide
from seer_ray.status.live import MeasureLive, Reporter


@dataclass
class SharesSummary(MeasureSummary):
    """What a division of a budget came to."""

    gates: str = ""
    plans: list[dict[str, Any]] = field(default_factory=list)
    """``name``, ``selector`` (its options), ``read`` (KV tokens per head and step), ``kl`` (expected)."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """``layer``, ``kl`` with it sparse alone, and of each plan ``read`` and ``loss``, its part of ``kl``."""


def main(
    config: GatesSharesConfig, reporter: Reporter[MeasureLive, SharesSummary] | None = None
) -> SharesSummary:
    """Measures anew each time, as ``gates_eval`` does.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    check_shares(config)
    return measured(config, reporter, divide, _summary)


def plan(config: GatesSharesConfig) -> MeasurePlan:
    """What the job would do; reads no document and no weights."""
    return plan_of(config, [check_shares(config)])


def _summary(
    frame: Measuring, found: Division, facts: dict[str, Any]
) -> tuple[SharesSummary, dict[str, float]]:
    summary = SharesSummary(
        **facts,
        gates=found.gates,
        plans=[
            {"name": plan.name, "selector": plan.selector, "read": plan.read, "kl": plan.kl}
            for plan in found.plans
        ],
        layers=[
            {"layer": layer, "kl": costs.kl}
            | {plan.name: plan.layers[layer]._asdict() for plan in found.plans}
            for layer, costs in found.layers.items()
        ],
    )
    for plan in summary.plans[1:]:  # as a file for ``seer-ray run --config``
        name = f"{plan['name']}.yaml"
        text = yaml.safe_dump({"selector": plan["selector"]}, sort_keys=False)
        frame.folder.store.write(name, text.encode())
        summary.files.append(name)
    ranking = yaml.safe_dump({"plan": {"ranking": found.ranking}}, default_flow_style=None, sort_keys=False)
    frame.folder.store.write("ranking.yaml", ranking.encode())  # beside it: plan.anchors
    summary.files.append("ranking.yaml")
    _track(frame, summary)
    return summary, {f"kl/{plan['name']}": plan["kl"] for plan in summary.plans}


def _track(frame: Measuring, summary: SharesSummary) -> None:
    for plan in summary.plans:
        frame.tracker.log({f"kl/{plan['name']}": plan["kl"], f"read/{plan['name']}": plan["read"]}, step=0)
    for row in summary.layers:
        metrics = {"by_layer/kl_alone": row["kl"]}
        metrics |= {f"by_layer/read/{plan['name']}": row[plan["name"]]["read"] for plan in summary.plans}
        frame.tracker.log(metrics, step=row["layer"])
