"""Outer products under decay: the memory of RetNet, GLA and HGRN-2, which does not grow.

For each head a state ``S [key_dim, value_dim]``; a token with log decay ``g`` does::

    S <- exp(g) S + k v^T          (g of the head, or of each channel of the key)
    out = S^T q

``recurrent`` is the definition, ``chunked`` the same in products of matrices (Yang et al. 2023,
arXiv:2312.06635), ``step`` one token of each row of a batch.

Shapes: q, k ``[batch, tokens, heads, key_dim]``, v ``[batch, tokens, heads, value_dim]``, g
``[batch, tokens, heads]`` or ``[batch, tokens, heads, key_dim]``. States are float32,
``[batch, heads, key_dim, value_dim]``.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

CHUNK = 64
CHANNEL_CHUNK = 16
"""Where channels decay on their own: q and k are scaled by what is left at the middle of a chunk, and float32
holds that for so many tokens of the fastest decay."""
FASTEST = -5.0
"""Smallest log decay of a channel."""


def recurrent(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token.

    Returns:
        ``[batch, tokens, heads, value_dim]`` in the dtype of v, and the state after the last token.
    """
    outs = []
    for t in range(v.shape[1]):
        now = [x[:, t].float() for x in (q, k, v, g)]
        out, state = _advance(now[0], now[1], now[2], now[3], state)
        outs.append(out)
    return torch.stack(outs, dim=1).to(v.dtype), state


def chunked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    state: torch.Tensor | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``recurrent``, so many tokens at a time.

    Args:
        q, k, v, g: see the module; g of a channel is ``FASTEST`` at least.
        state: None: nothing came before.
        chunk: tokens; of channels that decay on their own ``CHANNEL_CHUNK`` at most.
    """
    dtype, tokens, channels = v.dtype, v.shape[1], g.dim() == 4
    size = min(chunk or (CHANNEL_CHUNK if channels else CHUNK), tokens)
    q, k, v, g = (_chunks(x.float(), size) for x in (q, k, v, g if channels else g.unsqueeze(-1)))
    total = g.cumsum(-2)
    last = total[..., -1:, :]
    if channels:
        middle = last / 2
        scores = (q * (total - middle).exp()) @ (k * (middle - total).exp()).mT
    else:
        # What lies above the diagonal could overflow.
        scores = (q @ k.mT) * (total - total.mT).tril().exp()
    out = scores.tril() @ v
    added, left = (k * (last - total).exp()).mT @ v, last.exp().mT
    before = []
    if state is None:
        state = torch.zeros_like(added[:, :, 0])
    for index in range(added.shape[2]):
        before.append(state)
        state = state * left[:, :, index] + added[:, :, index]
    out = out + (q * total.exp()) @ torch.stack(before, dim=2)
    return out.flatten(2, 3)[:, :, :tokens].transpose(1, 2).to(dtype), state


def step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """One token of each row.

    Args:
        q, k, v, g: without the axis of tokens, ``[rows, ...]``.
        states: of all sequences; the rows' are changed in place.
        slots: of the rows, ``[rows]``.

    Returns:
        ``[rows, heads, value_dim]`` in the dtype of v.
    """
    out, states[slots] = _advance(q.float(), k.float(), v.float(), g.float(), states[slots])
    return out.to(v.dtype)


def _advance(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    left = (g if g.dim() == 3 else g.unsqueeze(-1)).exp().unsqueeze(-1)
    state = state * left + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (state * q.unsqueeze(-1)).sum(-2), state


def _chunks(x: torch.Tensor, size: int) -> torch.Tensor:
    """``[batch, tokens, heads, dim]`` -> ``[batch, heads, chunks, size, dim]``, zeros behind the last."""
    x = pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % size))
    return x.unflatten(2, (-1, size))
