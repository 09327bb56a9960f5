"""How good prefill gates are: measured on held-out documents as prompts, beside other choices of blocks."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from seer_ray.config.training import GatesPromptsConfig
from seer_ray.driver.measure import (
    MeasurePlan,
    MeasureSummary,
    Measuring,
    begin,
    conclude,
    measuring,
    plan_of,
)
from seer_ray.fidelity.evaluate import flat
from seer_ray.fidelity.prompt_gates import PromptEvaluation, check_prompts, evaluate_prompts, prompt_sets
from seer_ray.status.live import MeasureLive, Reporter

VALUES = ("mass", "of_oracle", "recall", "kl", "top1", "perplexity", "more")


@dataclass
class PromptsSummary(MeasureSummary):
    """What an evaluation of prefill gates came to."""

    gates: dict[str, str] = field(default_factory=dict)
    """Label -> where the set was."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """By density (``budget``) and selector."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """By layer too."""


def main(
    config: GatesPromptsConfig, reporter: Reporter[MeasureLive, PromptsSummary] | None = None
) -> PromptsSummary:
    """Measures anew each time: a folder of gates may hold others than before.

    Raises:
        ConfigError: An option, or what it names, is wrong.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    check_prompts(config)
    with measuring(config, reporter) as (frame, progress):
        found = evaluate_prompts(config, progress)
        summary = PromptsSummary(
            **begin(frame, found),
            gates=found.gates,
            table=found.table(),
            layers=found.figures.layer_table("layer"),
        )
        _write(frame, summary, found)
        metrics = flat(summary.table, VALUES)
        frame.tracker.log(metrics, step=0)
        conclude(frame, summary, metrics)
    frame.finish(summary)
    return summary


def plan(config: GatesPromptsConfig) -> MeasurePlan:
    """What the job would do; reads no document and no weights."""
    check_prompts(config)
    return plan_of(config, [*prompt_sets(config), *config.selectors])


def _write(frame: Measuring, summary: PromptsSummary, found: PromptEvaluation) -> None:
    parts: dict[str, Sequence[Any]] = {
        "layers": found.figures.layers,
        "outputs": found.figures.outputs,
        "losses": found.figures.losses,
    }
    for name, rows in parts.items():
        if rows:
            out = io.BytesIO()
            table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows])
            parquet.write_table(table, out, compression="zstd")
            frame.folder.store.write(f"{name}.parquet", out.getvalue())
            summary.files.append(f"{name}.parquet")
