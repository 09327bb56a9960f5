"""What MLflow is told of a job beside its metrics: tags, and a description that its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seer_ray.config.options import JobConfig, ModelConfig, RunConfig, SweepConfig
from seer_ray.config.secrets import redacted
from seer_ray.config.speculating import speculates
from seer_ray.config.works import is_dense
from seer_ray.models.content import parameters
from seer_ray.models.source import find
from seer_ray.tracking.tracker import Dataset

NOTE = "mlflow.note.content"
"""The tag that is the description, in Markdown."""
MOST_LINES = 20
EVALUATION = {"mlflow.runType": "genai_evaluate"}
"""What MLflow's page of evaluations lists."""


def tags(config: JobConfig, session: Mapping[str, Any], dataset: Dataset | None = None) -> dict[str, str]:
    """Of a job as it begins: where, how and with what it is run.

    Args:
        session: see ``results.provenance``
    """
    found = {
        NOTE: note(config, _source(dataset)),
        "command": str(session["command"]),
        "job": config.command,
        "host": str(session["host"]),
        "python": str(session["python"]),
    }
    if commit := session["commit"]:
        found |= {"commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    if model := getattr(config, "model", None):
        found["model"] = str(redacted(model.name))
    return found | (EVALUATION if type(config) is RunConfig else {})


def note(config: JobConfig, lines: Mapping[str, str]) -> str:
    """A description: what the job is, and what is known of it.

    Args:
        lines: by label
    """
    said = "".join(f"- {label}: {text}\n" for label, text in lines.items())
    return str(redacted(f"{_about(config)}\n\n{said}"))


def _about(config: JobConfig) -> str:
    if not isinstance(config, RunConfig):
        return f"`seer-ray {config.command}`"
    if isinstance(config, SweepConfig):
        how = "a sweep"
    elif is_dense(config.selector, config.plan):
        how = "dense"
    else:
        how = f"{config.selector.name}, budget {config.selector.budget:,}"
    if speculates(config.engine) and not isinstance(config, SweepConfig):
        how = f"dense, drafted by {'n-grams' if config.engine.drafter == 'ngram' else how}"
    return f"**{config.model.name}** on **{config.task.name}**, {how}"


def size(model: ModelConfig) -> dict[str, str]:
    """The model's parameters as a tag, where its weights are here as safetensors."""
    folder = find(model.name, f"model.name={model.name}", model.revision)
    count = parameters(folder) if folder.is_dir() else None
    return {} if count is None else {"parameters": f"{count:,}"}


def figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """The first of a job's final metrics for its description, by name."""
    known = [(n, value) for n, value in metrics.items() if "/layer_" not in n and not n.startswith("time/")]
    return {name: f"{value:,.4g}" for name, value in known[:MOST_LINES]}


def _source(dataset: Dataset | None) -> dict[str, str]:
    if dataset is None:
        return {}
    return {"data": f"{dataset.source} ({dataset.rows:,} rows)" if dataset.rows else dataset.source}
