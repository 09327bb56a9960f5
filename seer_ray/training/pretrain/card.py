"""The card of a model that was trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seer_ray.config.command import training_command
from seer_ray.config.compose import to_yaml
from seer_ray.config.overrides import show
from seer_ray.config.training import PretrainConfig
from seer_ray.models.mixed.config import MODEL_TYPE
from seer_ray.models.mixers import layer_mixers
from seer_ray.training import card

PACKAGES = ("seer-ray", "torch", "transformers", "tokenizers")
MEASURES = {
    "loss": ("loss a token", "{:.4f}"),
    "perplexity": ("perplexity", "{:,.3f}"),
    "token_accuracy": ("next token right", "{:.2%}"),
    "solved": ("every token right, each given the true ones before it", "{:.2%}"),
    "answers": ("answer right, decoded greedily by the engine", "{:.2%}"),
    "chain_tokens": ("tokens of the answer", "{:,.0f}"),
}
"""Of the evaluation: in words, and how a value is written."""


def write_card(folder: Path, config: PretrainConfig, report: dict[str, Any], module: Any) -> None:
    """``README.md`` in the model's folder.

    Args:
        report: of the training loop, see ``Objective.save``.
    """
    rows = _evaluation(report["metrics"])
    names = [name for name in MEASURES if any(name in row for row in rows.values())]
    card.write_card(
        folder,
        "pretrain/card.md",
        PACKAGES,
        config=config,
        report=report,
        command=training_command(config, "pretrain"),
        options=to_yaml(config).strip(),
        size=sum(parameter.numel() for parameter in module.parameters()),
        text=show(config.data.text),
        layers=layer_mixers(module.config),
        own=module.config.model_type == MODEL_TYPE,
        heads=[MEASURES[name][0] for name in names],
        rows=[
            (what, [MEASURES[name][1].format(row[name]) if name in row else "" for name in names])
            for what, row in rows.items()
        ],
    )


def _evaluation(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Measures by what was evaluated: problems of each length, or text."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        kind, _, rest = name.partition("/")
        what, _, measure = rest.partition("/")
        if kind == "eval" and measure in MEASURES:
            rows.setdefault(what.replace("_", " "), {})[measure] = value
    return rows
