"""Attention whose exponential is its Taylor series to the second order: ``1 + x + x^2 / 2`` for ``x = q.k``.

("Approximate" of Xue et al. 2025, arXiv:2510.11602, after Based, Arora et al. 2024, arXiv:2402.18668.) The
three orders are normalised together. As the series is a product of features of q and k (1, each channel, each
pair of channels), a state of fixed size holds all that came before: ``[batch, heads, features, dim + 1]``,
float32, the last column for the denominator, ``features = 1 + d + d (d + 1) / 2``. ``recurrent`` is the
definition, ``chunked`` the same in products of matrices, ``step`` one token of each row of a batch.

Shapes: q, scaled, and k ``[batch, tokens, heads, d]``, v ``[batch, tokens, heads, dim]``.
"""

from __future__ import annotations

import torch

CHUNK = 64


def features(x: torch.Tensor) -> torch.Tensor:
    """``[..., d]`` -> ``[..., features]``, such that the product of two is the series of the product."""
    first, second = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    pairs = x[..., first] * x[..., second] * torch.where(first == second, 0.5**0.5, 1.0)
    return torch.cat((torch.ones_like(x[..., :1]), x, pairs), dim=-1)


def feature_count(dim: int) -> int:
    """Of q and k of so many channels."""
    return 1 + dim + dim * (dim + 1) // 2


def recurrent(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token: like v, and the state after the last token."""
    outs = []
    for t in range(v.shape[1]):
        out, state = _advance(q[:, t].float(), k[:, t].float(), v[:, t].float(), state)
        outs.append(out)
    return torch.stack(outs, dim=1).to(v.dtype), state


def parallel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """``recurrent`` of a whole sequence, at the square of its length and without a state."""
    q, k, wide = (x.float().transpose(1, 2) for x in (q, k, v))
    return _normalised(_weights(q, k) @ _with_ones(wide)).transpose(1, 2).to(v.dtype)


def chunked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, state: torch.Tensor, chunk: int = CHUNK
) -> tuple[torch.Tensor, torch.Tensor]:
    """``recurrent``, so many tokens at a time."""
    wide, outs = (x.float().transpose(1, 2).split(chunk, dim=2) for x in (q, k, v)), []
    for q_c, k_c, v_c in zip(*wide, strict=True):
        values = _with_ones(v_c)
        outs.append(_normalised(_weights(q_c, k_c) @ values + features(q_c) @ state))
        state = state + features(k_c).mT @ values
    return torch.cat(outs, dim=2).transpose(1, 2).to(v.dtype), state


def step(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, states: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """One token of each row, ``[rows, heads, ...]``; the rows' states are changed in place. Like v."""
    out, states[slots] = _advance(q.float(), k.float(), v.float(), states[slots])
    return out.to(v.dtype)


def _advance(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    state = state + features(k).unsqueeze(-1) * _with_ones(v).unsqueeze(-2)
    return _normalised((state * features(q).unsqueeze(-1)).sum(-2)), state


def _weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    x = q @ k.mT
    return (1 + x + x.square() / 2).tril()


def _with_ones(v: torch.Tensor) -> torch.Tensor:
    return torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)


def _normalised(sums: torch.Tensor) -> torch.Tensor:
    return sums[..., :-1] / sums[..., -1:]
