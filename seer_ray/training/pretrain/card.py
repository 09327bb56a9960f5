"""The card of a model that was trained here, made from its run."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from seer_ray.config.command import training_command
from seer_ray.config.compose import to_yaml
from seer_ray.config.overrides import show
from seer_ray.config.training import PretrainConfig

PACKAGES = ("seer-ray", "torch", "transformers", "tokenizers")
COLUMNS = {
    "loss": "loss a token",
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
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        *(_about_problems(config) if config.data.text is None else _about_text(config)),
        "",
        "## How it was made",
        "",
        f"{size:,} parameters, from random weights:",
        "",
        "```bash",
        training_command(config, "pretrain"),
        "```",
        "",
        f"{report['step']:,} steps, {report['tokens']:,.0f} tokens, {report['seconds'] / 60:,.0f} minutes, "
        f"seed {config.train.seed}; {versions}.",
        "",
        "## Held-out figures",
        "",
        _table(report["metrics"]),
        "",
        "## All options",
        "",
        "```yaml",
        to_yaml(config).strip(),
        "```",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _about_problems(config: PretrainConfig) -> list[str]:
    data, evaluation = config.data, config.evaluation
    tokens = "the solution's tokens" if data.targets == "solution" else "all tokens"
    return [
        "# A small reasoner for one kind of problem",
        "",
        f"Trained from scratch on synthetic problems of seer-ray's generator `{data.generator}`, difficulty "
        f"{data.difficulty}, and on nothing else. It writes the chain of thought of such a problem and its "
        "answer. It knows no language and no facts: it is there for demonstrations, tests and studies of "
        "attention over long chains. Of any other question, or another wording, expect nonsense; so too of "
        "variables above x999 and numbers above 999.",
        "",
        f"Problems of up to {data.start} generator steps at first, growing to {data.end} between "
        f"{data.rest:.0%} and {data.rest + data.growth:.0%} of the training; loss on {tokens}; no problem "
        f"twice. The held-out problems are the first ones that `seer-ray run task={data.generator} "
        f"task.generator.steps=N` asks, {evaluation.problems} of each length, {evaluation.answers} for "
        "answers; training draws from other "
        f"seeds. More than {data.end} steps is more than it was trained on.",
    ]


def _about_text(config: PretrainConfig) -> list[str]:
    return [
        "# A small language model",
        "",
        f"Trained from scratch on this text and nothing else: {show(config.data.text)}. "
        f"{config.data.held_out:.0%} of the documents are held out.",
    ]


def _table(metrics: dict[str, float]) -> str:
    """The figures of the evaluation as a Markdown table, one row for each length of problems."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        kind, _, rest = name.partition("/")
        what, _, figure = rest.partition("/")
        if kind == "eval" and figure in COLUMNS:
            rows.setdefault(what, {})[figure] = value
    names = [name for name in COLUMNS if any(name in row for row in rows.values())]
    lines = ["| | " + " | ".join(COLUMNS[name] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for what, row in rows.items():
        cells = ["" if name not in row else _cell(name, row[name]) for name in names]
        lines.append(f"| {what.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    if name == "loss":
        return f"{value:.4f}"
    return f"{value:,.0f}" if name == "chain_tokens" else f"{value:.2%}"
