"""Attention, and its relaxations of Xue et al. 2025 (arXiv:2510.11602) that keep its projections.

- ``attention``, ``sliding``: softmax(q k / sqrt(d)), rotary embeddings.
- ``static``: q and k are made of the token's own embedding, normalised as the layer's input is.
- ``rndemb``, ``fixedseq``: q and k are made of a stream that does not depend on the input: fixed random
  vectors, or the embeddings of a fixed text, passed through the layers before. In that stream every layer of
  the two kinds attends by the stream's own q and k.
- ``approximate``: the exponential is its Taylor series, see ``kernels.taylor``; rotary embeddings.
- ``nonapproximate``: a mean of all values, weighted by ``silu(q_j) k_j / sqrt(d)`` of each token j alone, see
  ``kernels.pooling``; no position enters.

q and k are normalised before anything else where ``qk_norm`` says so. A short convolution is of q, k and v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from seer_ray.kernels import pooling, taylor
from seer_ray.kernels.rotary import rotate
from seer_ray.models.mixed.flow import Config, Flow, RMSNorm, ShortConv, heads, in_float32, in_slots
from seer_ray.models.projection import project
from seer_ray.models.recurrence import Held
from seer_ray.models.step import Attention

MAPPED = ("rndemb", "fixedseq")
"""Mixers whose q and k do not depend on the input."""


class AttentionMixer(nn.Module):
    """Of one layer.

    Args:
        config: of the model.
        layer: its index.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.kind, self.dim = layer, config.mixers[layer], config.head_dim
        width, queries = config.hidden_size, config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.groups, self.scale = config.num_attention_heads // config.num_key_value_heads, self.dim**-0.5
        self.sizes = (queries, keys, keys)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, size, bias=False) for size in self.sizes)
        self.o_proj = nn.Linear(queries, width, bias=False)
        if config.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(self.dim, config.rms_norm_eps) for _ in range(2))
        if config.conv:
            self.conv = ShortConv(layer, sum(self.sizes), config.conv)

    def forward(self, x: Tensor, source: Tensor, flow: Flow) -> Tensor:
        """Like x ``[tokens, hidden]``; ``source``: what q and k are made of."""
        if self.kind in MAPPED and flow.maps is not None:
            (v,) = project(x, self.v_proj)
            if hasattr(self, "conv"):
                v = self.conv(v, flow, slice(-self.sizes[2], None))
            q, k = (table[flow.step.position] for table in flow.maps[self.layer])
        else:
            q, k, v = self._projected(x, source, flow)
            q, k = self._normalised(q, k)
            if self.kind in MAPPED:
                flow.made[self.layer] = q, k
        mixed = self._mix(q, k, heads(v, self.dim), flow)
        return project(mixed.flatten(1), self.o_proj)[0]

    def states(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What it keeps of one sequence beside K and V, zeros; see ``models.recurrence``."""
        conv = None
        if hasattr(self, "conv"):
            channels = self.sizes[2] if self.kind in MAPPED else sum(self.sizes)
            conv = like.new_zeros(1, channels, self.conv.weight.shape[1])
        shapes = {
            "approximate": (taylor.feature_count(self.dim), self.dim + 1),
            "nonapproximate": (self.dim + 2,),
        }
        if (shape := shapes.get(self.kind)) is None:
            return conv, None
        count = self.sizes[0] // self.dim
        return conv, like.new_zeros(1, count, *shape, dtype=torch.float32)

    def _projected(self, x: Tensor, source: Tensor, flow: Flow) -> list[Tensor]:
        q, k = project(source, self.q_proj, self.k_proj)
        (v,) = project(x, self.v_proj)
        if hasattr(self, "conv"):
            q, k, v = self.conv(torch.cat((q, k, v), dim=-1), flow).split(self.sizes, dim=-1)
        return [q, k, v]

    def _normalised(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = heads(q, self.dim), heads(k, self.dim)
        return (self.q_norm(q), self.k_norm(k)) if hasattr(self, "q_norm") else (q, k)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, flow: Flow) -> Tensor:
        """``[tokens, heads, dim]`` each."""
        if self.kind not in ("approximate", "nonapproximate"):
            return flow.step.attend(self.layer, Attention(q, k, v, self.scale))
        if self.groups > 1:
            k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))
        if self.kind == "approximate":
            q, k = (rotate(x, *flow.rotary(self.dim)) for x in (q, k))
            packed = torch.cat((q * self.scale, k, v), dim=-1)
            return flow.step.recur(self.layer, packed.flatten(1), self._approximate).unflatten(
                -1, (-1, self.dim)
            )
        scores = self.scale * (silu(q) * k).sum(-1, keepdim=True)
        packed = torch.cat((scores, v), dim=-1)
        return flow.step.recur(self.layer, packed.flatten(1), self._pool).unflatten(-1, (-1, self.dim))

    @in_float32
    def _approximate(self, x: Tensor, held: Held) -> Tensor:
        q, k, v = x.unflatten(-1, (-1, 3 * self.dim)).chunk(3, dim=-1)
        if x.shape[1] == 1 and (slots := in_slots(held)) is not None:
            return taylor.step(q[:, 0], k[:, 0], v[:, 0], *slots).flatten(1).unsqueeze(1)
        if not held.keeps and x.shape[1] <= taylor.feature_count(self.dim):  # less work than by states
            return taylor.parallel(q, k, v).flatten(2)
        state = held.take()[1]
        if state is None:
            shape = q.shape[2], taylor.feature_count(self.dim), self.dim + 1
            state = x.new_zeros(len(x), *shape, dtype=torch.float32)
        out, state = taylor.chunked(q, k, v, state)
        held.put((None, state))
        return out.flatten(2)

    @in_float32
    def _pool(self, x: Tensor, held: Held) -> Tensor:
        scores, v = x.unflatten(-1, (-1, 1 + self.dim)).split((1, self.dim), dim=-1)
        if x.shape[1] == 1 and (slots := in_slots(held)) is not None:
            return pooling.step(scores[:, 0, :, 0], v[:, 0], *slots).flatten(1).unsqueeze(1)
        out, state = pooling.chunked(scores.squeeze(-1), v, held.take()[1])
        held.put((None, state))
        return out.flatten(2)
