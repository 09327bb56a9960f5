"""The card of gates that were trained here, made from their run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seer_ray.config.command import training_command
from seer_ray.config.compose import to_yaml
from seer_ray.config.training import DistillConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.corpora.split import Corpus
from seer_ray.models.gate import AttnGate

PACKAGES = ("seer-ray", "torch", "transformers")


def write_card(
    folder: Path,
    config: DistillConfig,
    report: dict[str, Any],
    corpora: Sequence[Corpus],
    gates: Sequence[AttnGate | None],
) -> None:
    """``README.md`` in the folder of gates.

    Args:
        report: of the training loop, see ``Objective.save``.
        corpora: what each source gave.
        gates: that are in the folder, one per layer.
    """
    there = [gate for gate in gates if gate is not None]
    size = sum(parameter.numel() for gate in there for parameter in gate.parameters())
    where = f"{len(there)} of {len(gates)} layers"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    objective, train = config.objective, config.train
    parts = {f"distillation ({objective.target} target)": objective.distill, "next-token loss": objective.lm}
    mix = ", ".join(f"{weight:g} x {name}" for name, weight in parts.items() if weight)
    begin = f"the gates of {config.model.gates}" if config.model.gates else "random gates"
    text = f"""---
tags: [seer-attention, sparse-attention]
---
# Attention gates for {config.model.name}

Gates of SeerAttention-R ([arXiv 2506.08889](https://arxiv.org/abs/2506.08889)), {size:,} parameters in
{where}: they tell which blocks of {there[0].block_size} cached tokens a decode step of the model reads.
Use: `seer-ray run model.name={config.model.name} model.gates=THIS_FOLDER selector=seer`.

## How they were made

```bash
{training_command(config, "distill")}
```

{report["step"]:,} steps from {begin}, {report["tokens"]:,.0f} tokens,
{report["seconds"] / 60:,.1f} minutes, seed {train.seed}, objective {mix}; {versions}.

| data | documents | tokens | held out | shorter than two blocks, left out |
|---|---|---|---|---|
{_data(config, corpora)}

## Held-out documents

The {config.evaluation.documents} longest ones at most; rows from {objective.skip:.0%} of each document on.

{_figures(report["metrics"])}
## All options

```yaml
{to_yaml(config).strip()}
```
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _data(config: DistillConfig, corpora: Sequence[Corpus]) -> str:
    lines = []
    for source, corpus in zip(parse_sources(config.data), corpora, strict=True):
        tokens = sum(len(document.tokens) for document in corpus.train)
        weight = f" (weight {source.weight:g})" if source.weight != 1 else ""
        lines.append(
            f"| {source.path}{weight} | {len(corpus.train):,} | {tokens:,} | {len(corpus.held_out):,} |"
            f" {corpus.too_short:,} |"
        )
    return "\n".join(lines)


def _figures(metrics: dict[str, float]) -> str:
    """The last value of each, all layers together; then a table by layer."""
    names = sorted(name for name in metrics if name.startswith("eval/"))
    if not names:
        return "There were none.\n"
    whole = [name for name in names if "/layer_" not in name]
    layers = sorted({name.rpartition("/")[2] for name in names if "/layer_" in name})
    columns = sorted({name.rpartition("/")[0] for name in names if "/layer_" in name})
    lines = ["| | value |", "|---|---|"]
    lines += [f"| {name.removeprefix('eval/')} | {metrics[name]:.4f} |" for name in whole]
    lines += ["", "| layer | " + " | ".join(name.removeprefix("eval/") for name in columns) + " |"]
    lines += ["|---" * (len(columns) + 1) + "|"]
    for layer in layers:
        values = [metrics.get(f"{column}/{layer}") for column in columns]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        lines.append(f"| {int(layer.removeprefix('layer_'))} | " + " | ".join(cells) + " |")
    explained = (
        "`recall`: of the blocks that the oracle reads, at that budget. `of_oracle`: attention mass kept"
    )
    return "\n".join(lines) + f"\n\n{explained}, as a share of what the oracle keeps.\n"
