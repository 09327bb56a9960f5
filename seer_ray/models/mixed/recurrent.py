"""Mixers with a state of fixed size, those of Wang, Zhu et al. 2025 (arXiv:2507.06457).

Five are outer products, one frame: q, k and v, an RMSNorm of each head's output, and on it a gate
``silu(W_g x)``.

- ``retnet``: a fixed decay for each head, ``1 - 2^(-5 - h)``; rotary embeddings on q and k.
- ``gla``: a decay for each channel of the key, ``sigmoid(W x)^(1/16)``, W of rank 16.
- ``hgrn2``: a decay f for each channel, ``l + (1 - l) sigmoid(W x)``, and k = 1 - f; q through silu.
- ``deltanet``: no decay, the delta rule with strength ``sigmoid(W_b x)``; q, k and v through silu, q and k
  normalised.
- ``gated_deltanet``: the same with a decay for each head, ``exp(-a softplus(W_a x + b))``.

``hgrn`` is a recurrence of vectors: f as in hgrn2 for each channel, ``h <- f h + (1 - f) W_v x``, and the
same norm and gate. The lower bound l grows with depth: layer i of n has i / n, and e^-5 at least; the papers
learn it. A short convolution is of q, k and v, or of what there is of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu, softplus

from seer_ray.kernels import decay, delta, vector
from seer_ray.kernels.rotary import rotate
from seer_ray.models.mixed.flow import Config, Flow, RMSNorm, ShortConv, heads, in_float32, in_slots
from seer_ray.models.mixed.sizes import GLA_RANK, value_dim, vector_width
from seer_ray.models.projection import project
from seer_ray.models.recurrence import Held

GLA_POWER = 16


class Kind(NamedTuple):
    """Of outer products."""

    decay: str = ""
    """``fixed``, ``head``, ``channel``, ``tied`` (and k = 1 - f); none: nothing decays."""
    delta: bool = False
    rope: bool = False


OUTER = {
    "retnet": Kind("fixed", rope=True),
    "gla": Kind("channel"),
    "hgrn2": Kind("tied"),
    "deltanet": Kind(delta=True),
    "gated_deltanet": Kind("head", delta=True),
}


def lower_bound(layer: int, layers: int) -> float:
    """Of the forget gates of HGRN and HGRN-2."""
    return max(layer / layers, math.exp(decay.FASTEST))


class OuterMixer(nn.Module):
    """Of one layer: see the module.

    Args:
        config: of the model.
        layer: its index.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.kind = layer, OUTER[config.mixers[layer]]
        self.heads, self.key_dim = config.num_attention_heads, config.state_dim
        self.value_dim = value_dim(config, config.mixers[layer])
        self.bound = lower_bound(layer, config.num_hidden_layers)
        width, keys, values = config.hidden_size, self.heads * self.key_dim, self.heads * self.value_dim
        self.keys, self.values, tied = keys, values, self.kind.decay == "tied"
        self.sizes = (keys, values) if tied else (keys, keys, values)
        self.q_proj, self.v_proj = nn.Linear(width, keys, bias=False), nn.Linear(width, values, bias=False)
        if tied:
            self.f_proj = nn.Linear(width, keys, bias=False)
        else:
            self.k_proj = nn.Linear(width, keys, bias=False)
        self.g_proj = nn.Linear(width, values, bias=False)
        self.o_norm = RMSNorm(self.value_dim, config.rms_norm_eps)
        self.o_proj = nn.Linear(values, width, bias=False)
        if self.kind.decay == "channel":
            self.f_down = nn.Linear(width, GLA_RANK, bias=False)
            self.f_up = nn.Linear(GLA_RANK, keys)
        if self.kind.decay == "head":
            self.a_proj = nn.Linear(width, self.heads, bias=False)
            # As Mamba-2 begins: decays from slow to fast, time steps from 0.001 to 0.1.
            self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
            dt = torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        if self.kind.delta:
            self.b_proj = nn.Linear(width, self.heads, bias=False)
        if config.conv:
            self.conv = ShortConv(layer, sum(self.sizes), config.conv)

    def forward(self, x: Tensor, source: Tensor, flow: Flow) -> Tensor:
        """Like x ``[tokens, hidden]``."""
        kind = self.kind
        inputs = (
            [self.q_proj, self.v_proj] if kind.decay == "tied" else [self.q_proj, self.k_proj, self.v_proj]
        )
        *made, gate = project(x, *inputs, self.g_proj)
        if hasattr(self, "conv"):
            made = list(self.conv(torch.cat(made, dim=-1), flow).split(self.sizes, dim=-1))
        elif kind.delta:
            made = [silu(part) for part in made]
        q, v = made[0], made[-1]
        if kind.decay == "tied":
            f = self.bound + (1 - self.bound) * torch.sigmoid(project(x, self.f_proj)[0].float())
            q, k = (q if hasattr(self, "conv") else silu(q)), (1 - f).to(q.dtype)
            g: Tensor | None = f.log()
        else:
            k, g = made[1], self._log_decay(x)
        if not kind.delta:
            q = q * self.key_dim**-0.5
        if kind.rope:
            cos_sin = flow.rotary(self.key_dim)
            q, k = (rotate(heads(part, self.key_dim), *cos_sin).flatten(1) for part in (q, k))
        packed = [q, k, v, *([] if g is None else [g])]
        if kind.delta:
            packed.append(torch.sigmoid(project(x, self.b_proj)[0]))
        wide = torch.cat([part.float() for part in packed], dim=-1)
        out = heads(flow.step.recur(self.layer, wide, self._run), self.value_dim).to(x.dtype)
        return project(self.o_norm(out).flatten(1) * silu(gate), self.o_proj)[0]

    def states(self, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """See ``AttentionMixer``."""
        shape = self.heads, self.key_dim, self.value_dim
        return _conv_state(self, like), like.new_zeros(1, *shape, dtype=torch.float32)

    def _log_decay(self, x: Tensor) -> Tensor | None:
        """``[tokens, heads]`` or ``[tokens, keys]``; None: it does not depend on the tokens."""
        if self.kind.decay == "channel":
            made = project(project(x, self.f_down)[0], self.f_up)[0]
            return (logsigmoid(made.float()) / GLA_POWER).clamp_min(decay.FASTEST)
        if self.kind.decay == "head":
            time = softplus(project(x, self.a_proj)[0].float() + self.dt_bias.float())
            return -self.A_log.float().exp() * time
        return None

    @in_float32
    def _run(self, x: Tensor, held: Held) -> Tensor:
        """``x [sequences, tokens, ...]``: q, k, v, log decays, strengths."""
        widths = [self.keys, self.keys, self.values]
        per_channel = self.kind.decay in ("channel", "tied")
        if per_channel:
            widths.append(self.keys)
        elif self.kind.decay == "head":
            widths.append(self.heads)
        if self.kind.delta:
            widths.append(self.heads)
        q, k, v, *rest = x.split(widths, dim=-1)
        q, k, v = heads(q, self.key_dim), heads(k, self.key_dim), heads(v, self.value_dim)
        if self.kind.decay == "fixed":
            g = torch.log1p(-(2.0 ** (-5 - torch.arange(self.heads, device=x.device))))
            g = g.expand(*x.shape[:2], -1)
        elif self.kind.decay:
            g = heads(rest[0], self.key_dim) if per_channel else rest[0]
        else:
            g = x.new_zeros(*x.shape[:2], self.heads)
        slots = in_slots(held) if x.shape[1] == 1 else None
        if self.kind.delta:
            b = rest[-1]
            if slots is not None:
                one = delta.step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], b[:, 0], *slots)
                return one.flatten(1).unsqueeze(1)
            state = held.take()[1]
            if state is None:
                state = x.new_zeros(len(x), self.heads, self.key_dim, self.value_dim)
            out, after = delta.chunked(q, k, v, g, b, state)
        else:
            if slots is not None:
                return decay.step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], *slots).flatten(1).unsqueeze(1)
            out, after = decay.chunked(q, k, v, g, held.take()[1])
        held.put((None, after))
        return out.flatten(2)


class VectorMixer(nn.Module):
    """HGRN of one layer: see the module, and ``OuterMixer``."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, width, self.inner = layer, config.hidden_size, vector_width(config)
        self.bound = lower_bound(layer, config.num_hidden_layers)
        self.f_proj, self.v_proj, self.g_proj = (nn.Linear(width, self.inner, bias=False) for _ in range(3))
        self.o_norm = RMSNorm(self.inner, config.rms_norm_eps)
        self.o_proj = nn.Linear(self.inner, width, bias=False)
        if config.conv:
            self.conv = ShortConv(layer, self.inner, config.conv)

    def forward(self, x: Tensor, source: Tensor, flow: Flow) -> Tensor:
        """Like x ``[tokens, hidden]``."""
        f, v, gate = project(x, self.f_proj, self.v_proj, self.g_proj)
        if hasattr(self, "conv"):
            v = self.conv(v, flow)
        f = self.bound + (1 - self.bound) * torch.sigmoid(f.float())
        out = flow.step.recur(self.layer, torch.cat((f, v.float()), dim=-1), self._run)
        return project(self.o_norm(out.to(x.dtype)) * silu(gate), self.o_proj)[0]

    def states(self, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """See ``AttentionMixer``."""
        return _conv_state(self, like), like.new_zeros(1, self.inner, dtype=torch.float32)

    @in_float32
    def _run(self, x: Tensor, held: Held) -> Tensor:
        f, v = x.chunk(2, dim=-1)
        if x.shape[1] == 1 and (slots := in_slots(held)) is not None:
            return vector.step(f[:, 0], v[:, 0], *slots).unsqueeze(1)
        out, after = vector.chunked(f, v, held.take()[1])
        held.put((None, after))
        return out


def _conv_state(mixer: nn.Module, like: Tensor) -> Tensor | None:
    conv = getattr(mixer, "conv", None)
    return like.new_zeros(1, *conv.weight.shape) if conv is not None else None
