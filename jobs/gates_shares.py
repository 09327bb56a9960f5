"""How the heads of a model best share a budget: measured, and written as a file for runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from seer_ray.config.measuring import GatesSharesConfig
from seer_ray.driver.measure import (
    MeasurePlan,
    MeasureSummary,
    Measuring,
    measured,
    plan_of,
)
from seer_ray.fidelity.division import Division, check_shares, divide
from seer_ray.models.allocation import allocation_text
from seer_ray.models.source import ALLOCATION
from seer_ray.status.live import MeasureLive, Reporter


@dataclass
class SharesSummary(MeasureSummary):
    """What sharing a budget came to."""

    gates: str | None = None
    spent: list[dict[str, Any]] = field(default_factory=list)
    """See ``fidelity.division.Spent``: by selector and mean budget."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """``layer``, and ``kl`` with it sparse alone, see ``price_layers``."""


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
    return plan_of(config, check_shares(config))


def _summary(
    frame: Measuring, found: Division, facts: dict[str, Any]
) -> tuple[SharesSummary, dict[str, float]]:
    summary = SharesSummary(
        **facts,
        gates=found.gates,
        spent=[asdict(one) for one in found.spent],
        layers=[{"layer": layer, "kl": price.kl} for layer, price in found.prices.items()],
    )
    sources = sorted({document.source for document in found.documents})
    about = {"model": summary.model, "block_size": found.block_size, "documents": sources}
    ranking = yaml.safe_dump({"plan": {"ranking": found.ranking}}, default_flow_style=None, sort_keys=False)
    for name, text in ((ALLOCATION, allocation_text(found.allocations, about)), ("ranking.yaml", ranking)):
        frame.folder.store.write(name, text.encode())
        summary.files.append(name)
    metrics = {f"kl/{one.selector}/{one.budget}": one.kl for one in found.spent}
    metrics |= {f"uniform_kl/{one.selector}/{one.budget}": one.uniform for one in found.spent}
    frame.tracker.log(metrics, step=0)
    for row in summary.layers:
        frame.tracker.log({"by_layer/kl_alone": row["kl"]}, step=row["layer"])
    return summary, metrics
