"""Checkpoints of prefill gates: the released format, and ours (safetensors, the same keys).

``config.json`` is the base model's with ``seerattn_gate_type`` (``Qavg_Kmaxminavg``),
``seerattn_gate_block_size``, ``seerattn_gate_hidden_size`` and ``seerattn_gate_force_double``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.checkpoints import built, drawn, read_weights, write_gates
from seer_ray.models.gate import POOLS
from seer_ray.models.gate_config import (
    base_config,
    gate_rope,
    read_json,
    selecting_layers,
)
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.rope import head_dim
from seer_ray.models.source import ALLOCATION, PREFILL_GATES, find_gates

TYPE, SIZE, WIDTH, DOUBLE, LAYERS = (
    "seerattn_gate_type",
    "seerattn_gate_block_size",
    "seerattn_gate_hidden_size",
    "seerattn_gate_force_double",
    "seerattn_gate_layers",
)


@dataclass(frozen=True)
class PrefillGateConfig:
    """Settings that the prefill gates of a model share."""

    block_size: int
    gate_dim: int
    q_pooling: tuple[str, ...] = ("avg",)
    k_pooling: tuple[str, ...] = ("max", "min", "avg")
    two_projections: bool = False
    layers: tuple[int, ...] | None = None
    """Layers that have a gate; None: all with full attention."""

    @property
    def type(self) -> str:
        """Its poolings by their released name, ``Qavg_Kmaxminavg``."""
        return f"Q{''.join(self.q_pooling)}_K{''.join(self.k_pooling)}"

    @classmethod
    def parse(cls, data: dict[str, Any], option: str) -> PrefillGateConfig:
        """Of a ``config.json``.

        Raises:
            ConfigError: it lacks something, or has poolings that are none.
        """
        if missing := [key for key in (SIZE, WIDTH) if key not in data]:
            raise ConfigError(f"{option}: its config.json lacks {', '.join(missing)}")
        q, k = poolings(data[TYPE], option)
        layers = data.get(LAYERS)
        return cls(
            data[SIZE], data[WIDTH], q, k, bool(data.get(DOUBLE)), None if layers is None else tuple(layers)
        )

    @classmethod
    def of(cls, gates: Sequence[PrefillGate | None]) -> PrefillGateConfig:
        """Settings of gates that exist, one entry per layer."""
        layers = tuple(index for index, gate in enumerate(gates) if gate is not None)
        first = next(gate for gate in gates if gate is not None)
        return cls(
            first.block_size,
            first.gate_dim,
            first.q_pooling,
            first.k_pooling,
            first.two_projections,
            None if len(layers) == len(gates) else layers,
        )

    def build(
        self, model_config: PreTrainedConfig, device: torch.device | str | None = None
    ) -> tuple[PrefillGate | None, ...]:
        """Gates with random weights, one per layer of the model; they share one rotary table, on the CPU."""
        rope = gate_rope(model_config, self.gate_dim)
        layers = selecting_layers(model_config) if self.layers is None else self.layers
        return tuple(
            PrefillGate(
                num_query_heads=model_config.num_attention_heads,
                num_kv_heads=model_config.num_key_value_heads,
                head_dim=head_dim(model_config),
                gate_dim=self.gate_dim,
                block_size=self.block_size,
                rope=rope,
                q_pooling=self.q_pooling,
                k_pooling=self.k_pooling,
                two_projections=self.two_projections,
                device=device,
            )
            if layer in layers
            else None
            for layer in range(model_config.num_hidden_layers)
        )


def poolings(name: object, option: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``Qavg_Kmaxminavg`` -> ``("avg",)``, ``("max", "min", "avg")``.

    Raises:
        ConfigError: not of this form.
    """
    one = f"(?:{'|'.join(POOLS)})"
    match = re.fullmatch(f"Q({one}+)_K({one}+)", str(name))
    if match is None:
        raise ConfigError(
            f"{option}: {TYPE}={name}: must be Q, _K and behind each some of {', '.join(POOLS)}, such as "
            "Qavg_Kmaxminavg"
        )
    q, k = (tuple(re.findall(one, part)) for part in match.groups())
    return q, k


def load_prefill_gates(
    source: str,
    model_config: PreTrainedConfig,
    block_size: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[PrefillGate | None, ...]:
    """Prefill gates of a model, one per layer; see ``checkpoints.built``.

    Args:
        source: a folder, a ``.pth`` or ``.safetensors`` file with ``config.json`` beside it, or a hub id.

    Raises:
        ConfigError: says what is missing or differs.
    """
    option = f"model.prefill_gates={source}"
    file = find_gates(source, option, PREFILL_GATES)
    settings, data = read_prefill_config(file.parent / "config.json", option)
    weights = read_weights(file, option)
    return built(settings, data, file, weights, option, model_config, block_size, dtype, device)


def read_prefill_config(file: Path, option: str) -> tuple[PrefillGateConfig, dict[str, Any]]:
    """The gates' settings, and all of the file.

    Raises:
        ConfigError: no JSON, or no prefill gates'.
    """
    data = read_json(file, option)
    if TYPE not in data:
        raise ConfigError(
            f"{option}: its config.json does not describe prefill gates (no {TYPE}); gates for decoding are "
            "model.gates"
        )
    return PrefillGateConfig.parse(data, option), data


def read_prefill_settings(source: str) -> PrefillGateConfig:
    """The settings of prefill gates, without their weights.

    Raises:
        ConfigError: there are none.
    """
    option = f"model.prefill_gates={source}"
    return read_prefill_config(find_gates(source, option, PREFILL_GATES).parent / "config.json", option)[0]


def init_prefill_gates(
    model_config: PreTrainedConfig,
    config: PrefillGateConfig,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[PrefillGate | None, ...]:
    """Random gates; see ``checkpoints.drawn``."""
    return drawn(config, model_config, seed, device)


def allocate_prefill_gates(source: str, folder: Path | str, allocation: str) -> Path:
    """The same gates, and how their heads share a density.

    Args:
        source: as in ``load_prefill_gates``.
        folder: made if it is not there.
        allocation: see ``allocation.allocation_text``.

    Returns:
        The folder.
    """
    weights, folder = find_gates(source, f"model.prefill_gates={source}", PREFILL_GATES), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (weights, weights.parent / "config.json"):
        shutil.copyfile(file, folder / file.name)
    (folder / ALLOCATION).write_text(allocation, encoding="utf-8")
    return folder


def save_prefill_gates(
    folder: Path | str,
    gates: Sequence[PrefillGate | None],
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
        pth: the released format; else ours.

    Returns:
        The folder.
    """
    folder, settings = Path(folder), PrefillGateConfig.of(gates)
    folder.mkdir(parents=True, exist_ok=True)
    data = base_config(model_config, base_model) | {
        TYPE: settings.type,
        SIZE: settings.block_size,
        WIDTH: settings.gate_dim,
        DOUBLE: settings.two_projections,
    }
    if settings.layers is not None:
        data[LAYERS] = list(settings.layers)
    text = json.dumps(data, indent=2, sort_keys=True, default=str)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return write_gates(folder, gates, pth)
