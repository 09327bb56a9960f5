"""A rank's part of a model: KV heads with their query heads, and some channels of every MLP and expert
(Megatron-LM, arXiv 1909.08053). Embeddings, norms, routers and ``lm_head`` are whole on every rank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
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
        attention.o_proj = RowParallel(attention.o_proj, group)
        if hasattr(mlp, "experts"):
            _keep_experts(mlp.experts, group)
        else:
            _keep_mlp(mlp, group)
        if hasattr(mlp, "shared_expert"):
            _keep_mlp(mlp.shared_expert, group)


def shard_gates(gates: Iterable[AttnGate | PrefillGate | None], group: Group) -> None:
    """Keeps the rank's KV heads of each gate, in place."""
    for gate in gates:
        if gate is None:
            continue
        gate.num_query_heads //= group.size
        gate.num_kv_heads //= group.size
        for name, weight in gate.named_parameters():
            if "norm" not in name:
                weight.data = _part(weight.data, 0, group)


def _keep_outputs(linear: nn.Linear, group: Group) -> None:
    for parameter in linear.parameters():  # weight [outputs, inputs], bias [outputs]
        parameter.data = _part(parameter.data, 0, group)
    linear.out_features //= group.size


def _keep_mlp(mlp: Any, group: Group) -> None:
    for name in ("gate_proj", "up_proj"):  # arcee has no gate
        if hasattr(mlp, name):
            _keep_outputs(getattr(mlp, name), group)
    mlp.down_proj = RowParallel(mlp.down_proj, group)


def _keep_experts(experts: Any, group: Group) -> None:
    """Weights ``[experts, 2 * channels, hidden]``, gate before up, and ``[experts, hidden, channels]``."""
    halves = experts.gate_up_proj.data.chunk(2, dim=1)
    experts.gate_up_proj.data = torch.cat([_part(half, 1, group) for half in halves], dim=1)
    experts.down_proj.data = _part(experts.down_proj.data, 2, group)
    experts.intermediate_dim //= group.size
    experts.register_forward_hook(lambda module, inputs, output: group.total(output))


def _part(tensor: torch.Tensor, dim: int, group: Group) -> torch.Tensor:
    return tensor.chunk(group.size, dim)[group.rank].clone()  # the rest is to be freed
