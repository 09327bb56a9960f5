"""Tags and the description of a job."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from seer_ray.config.options import ModelConfig, RunConfig, SweepConfig
from seer_ray.driver import told
from seer_ray.models.source import find
from seer_ray.results import provenance

SECRET = "https://me:secret123@host/texts.jsonl"


def session(config: RunConfig) -> dict[str, object]:
    return {**provenance.session(config), "commit": "abc-dirty"}


def test_tags_say_how_a_run_was_made() -> None:
    config = RunConfig(name="x", model=ModelConfig(name="reasoner"))
    tags = told.tags(config, session(config))
    assert tags["command"].startswith("seer-ray run ") and tags["job"] == "run" and tags["host"]
    assert (tags["commit"], tags["mlflow.source.git.commit"]) == ("abc-dirty", "abc")
    assert tags["mlflow.runType"] == "genai_evaluate"
    assert "mlflow.runType" not in told.tags(SweepConfig(name="x"), session(SweepConfig()))


def test_no_secret_is_told() -> None:
    config = RunConfig(name="x", model=ModelConfig(name="reasoner"))
    config.task.data = SECRET
    dataset = told.Dataset("x", "0123", SECRET, 3)
    tags = told.tags(config, session(config), dataset)
    assert "secret123" not in str(tags) and "https://***@host/texts.jsonl (3 rows)" in tags[told.NOTE]


def test_the_size_of_a_model_is_that_of_its_weights() -> None:
    folder: Path = find("reasoner", "model.name=reasoner", None)
    count = sum(weight.numel() for weight in load_file(folder / "model.safetensors").values())
    assert told.size(ModelConfig(name="reasoner")) == {"parameters": f"{count:,}"}
