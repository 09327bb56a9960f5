"""The card of a model that was trained here, made from its run."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from seer_ray.command import training_command
from seer_ray.compose import to_yaml
from seer_ray.training.options import PretrainConfig

PACKAGES = ("seer-ray", "torch", "transformers", "tokenizers")
COLUMNS = {
    "token_accuracy": "next token right",
    "solved": "every token right, each given the true ones before it",
    "answers": "answer right, decoded greedily by the engine",
    "chain_tokens": "tokens of the answer",
}


def write_card(folder: Path, config: PretrainConfig, report: dict[str, Any], module: nn.Module) -> None:
    """``README.md`` in the model's folder.

    Args:
        report: of the training loop, see ``Objective.save``.
    """
    size = sum(parameter.numel() for parameter in module.parameters())
    data, train = config.data, config.train
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [synthetic, qwen3]
---
# A small reasoner for one kind of problem

{size:,} parameters, trained from scratch on synthetic problems of the generator `{data.generator}` (difficulty
{data.difficulty}) of seer-ray, and on nothing else. It writes the chain of thought of such problems and their answer. It
knows no language and no facts; its use is in demonstrations, tests and studies of attention over long chains.

## How it was made

```bash
{training_command(config, "pretrain")}
```

{report["step"]:,} steps, {report["tokens"]:,.0f} tokens, {report["seconds"] / 60:,.0f} minutes, seed {train.seed}; {versions}.
Problems of {data.start} to {data.end} generator steps, growing during the first {data.growth:.0%} of the training; loss on
{"the solution's tokens" if data.targets == "solution" else "all tokens"}. Every problem was seen once.

## Held-out problems

{_table(config, report["metrics"])}
The problems are the first ones that `seer-ray run task=program task.generator.steps=N` asks; training draws from other
seeds. {config.evaluation.problems} problems of each length for teacher-forced figures, {config.evaluation.answers} for answers. Longer than
{data.end} steps is longer than what it was trained on.

## Limits

Any other question, any other wording of these, variables named above x999, numbers above 999, chains much longer than
those in the table: expect nonsense.

## All options

```yaml
{to_yaml(config).strip()}
```
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _table(config: PretrainConfig, metrics: dict[str, float]) -> str:
    """A Markdown table, one row a length."""
    lines = ["| generator steps | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for steps in config.evaluation.lengths:
        cells = []
        for name in COLUMNS:
            value = metrics.get(f"eval/{steps}_steps/{name}")
            cells.append(
                "" if value is None else f"{value:,.0f}" if name == "chain_tokens" else f"{value:.2%}"
            )
        if any(cells):
            lines.append(f"| {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
