"""Rotary position embedding as tables: the model's own, for its head dim or for another (the gate's)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from seer_ray.config.errors import ConfigError
from seer_ray.kernels.rotary import rotate

SUPPORTED = ("default", "linear", "llama3", "yarn", "longrope")
"""RoPE types whose frequencies are the same at every sequence length, LongRoPE where its factors are."""


class RopeTable(nn.Module):
    """cos and sin of position times frequency, in float32, rotate-half form, attention scaling folded in.

    Angles are computed in the dtype of ``inv_freq``: in float32 the tables are bit for bit the model's own,
    in float64 they are right at any position. No parameters, nothing in the state dict; follows
    ``.to(device)`` and ignores ``.to(dtype)``.

    Attributes:
        dim: channels that are turned.
        scaling: factor in cos and sin (yarn's attention factor; 1 elsewhere).
        positions: rows of the tables; 0: no tables, ``at`` computes the same bits at each call.
        cos, sin: ``[positions, dim]``.
    """

    inv_freq: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, inv_freq: Tensor, scaling: float = 1.0, positions: int = 0) -> None:
        """``inv_freq``: angle per position, ``[dim / 2]``."""
        super().__init__()
        self.dim = 2 * inv_freq.shape[0]
        self.scaling = float(scaling)
        self.positions = positions
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        cos, sin = self._angles(torch.arange(positions, device=inv_freq.device))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> RopeTable:
        """With these tables, ``[positions, dim]``."""
        table = cls(torch.zeros(cos.shape[1] // 2, device=cos.device))
        table.positions, table.cos, table.sin = cos.shape[0], cos.float(), sin.float()
        return table

    @classmethod
    def from_theta(
        cls, theta: float, dim: int, positions: int = 0, dtype: torch.dtype = torch.float32
    ) -> RopeTable:
        """Plain RoPE with base ``theta`` over ``dim`` channels, angles in ``dtype``."""
        return cls(1.0 / (theta ** (torch.arange(0, dim, 2, dtype=dtype) / dim)), 1.0, positions)

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        positions: int = 0,
        *,
        dim: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> RopeTable:
        """The RoPE of a model: its theta and scaling, over its head dim or over ``dim`` channels.

        Args:
            config: of the model.
            positions, dtype: see the class.
            dim: channels; None: the head dim.
            device: where the tables go.

        Raises:
            ConfigError: the model's RoPE depends on the sequence length, differs between layers, or turns
                only part of the head.
        """
        parameters = rope_parameters(config, whole=dim is None)
        dim = dim or head_dim(config)
        if parameters["rope_type"] == "default":
            return cls.from_theta(parameters["rope_theta"], dim, positions, dtype).to(device)
        if parameters["rope_type"] == "longrope" and dim != head_dim(config):
            raise ConfigError(
                f"model type {config.model_type}: rope_type=longrope has factors for {head_dim(config)}"
                f" channels, not for {dim}"
            )
        sized = copy.deepcopy(config)
        sized.head_dim = dim
        sized.rope_parameters = parameters | {"partial_rotary_factor": 1.0}
        inv_freq, scaling = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](sized, torch.device("cpu"))
        return cls(inv_freq.to(dtype), scaling, positions).to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin at integer ``positions [...]``: fp32 ``[..., dim]`` each."""
        if self.positions:
            return self.cos[positions], self.sin[positions]
        return self._angles(positions)

    def tabled(self, positions: int) -> RopeTable:
        """The same with tables: a lookup in place of some ten operations."""
        return RopeTable(self.inv_freq, self.scaling, positions)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x [..., heads, dim]`` turned by ``positions [...]``, in the dtype of ``x`` as the models do."""
        return rotate(x, *self.at(positions))

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        # Same operations in the same order as the models' rotary modules: the same bits.
        angles = positions[..., None].to(self.inv_freq.dtype) * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.scaling).float(), (angles.sin() * self.scaling).float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RopeTable:
        # Module.to(bfloat16) would round the angles of far positions to nonsense: take the device only.
        device = fn(torch.empty(0, device=self.inv_freq.device)).device
        return super()._apply(lambda tensor: tensor.to(device), recurse)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, positions={self.positions}, scaling={self.scaling}"


def still(positions: int, dim: int) -> RopeTable:
    """A table that turns nothing, for layers without RoPE."""
    return RopeTable.of(torch.ones(positions, dim), torch.zeros(positions, dim))


def head_dim(config: PreTrainedConfig) -> int:
    """Channels of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_parameters(config: PreTrainedConfig, whole: bool = True) -> dict[str, Any]:
    """``rope_type``, ``rope_theta`` and scaling of a model's full-attention layers, if tables can hold them.

    Args:
        config: of the model.
        whole: it is to be the RoPE of all layers, over the whole head.

    Raises:
        ConfigError: see ``RopeTable.from_config``.
    """
    *others, parameters = ropes(config)
    if "rope_theta" not in parameters or (whole and any(other != parameters for other in others)):
        raise ConfigError(f"model type {config.model_type}: its layers do not share one RoPE, not supported")
    kind = parameters.get("rope_type", "default")
    if kind not in SUPPORTED:
        raise ConfigError(
            f"model type {config.model_type}: rope_type={kind} is not supported; "
            f"it must be one of {', '.join(SUPPORTED)}, which are the same at every sequence length"
        )
    if kind == "longrope" and parameters.get("short_factor") != parameters.get("long_factor"):
        raise ConfigError(
            f"model type {config.model_type}: rope_type=longrope with other factors for long sequences than"
            " for short ones is not supported"
        )
    if whole and parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError(f"model type {config.model_type}: RoPE on only part of the head is not supported")
    return {**parameters, "rope_type": kind}


def ropes(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The parameters of each RoPE of a model, that of full-attention layers last; of one without, one that is
    empty."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "full_attention" not in parameters:
        return [parameters]
    return [*(p for name, p in parameters.items() if name != "full_attention"), parameters["full_attention"]]
