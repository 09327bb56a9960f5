"""Gate checkpoints: the released format (``attn_gate_weights.pth``) and ours (safetensors, same keys)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import (
    GateConfig,
    check_base_model,
    prefill_gates,
    read_gate_config,
    read_settings_of_either,
    selecting_layers,
    write_gate_config,
)
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.source import GATE_WEIGHTS, find_gates

RELEASED = {
    name.lower(): f"SeerAttention/SeerAttention-Decode-{release}-AttnGates"
    for name, release in {
        "Qwen3-4B": "Qwen3-4B",
        "Qwen3-8B": "Qwen3-8B",
        "Qwen3-14B": "Qwen3-14B",
        "DeepSeek-R1-Distill-Qwen-14B": "R1-Distill-Qwen-14B",
    }.items()
}
"""Gates that are public: model name in lower case -> hub id."""


def load_gates(
    source: str,
    model_config: PreTrainedConfig,
    block_size: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[AttnGate | None, ...]:
    """Gates of a model, strictly: of this model, for this block size, every weight there and none besides.

    Args:
        source: a folder, a ``.pth`` or ``.safetensors`` file with ``config.json`` beside it, or a hub id.
        model_config: of the model that the gates are for.
        block_size: tokens a block in the engine.
        dtype: of the weights; None: as stored.
        device: where the weights go.

    Returns:
        One gate per layer, in eval mode without gradients; None for layers that have none by their config.

    Raises:
        ConfigError: says what is missing or differs.
    """
    option = f"model.gates={source}"
    weights_file = find_gates(source, option)
    config, data = read_gate_config(weights_file.parent / "config.json", option)
    weights = read_weights(weights_file, option)
    if any(".mask_linear_" in key for key in weights):
        raise ConfigError(prefill_gates(option))
    check_base_model(data, model_config, option)
    if config.block_size != block_size:
        raise ConfigError(
            f"engine.block_size={block_size}: the gates of {source} were trained with blocks of"
            f" {config.block_size} tokens; set engine.block_size={config.block_size}"
        )
    if other := set(config.layers or ()) - set(selecting_layers(model_config)):
        raise ConfigError(f"{option}: has a gate for layer {min(other)}, of which nothing is selected here")
    gates = config.build(model_config, device="meta")
    check_keys(weights, state_dict(gates), f"{option}: {weights_file.name}")
    fill(gates, weights, dtype, device)
    return gates


def fill(
    gates: Sequence[AttnGate | PrefillGate | None],
    weights: dict[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> None:
    """Gives gates that are on no device their weights of a checkpoint, in eval mode without gradients."""
    for layer, gate in enumerate(gates):
        if gate is not None:
            state = {name: weights[gate_key(layer, name)] for name in gate.state_dict()}
            gate.load_state_dict(
                {name: w.to(device=device, dtype=dtype or w.dtype) for name, w in state.items()}, assign=True
            )
            gate.requires_grad_(False).eval()
            if gate.rope is not None:
                gate.rope.to(device)


def read_settings(source: str) -> GateConfig:
    """The settings of gates, without their weights.

    Raises:
        ConfigError: there are none.
    """
    option = f"model.gates={source}"
    return read_gate_config(find_gates(source, option).parent / "config.json", option)[0]


def init_gates(
    model_config: PreTrainedConfig, config: GateConfig, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[AttnGate | None, ...]:
    """Random float32 gates for training and tests: the same for the same arguments, on any device."""
    gates = config.build(model_config)
    draw(gates, seed, device)
    return gates


def draw(gates: Sequence[AttnGate | PrefillGate | None], seed: int, device: torch.device | str) -> None:
    """Gives gates random weights: the same for the same seed, on any device."""
    generator = torch.Generator().manual_seed(seed)
    for gate in gates:
        if gate is not None:
            gate.reset_parameters(generator)
            gate.to(device)


def save_gates(
    folder: Path | str,
    gates: Sequence[AttnGate | None],
    model_config: PreTrainedConfig,
    base_model: str,
    pth: bool = False,
) -> Path:
    """``config.json`` and the weights.

    Args:
        folder: made if it is not there.
        gates: one per layer.
        model_config: of the base model.
        base_model: its name, as a hub id if it has one.
        pth: the released format, for the reference implementation; else ours.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_gate_config(folder / "config.json", gates, model_config, base_model)
    write_weights(folder / GATE_WEIGHTS[pth], state_dict(gates))
    return folder


def convert_gates(source: str, folder: Path | str, pth: bool, dtype: torch.dtype | None = None) -> int:
    """The weights in the other container, with the same ``config.json``; the base model is not asked for.

    Args:
        source: as in ``load_gates``.
        folder: made if it is not there; must hold no gates.
        pth: the released format; else ours.
        dtype: of the weights; None: as stored.

    Returns:
        How many weights there are.

    Raises:
        ConfigError: cannot be read, or there are gates already.
    """
    option = f"gates={source}"
    weights_file = find_gates(source, option)
    config_file = weights_file.parent / "config.json"
    read_settings_of_either(config_file, option)
    weights = read_weights(weights_file, option)
    folder = Path(folder)
    if there := [name for name in GATE_WEIGHTS if (folder / name).exists()]:
        raise ConfigError(f"{folder}: has {there[0]} already; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / GATE_WEIGHTS[pth], {key: w.to(dtype or w.dtype) for key, w in weights.items()})
    shutil.copyfile(config_file, folder / "config.json")
    return sum(weight.numel() for weight in weights.values())


def state_dict(gates: Sequence[nn.Module | None]) -> dict[str, Tensor]:
    """All weights under the released keys."""
    return {
        gate_key(layer, name): weight
        for layer, gate in enumerate(gates)
        if gate is not None
        for name, weight in gate.state_dict().items()
    }


def seer_without_gates(model: str) -> ConfigError:
    """The refusal of a ``seer`` selector for a model whose config names no gates."""
    released = RELEASED.get(model.rpartition("/")[2].lower())
    example = f"model.gates={released}" if released else f"for Qwen/Qwen3-4B: {RELEASED['qwen3-4b']}"
    return ConfigError(
        f"selector.name=seer: {model} has no gates, model.gates is not set; give it the hub id or folder of"
        f" released ones ({example}), or of your own (made by `seer-ray distill`),"
        " or take a selector that needs none: selector.name=quest"
    )


def gate_key(layer: int, name: str) -> str:
    """Of a weight in a checkpoint."""
    return f"model.layers.{layer}.self_attn.attn_gate.{name}"


def read_weights(file: Path, option: str) -> dict[str, Tensor]:
    """Tensors by name; raises ConfigError for what is no such file."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torn files make both readers fail in many ways
        raise ConfigError(f"{option}: cannot read {file.name}: {first_line(error)}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConfigError(f"{option}: {file.name} must hold tensors by name, and nothing else")
    return weights


def check_keys(weights: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Raises ConfigError: something is missing, too much, or of another shape."""
    wrong = []
    if missing := [key for key in expected if key not in weights]:
        wrong.append(f"{len(missing)} missing, first {missing[0]}")
    if extra := [key for key in weights if key not in expected]:
        wrong.append(f"{len(extra)} too many, first {extra[0]}")
    shapes = {key: (list(weights[key].shape), list(expected[key].shape)) for key in expected.keys() & weights}
    if misshapen := sorted(key for key, (found, wanted) in shapes.items() if found != wanted):
        found, wanted = shapes[misshapen[0]]
        wrong.append(f"{len(misshapen)} misshapen, first {misshapen[0]}: {found}, must be {wanted}")
    if wrong:
        raise ConfigError(f"{where} does not fit its config.json and the model: {'; '.join(wrong)}")


def write_weights(file: Path, weights: dict[str, Tensor]) -> None:
    """By the ending of its name; whole or not at all."""
    weights = {key: weight.detach().cpu().contiguous() for key, weight in weights.items()}
    temporary = file.with_name(f".{file.name}")
    if file.suffix == ".pth":
        torch.save(weights, temporary)
    else:
        save_file(weights, temporary, metadata={"format": "pt"})
    os.replace(temporary, file)
