"""Checkpoints of the gates of decoding, and their conversion, which serves those of prompts too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.checkpoints import built, drawn, read_weights, write_gates, write_weights
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import (
    GateConfig,
    prefill_gates,
    read_gate_config,
    read_settings_of_either,
    tempered,
    write_gate_config,
)
from seer_ray.models.source import ALLOCATION, GATE_WEIGHTS, find_gates

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
    """Gates of a model, one per layer; see ``checkpoints.built``.

    Args:
        source: a folder, a ``.pth`` or ``.safetensors`` file with ``config.json`` beside it, or a hub id.

    Raises:
        ConfigError: says what is missing or differs.
    """
    option = f"model.gates={source}"
    file = find_gates(source, option)
    settings, data = read_gate_config(file.parent / "config.json", option)
    weights = read_weights(file, option)
    if any(".mask_linear_" in key for key in weights):
        raise ConfigError(prefill_gates(option))
    return built(settings, data, file, weights, option, model_config, block_size, dtype, device)


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
    """Random gates; see ``checkpoints.drawn``."""
    return drawn(config, model_config, seed, device)


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
    return write_gates(folder, gates, pth)


def temper_gates(source: str, folder: Path | str, temperature: Sequence[Sequence[float]]) -> Path:
    """The same weights, and a ``config.json`` with the temperature of their shares.

    Args:
        source: as in ``load_gates``.
        folder: made if it is not there.
        temperature: see ``GateConfig.temperature``.

    Returns:
        The folder.
    """
    weights_file, folder = find_gates(source, f"model.gates={source}"), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights_file, folder / weights_file.name)
    tempered(weights_file.parent / "config.json", folder / "config.json", temperature)
    _copy_allocation(weights_file.parent, folder)
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
    _copy_allocation(config_file.parent, folder)
    return sum(weight.numel() for weight in weights.values())


def _copy_allocation(source: Path, folder: Path) -> None:
    """It is of the order of blocks, which neither temperatures nor containers change."""
    if (source / ALLOCATION).is_file():
        shutil.copyfile(source / ALLOCATION, folder / ALLOCATION)


def seer_without_gates(model: str) -> ConfigError:
    """The refusal of a ``seer`` selector for a model whose config names no gates."""
    released = RELEASED.get(model.rpartition("/")[2].lower())
    example = f"model.gates={released}" if released else f"for Qwen/Qwen3-4B: {RELEASED['qwen3-4b']}"
    return ConfigError(
        f"selector.name=seer: {model} has no gates, model.gates is not set; give it the hub id or folder of"
        f" released ones ({example}), or of your own (made by `seer-ray distill`),"
        " or take a selector that needs none: selector.name=quest"
    )
