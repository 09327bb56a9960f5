"""How good prefill gates are: measured on held-out documents as prompts, beside other choices of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.measuring import GatesPromptsConfig
from seer_ray.driver.measure import (
    MeasurePlan,
    MeasureSummary,
    Measuring,
    measured,
    plan_of,
    write_figures,
)
from seer_ray.fidelity.evaluate import flat
from seer_ray.fidelity.needles import needle_table
from seer_ray.fidelity.prompt_gates import (
    PREFILL,
    PromptEvaluation,
    check_prompts,
    evaluate_prompts,
    prompt_sets,
)
from seer_ray.models.allocation import PROMPTS, allocation_text
from seer_ray.models.prefill_gates import allocate_prefill_gates
from seer_ray.status.live import MeasureLive, Reporter
from seer_ray.training.product import write_product

PRODUCT = "gates"
"""Folder of the set whose heads share a density, where that was asked for."""
VALUES = ("mass", "of_oracle", "recall", "kl", "top1", "perplexity", "more")


@dataclass
class PromptsSummary(MeasureSummary):
    """What an evaluation of prefill gates came to."""

    gates: dict[str, str] = field(default_factory=dict)
    """Label -> where the set was."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """By length (``positions``), density (``budget``) and selector."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """By layer too."""
    needles: list[dict[str, Any]] = field(default_factory=list)
    """By task, density and selector; see ``fidelity.needles.needle_table``."""


def main(
    config: GatesPromptsConfig, reporter: Reporter[MeasureLive, PromptsSummary] | None = None
) -> PromptsSummary:
    """Measures anew each time: a folder of gates may hold others than before.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    check_prompts(config)
    return measured(config, reporter, evaluate_prompts, _summary)


def plan(config: GatesPromptsConfig) -> MeasurePlan:
    """What the job would do; reads no document and no weights."""
    check_prompts(config)
    return plan_of(config, [*prompt_sets(config), *config.selectors])


def _summary(
    frame: Measuring, found: PromptEvaluation, facts: dict[str, Any]
) -> tuple[PromptsSummary, dict[str, float]]:
    figures = found.figures
    summary = PromptsSummary(
        **facts,
        gates=found.gates,
        table=found.table(),
        layers=figures.layer_table("layer"),
        needles=needle_table(found.needles),
    )
    parts: dict[str, Sequence[Any]] = {
        "layers": figures.layers,
        "outputs": figures.outputs,
        "losses": figures.losses,
        "needles": found.needles,
    }
    summary.files += write_figures(frame, parts)
    if found.allocation is not None:
        about = {"model": summary.model, "block_size": found.block_size}
        text = allocation_text({PROMPTS: found.allocation}, about)
        source = found.gates[PREFILL]
        write_product(
            frame.folder.store, PRODUCT, lambda folder: allocate_prefill_gates(source, folder, text)
        )
    metrics = flat(summary.table, VALUES)
    for row in summary.needles:
        metrics |= flat([{**row, "positions": row["task"]}], ("kept",))
    frame.tracker.log(metrics, step=0)
    return summary, metrics
