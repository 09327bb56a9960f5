"""``seer-ray distill`` and ``seer-ray gates`` up to where the work begins."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny

from cli.conftest import one_error
from seer_ray.config.options import ModelConfig
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates
from seer_ray.models.load import load_config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "data: not set; name what to train on: data=runs/NAME (completions of a run)"),
        (
            ["data=[{path: a, wait: 2}]"],
            "data.wait=2: no such key (did you mean 'weight'?); there are answer",
        ),
        (["data=a", "objective.target=mean"], "objective.target=mean: must be one of max, mass"),
        (["data=a", "objective.distill=0"], "objective.distill=0, objective.lm=0: nothing to train for"),
        (
            ["data=a", "gates.blocksize=32"],
            "gates.blocksize=32: no such option; did you mean gates.block_size?",
        ),
        (["data=a", "selector=seer"], "selector=seer: no such option"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(invoke, args, message):
    assert one_error(invoke("distill", *args)).startswith(message)


def test_the_plan_needs_no_data_and_no_weights(invoke, tmp_path):
    model = save_tiny(tmp_path / "m", "qwen3")
    (model / "model.safetensors").unlink()
    result = invoke("distill", "--dry-run", f"model.name={model}", "train.length=4096")
    assert result.exit_code == 0 and result.stdout.splitlines()[-2].split()[0] == "peak"
    plan = json.loads(invoke("distill", "--dry-run", "--json", f"model.name={model}").stdout)
    parts = ("weights", "gates", "layer", "target", "imitation")
    assert plan["total"] == sum(plan[name] for name in parts) and plan["language"] == 0


def test_gates_into_the_released_format_and_back(invoke, tmp_path):
    model = save_tiny(tmp_path / "m", "qwen3")
    config = load_config(ModelConfig(name=str(model)))
    save_gates(tmp_path / "a", init_gates(config, GateConfig(block_size=16, gate_dim=8)), config, "m")
    exported = invoke("gates", "export", str(tmp_path / "a"), str(tmp_path / "b"))
    assert exported.exit_code == 0 and exported.stdout.endswith("weights, .pth\n")
    again = invoke("gates", "import", str(tmp_path / "b"), str(tmp_path / "c"), "--dtype", "bfloat16")
    assert again.exit_code == 0
    first, last = (load_file(tmp_path / name / "attn_gate_weights.safetensors") for name in "ac")
    assert all(torch.equal(weight.bfloat16(), last[key]) for key, weight in first.items())
    twice = invoke("gates", "export", str(tmp_path / "a"), str(tmp_path / "b"))
    assert "name another folder" in one_error(twice)
