"""The card of gates that were trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seer_ray.config.command import training_command
from seer_ray.config.compose import to_yaml
from seer_ray.config.training import DistillConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.corpora.split import Corpus
from seer_ray.models.gate import AttnGate
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.training import card

PACKAGES = ("seer-ray", "torch", "transformers")


def write_card(
    folder: Path,
    config: DistillConfig,
    report: dict[str, Any],
    corpora: Sequence[Corpus],
    gates: Sequence[AttnGate | PrefillGate | None],
) -> None:
    """``README.md`` in the folder of gates.

    Args:
        report: of the training loop, see ``Objective.save``.
        corpora: what each source gave.
        gates: that are in the folder, one per layer.
    """
    trained = [gate for gate in gates if gate is not None]
    objective = config.objective
    parts = {f"distillation ({objective.target} target)": objective.distill, "next-token loss": objective.lm}
    whole, by_layer = _evaluation(report["metrics"])
    card.write_card(
        folder,
        "gates/card.md",
        PACKAGES,
        config=config,
        report=report,
        command=training_command(config, "distill"),
        options=to_yaml(config).strip(),
        gates=trained,
        layers=len(gates),
        size=sum(parameter.numel() for gate in trained for parameter in gate.parameters()),
        objective=", ".join(f"{weight:g} x {name}" for name, weight in parts.items() if weight),
        data=list(zip(parse_sources(config.data), corpora, strict=True)),
        whole=whole,
        by_layer=by_layer,
        columns=sorted({column for values in by_layer.values() for column in values}),
    )


def _evaluation(metrics: dict[str, float]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    """The last value of each metric of the evaluation: of all layers together, and by layer."""
    whole: dict[str, float] = {}
    by_layer: dict[int, dict[str, float]] = {}
    for name in sorted(name for name in metrics if name.startswith("eval/")):
        measure, _, layer = name.removeprefix("eval/").partition("/layer_")
        if layer:
            by_layer.setdefault(int(layer), {})[measure] = metrics[name]
        else:
            whole[measure] = metrics[name]
    return whole, dict(sorted(by_layer.items()))
