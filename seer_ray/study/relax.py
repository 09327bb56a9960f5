"""What a relaxed layer's attention map is: each relaxation of ``config.study`` by its definition.

After Xue et al. (2025), "Deconstructing Attention", as far as it suits weights that were trained otherwise.
RoPE is kept wherever there is a product of queries and keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 256
"""Rows of a map that are held at a time."""


@dataclass(frozen=True)
class Asked:
    """Queries and keys of a document in a layer.

    Attributes:
        q: rotated, ``[tokens, q_heads, head_dim]``.
        k: rotated, ``[tokens, kv_heads, head_dim]``.
        scale: of the logits.
        sinks: see ``kernels.attend``.
        window: tokens that ``window`` looks back, its own included.
        first: first tokens that ``window`` sees too.
    """

    q: Tensor
    k: Tensor
    scale: float
    sinks: Tensor | None = None
    window: int = 1
    first: int = 0

    def logits(self, rows: Tensor) -> Tensor:
        """Of all keys, ``[q_heads, rows, tokens]``, in fp32 at least."""
        wide = torch.promote_types(self.q.dtype, torch.float32)
        k = self.k.repeat_interleave(self.q.shape[1] // self.k.shape[1], 1)
        return torch.einsum("rhd,thd->hrt", self.q[rows].to(wide), k.to(wide)) * self.scale

    def softmax(self, rows: Tensor, seen: Tensor) -> Tensor:
        """Over what is ``seen [rows, tokens]``, and what sinks take."""
        logits = self.logits(rows).masked_fill(~seen, -math.inf)
        if self.sinks is None:
            return logits.softmax(-1)
        sink = self.sinks.to(logits.dtype).view(-1, 1, 1).expand(-1, len(rows), 1)
        return torch.cat([logits, sink], -1).softmax(-1)[..., :-1]


def past(asked: Asked, rows: Tensor) -> Tensor:
    """What a causal layer sees, ``[rows, tokens]``."""
    return torch.arange(len(asked.k), device=rows.device) <= rows.unsqueeze(1)


def dense(asked: Asked, rows: Tensor) -> Tensor:
    """The layer's own map. ``static``, ``fixed`` and ``random`` are it, of other queries and keys."""
    return asked.softmax(rows, past(asked, rows))


def itself(asked: Asked, rows: Tensor) -> Tensor:
    one = torch.arange(len(asked.k), device=rows.device) == rows.unsqueeze(1)
    return one.to(torch.float32).expand(asked.q.shape[1], -1, -1)


def uniform(asked: Asked, rows: Tensor) -> Tensor:
    seen = past(asked, rows).to(torch.float32)
    return (seen / (rows + 1).unsqueeze(1)).expand(asked.q.shape[1], -1, -1)


def window(asked: Asked, rows: Tensor) -> Tensor:
    token = torch.arange(len(asked.k), device=rows.device)
    near = token > rows.unsqueeze(1) - asked.window
    return asked.softmax(rows, past(asked, rows) & (near | (token < asked.first)))


def taylor(asked: Asked, rows: Tensor) -> Tensor:
    x = asked.logits(rows)
    terms = (1 + x + x.square() / 2) * past(asked, rows)
    return terms / terms.sum(-1, keepdim=True)


MAPS: dict[str, Callable[[Asked, Tensor], Tensor]] = {
    "dense": dense,
    "self": itself,
    "uniform": uniform,
    "window": window,
    "taylor": taylor,
    "static": dense,
    "fixed": dense,
    "random": dense,
}
"""(queries and keys, positions of the rows ``[rows]``) -> map ``[q_heads, rows, tokens]``. The others of
``config.study.RELAXATIONS`` have no map of tokens."""


def mix(kind: str, asked: Asked, v: Tensor) -> Tensor:
    """What a relaxed layer makes of ``v [tokens, kv_heads, head_dim]``: ``[tokens, q_heads, head_dim]``."""
    values = v.repeat_interleave(asked.q.shape[1] // v.shape[1], 1)
    if kind == "self":  # without a map as large as the document squared
        return values
    tokens = torch.arange(len(v), device=v.device)
    parts = [
        torch.einsum("hrt,thd->rhd", weights, values.to(weights.dtype))
        for rows in tokens.split(ROWS)
        for weights in (MAPS[kind](asked, rows),)
    ]
    return torch.cat(parts).to(v.dtype)
