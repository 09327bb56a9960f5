"""Checkpoints of gates of either kind: the released format (``attn_gate_weights.pth``), ours (safetensors).

Both have the same keys, and a ``config.json`` beside the weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import check_base_model, selecting_layers
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.source import GATE_WEIGHTS

G = TypeVar("G", AttnGate, PrefillGate, covariant=True)


class Settings(Protocol[G]):
    """What the gates of a model share."""

    @property
    def block_size(self) -> int: ...

    @property
    def layers(self) -> tuple[int, ...] | None: ...

    def build(
        self, model_config: PreTrainedConfig, *, device: torch.device | str | None = None
    ) -> tuple[G | None, ...]: ...


def built(
    settings: Settings[G],
    data: dict[str, Any],
    file: Path,
    weights: dict[str, Tensor],
    option: str,
    model_config: PreTrainedConfig,
    block_size: int,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> tuple[G | None, ...]:
    """Gates of a checkpoint, strictly: of this model, for these blocks, every weight there and none besides.

    Args:
        settings: of its ``config.json``.
        data: all of that.
        file: with the weights.
        weights: of the file.
        option: the option that names the checkpoint, with its value.
        model_config: of the model that the gates are for.
        block_size: tokens a block in the engine.
        dtype: of the weights; None: as stored.
        device: where the weights go.

    Returns:
        One gate per layer, in eval mode without gradients; None for layers that have none by their config.

    Raises:
        ConfigError: says what is missing or differs.
    """
    check_base_model(data, model_config, option)
    if settings.block_size != block_size:
        raise ConfigError(
            f"engine.block_size={block_size}: {option} was trained with blocks of {settings.block_size}"
            f" tokens, and a block is a page; set engine.block_size={settings.block_size}"
        )
    if other := set(settings.layers or ()) - set(selecting_layers(model_config)):
        raise ConfigError(f"{option}: has a gate for layer {min(other)}, of which nothing is selected here")
    gates = settings.build(model_config, device="meta")
    check_keys(weights, state_dict(gates), f"{option}: {file.name}")
    for layer, gate in enumerate(gates):
        if gate is not None:
            state = {name: weights[gate_key(layer, name)] for name in gate.state_dict()}
            gate.load_state_dict(
                {name: w.to(device=device, dtype=dtype or w.dtype) for name, w in state.items()}, assign=True
            )
            gate.requires_grad_(False).eval()
            if gate.rope is not None:
                gate.rope.to(device)
    return gates


def drawn(
    settings: Settings[G], model_config: PreTrainedConfig, seed: int, device: torch.device | str
) -> tuple[G | None, ...]:
    """Random float32 gates for training and tests: the same for the same arguments, on any device."""
    gates, generator = settings.build(model_config), torch.Generator().manual_seed(seed)
    for gate in gates:
        if gate is not None:
            gate.reset_parameters(generator)
            gate.to(device)
    return gates


def write_gates(folder: Path, gates: Sequence[nn.Module | None], pth: bool) -> Path:
    """The weights, into a folder that is there.

    Args:
        folder: has their ``config.json``.
        gates: one per layer.
        pth: the released format, for the reference implementation; else ours.

    Returns:
        The folder.
    """
    write_weights(folder / GATE_WEIGHTS[pth], state_dict(gates))
    return folder


def state_dict(gates: Sequence[nn.Module | None]) -> dict[str, Tensor]:
    """All weights under the released keys."""
    return {
        gate_key(layer, name): weight
        for layer, gate in enumerate(gates)
        if gate is not None
        for name, weight in gate.state_dict().items()
    }


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
