"""A mean of all values so far, weighted by a score of each token alone: attention without a query.

Of a token t, over all j up to t: ``out = sum exp(s_j) v_j / sum exp(s_j)`` ("Non-approximate" of Xue et al.
2025, arXiv:2510.11602). A state is that mean, the logarithm of its weight, and whether there was any token:
``[batch, heads, dim + 2]``, float32. ``recurrent`` is the definition, ``chunked`` the same with a product of
matrices, ``step`` one token of each row of a batch.

Shapes: scores ``[batch, tokens, heads]``, values ``[batch, tokens, heads, dim]``.
"""

from __future__ import annotations

import torch

CHUNK = 128


def recurrent(
    scores: torch.Tensor, values: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token: like ``values``, and the state after the last token."""
    outs = []
    for t in range(values.shape[1]):
        state = _advance(scores[:, t], values[:, t], state)
        outs.append(state[..., :-2])
    return torch.stack(outs, dim=1).to(values.dtype), state


def chunked(
    scores: torch.Tensor, values: torch.Tensor, state: torch.Tensor | None = None, chunk: int = CHUNK
) -> tuple[torch.Tensor, torch.Tensor]:
    """``recurrent``, so many tokens at a time; ``state`` None: nothing came before. What came before is one
    more token, of its own score and value."""
    wide, outs = values.float().transpose(1, 2), []
    for s, v in zip(scores.float().transpose(1, 2).split(chunk, 2), wide.split(chunk, 2), strict=True):
        tokens = s.shape[-1]
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=s.device).triu(1)
        logits = s.unsqueeze(-2).expand(-1, -1, tokens, -1).masked_fill(future, -torch.inf)
        if state is not None:
            before = _weight(state).unsqueeze(-1).expand(-1, -1, tokens).unsqueeze(-1)
            logits = torch.cat((before, logits), dim=-1)
            v = torch.cat((state[..., :-2].unsqueeze(2), v), dim=2)
        out = logits.softmax(-1) @ v
        outs.append(out)
        weight = logits[..., -1, :].logsumexp(-1, keepdim=True)
        state = torch.cat((out[:, :, -1], weight, torch.ones_like(weight)), dim=-1)
    assert state is not None
    return torch.cat(outs, dim=2).transpose(1, 2).to(values.dtype), state


def step(
    scores: torch.Tensor, values: torch.Tensor, states: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """One token of each row, ``scores [rows, heads]``, ``values [rows, heads, dim]``; the rows' states are
    changed in place. Like ``values``."""
    state = states[slots] = _advance(scores, values, states[slots])
    return state[..., :-2].to(values.dtype)


def _advance(scores: torch.Tensor, values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """One token: ``scores [batch, heads]``, ``values [batch, heads, dim]``."""
    s, before = scores.float(), _weight(state)
    weight = torch.logaddexp(before, s)
    old, new = (before - weight).exp().unsqueeze(-1), (s - weight).exp().unsqueeze(-1)
    mean = old * state[..., :-2] + new * values.float()
    return torch.cat((mean, weight.unsqueeze(-1), torch.ones_like(new)), dim=-1)


def _weight(state: torch.Tensor) -> torch.Tensor:
    """Logarithm of that of all tokens so far, ``[batch, heads]``."""
    return state[..., -2].masked_fill(state[..., -1] == 0, -torch.inf)
