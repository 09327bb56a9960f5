"""A rank's part of a model: KV heads with their query heads, and some channels of every MLP and expert
(Megatron-LM, arXiv 1909.08053). Embeddings, norms, routers and ``lm_head`` are whole on every rank."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from seer_ray.config.errors import ConfigError
from seer_ray.models.families import family_of
from seer_ray.models.gate import AttnGate
from seer_ray.models.group import Group
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.projection import RowParallel

SIZES = (
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)
"""What is divided among the ranks, as Hugging Face configs name it."""
OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "w1", "w3")
"""Layers of which a rank has some outputs, as checkpoints name them; Mixtral's experts have numbers."""
INPUTS = ("o_proj", "down_proj", "w2")
"""Of which it has some inputs."""


def check_shards(config: Any, ranks: int) -> None:
    """That a model can be cut for so many ranks.

    Raises:
        ConfigError: it cannot.
    """
    if ranks > 1 and family_of(config).hosted:
        raise ConfigError(
            f"engine.tensor_parallel={ranks}: model type {config.model_type} runs with its own layers, "
            "which are not divided among ranks; set engine.tensor_parallel=1"
        )
    for name in SIZES:
        if (size := getattr(config, name, None) or 0) % ranks:
            raise ConfigError(f"engine.tensor_parallel={ranks}: must divide the model's {name}={size}")


def shard_model(model: Any, group: Group) -> None:
    """Keeps the rank's part of a supported model's layers, in place."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("q_proj", "k_proj", "v_proj"):
            _keep_outputs(getattr(attention, name), group)
        _keep_inputs(attention.o_proj, group)
        if hasattr(mlp, "experts"):
            _keep_experts(mlp.experts, group)
        else:
            _keep_mlp(mlp, group)
        if hasattr(mlp, "shared_expert"):
            _keep_mlp(mlp.shared_expert, group)
    join_ranks(model, group)


def join_ranks(model: Any, group: Group) -> None:
    """Adds up what the ranks compute with their parts of a model, in place."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        attention.o_proj = RowParallel(attention.o_proj, group)
        if hasattr(mlp, "experts"):
            mlp.experts.register_forward_hook(lambda module, inputs, output: group.total(output))
        else:
            mlp.down_proj = RowParallel(mlp.down_proj, group)
        if hasattr(mlp, "shared_expert"):
            mlp.shared_expert.down_proj = RowParallel(mlp.shared_expert.down_proj, group)


def part_config(config: Any, group: Group) -> Any:
    """That of a model which is the rank's part."""
    part = copy.deepcopy(config)
    part.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for name in ("num_attention_heads", *SIZES):
        if getattr(config, name, None):
            setattr(part, name, getattr(config, name) // group.size)
    return part


def read_parts(files: Iterable[Path], group: Group) -> dict[str, torch.Tensor]:
    """The rank's part of the weights in safetensors files: of those that are cut, the rest is never read."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, no mapping
                whole, dim = opened.get_slice(name), _cut_along(name)
                if dim is None:
                    tensors[name] = whole[:]
                elif name.endswith("experts.gate_up_proj"):  # gate before up
                    half = whole.get_shape()[dim] // 2
                    parts = [_sliced(whole, dim, first, half, group) for first in (0, half)]
                    tensors[name] = torch.cat(parts, dim)
                else:
                    tensors[name] = _sliced(whole, dim, 0, whole.get_shape()[dim], group)
    return tensors


def _cut_along(name: str) -> int | None:
    """The dimension along which a stored weight is divided; None: every rank has all of it."""
    owner, _, kind = name.rpartition(".")
    if name.endswith("experts.gate_up_proj"):
        return 1
    if name.endswith("experts.down_proj"):
        return 2
    last = owner.rpartition(".")[2]
    if last in OUTPUTS:
        return 0
    return 1 if last in INPUTS and kind == "weight" else None


def _sliced(whole: Any, dim: int, first: int, size: int, group: Group) -> torch.Tensor:
    """Of ``size`` entries from ``first`` on."""
    step = size // group.size
    start = first + group.rank * step
    return whole[(*[slice(None)] * dim, slice(start, start + step))]


def shard_gates(gates: Iterable[AttnGate | PrefillGate | None], group: Group) -> None:
    """Keeps the rank's KV heads of each gate, in place."""
    for gate in gates:
        if gate is None:
            continue
        gate.num_query_heads //= group.size
        gate.num_kv_heads //= group.size
        if isinstance(gate, AttnGate) and gate.temperature is not None:
            gate.temperature = gate.temperature[group.rank * gate.num_kv_heads :][: gate.num_kv_heads]
        for name, weight in gate.named_parameters():
            if "norm" not in name:
                weight.data = _part(weight.data, 0, group)


def _keep_outputs(linear: nn.Linear, group: Group) -> None:
    for parameter in linear.parameters():  # weight [outputs, inputs], bias [outputs]
        parameter.data = _part(parameter.data, 0, group)
    linear.out_features //= group.size


def _keep_inputs(linear: nn.Linear, group: Group) -> None:
    linear.weight.data = _part(linear.weight.data, 1, group)
    linear.in_features //= group.size


def _keep_mlp(mlp: Any, group: Group) -> None:
    for name in ("gate_proj", "up_proj"):  # arcee has no gate
        if hasattr(mlp, name):
            _keep_outputs(getattr(mlp, name), group)
    _keep_inputs(mlp.down_proj, group)


def _keep_experts(experts: Any, group: Group) -> None:
    """Weights ``[experts, 2 * channels, hidden]``, gate before up, and ``[experts, hidden, channels]``."""
    halves = experts.gate_up_proj.data.chunk(2, dim=1)
    experts.gate_up_proj.data = torch.cat([_part(half, 1, group) for half in halves], dim=1)
    experts.down_proj.data = _part(experts.down_proj.data, 2, group)
    experts.intermediate_dim //= group.size


def _part(tensor: torch.Tensor, dim: int, group: Group) -> torch.Tensor:
    return tensor.chunk(group.size, dim)[group.rank].clone()  # the rest is to be freed
