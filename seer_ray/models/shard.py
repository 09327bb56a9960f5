"""A rank's part of a model: whole KV heads with their query heads, and a share of the MLP (Megatron-LM,
arXiv 1909.08053). Embeddings, norms and ``lm_head`` are whole on every rank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from seer_ray.config import ConfigError
from seer_ray.models.architecture import is_mixture
from seer_ray.models.gate import AttnGate
from seer_ray.models.group import Group
from seer_ray.models.linear import RowParallel


def check_shards(config: Any, ranks: int) -> None:
    """That a model can be cut for so many ranks.

    Raises:
        ConfigError: it cannot.
    """
    if ranks == 1:
        return
    option = f"engine.tensor_parallel={ranks}"
    if is_mixture(config):
        raise ConfigError(
            f"{option}: {config.model_type} is a mixture of experts, which stays whole; set it to 1"
        )
    for size, what in (
        (config.num_key_value_heads, "KV heads"),
        (config.intermediate_size, "channels in its MLP"),
    ):
        if size % ranks:
            raise ConfigError(f"{option}: must divide what the model has, {size} {what}")


def shard_model(model: Any, group: Group) -> None:
    """Keeps the rank's part of a supported model's layers, in place."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for owner, names in ((attention, ("q_proj", "k_proj", "v_proj")), (mlp, ("gate_proj", "up_proj"))):
            for name in names:
                if hasattr(owner, name):
                    _keep_outputs(getattr(owner, name), group)
        attention.o_proj = RowParallel(attention.o_proj, group)
        mlp.down_proj = RowParallel(mlp.down_proj, group)


def shard_gates(gates: Iterable[AttnGate | None], group: Group) -> None:
    """Keeps the rank's KV heads of each gate, in place."""
    for gate in filter(None, gates):
        gate.num_query_heads //= group.size
        gate.num_kv_heads //= group.size
        for name, weight in gate.named_parameters():
            if "norm" not in name:
                weight.data = weight.data.chunk(group.size)[group.rank].clone()


def _keep_outputs(linear: nn.Linear, group: Group) -> None:
    for parameter in linear.parameters():  # weight [outputs, inputs], bias [outputs]
        parameter.data = parameter.data.chunk(group.size)[group.rank].clone()
    linear.out_features //= group.size
