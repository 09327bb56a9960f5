"""The gated delta rule, and the short convolution before it: layers whose memory does not grow.

For each head a state ``S [key_dim, value_dim]``; a token with decay ``a = exp(g)`` and strength ``b`` does::

    S <- a S
    S <- S + k (b (v - S^T k))^T
    out = S^T q / sqrt(key_dim)

with q and k normalised. ``recurrent`` is the definition, ``chunked`` the same for prompts, in products of
matrices. A decode step, ``step`` and ``convolve_step``, changes the states of its rows where they lie, in C++
on a CPU. On a GPU transformers takes the kernels of flash-linear-attention itself where they are installed.

Shapes: q, k ``[batch, tokens, key_heads, key_dim]``, v ``[batch, tokens, heads, value_dim]``, g and b
``[batch, tokens, heads]``; each head of q and k serves ``heads / key_heads`` in a row. States are float32,
``[batch, heads, key_dim, value_dim]``.
"""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from seer_ray.kernels import cpu

CHUNK = 64
EPS = 1e-6
"""Added to the squares of q and k before they are normalised."""


def recurrent(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, b: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token.

    Returns:
        ``[batch, tokens, heads, value_dim]`` in the dtype of v, and the state after the last token.
    """
    dtype = v.dtype
    q, k, v, g, b = _wide(q, k, v, g, b)
    out = torch.empty_like(v)
    for t in range(v.shape[2]):
        key = k[:, :, t].unsqueeze(-1)
        state = state * g[:, :, t].exp()[..., None, None]
        change = b[:, :, t].unsqueeze(-1) * (v[:, :, t] - (state * key).sum(-2))
        state = state + key * change.unsqueeze(-2)
        out[:, :, t] = (state * q[:, :, t].unsqueeze(-1)).sum(-2)
    return out.transpose(1, 2).to(dtype), state


def chunked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    b: torch.Tensor,
    state: torch.Tensor,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``recurrent``, so many tokens at a time: what each adds to the state depends on what those before it in
    the chunk added, a triangular system."""
    dtype, outs = v.dtype, []
    for q_c, k_c, v_c, g_c, b_c in zip(*(x.split(chunk, dim=2) for x in _wide(q, k, v, g, b)), strict=True):
        total = g_c.double().cumsum(-1)  # of which small differences are wanted
        # Of what a token added, as much is left at a later one. What lies above the diagonal could overflow.
        left = (total.unsqueeze(-1) - total.unsqueeze(-2)).float().tril().exp().tril()
        decayed, strength = total.float().exp().unsqueeze(-1), b_c.unsqueeze(-1)
        system = strength * (k_c @ k_c.mT) * left
        wanted = strength * (v_c - decayed * (k_c @ state))
        added = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
        outs.append(decayed * (q_c @ state) + ((q_c @ k_c.mT) * left) @ added)
        state = state * decayed[..., -1:, :] + (k_c * left[..., -1, :].unsqueeze(-1)).mT @ added
    return torch.cat(outs, dim=2).transpose(1, 2).to(dtype), state


def step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    b: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """One token of each row.

    Args:
        q, k, v, g, b: without the axis of tokens, ``[rows, ...]``.
        states: of all sequences, ``[slots, heads, key_dim, value_dim]``; the rows' are changed in place.
        slots: of the rows, ``[rows]``. Only rows of padding share one, and what they leave there is nobody's.

    Returns:
        ``[rows, heads, value_dim]`` in the dtype of v.
    """
    if cpu.takes_states(states, q, v, b):
        return cpu.delta_step(q, k, v, g, b, states, slots, EPS)
    q, k, v, g, b = (x.unsqueeze(1) for x in (q, k, v, g, b))
    out, states[slots] = recurrent(q, k, v, g, b, states[slots])
    return out.squeeze(1)


def convolve(
    x: torch.Tensor, before: torch.Tensor | None, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``silu`` of a causal convolution of each channel, tokens of a sequence at once.

    Args:
        x: ``[batch, tokens, channels]``.
        before: the last inputs that came before, ``[batch, channels, kernel]``; None: none did.
        weight: ``[channels, kernel]``.

    Returns:
        Like x, and the last inputs after it, as ``before``.
    """
    channels, kernel = weight.shape
    if before is None:
        before = x.new_zeros(len(x), channels, kernel)
    inputs = torch.cat((before[..., 1:].mT.to(x.dtype), x), dim=1)
    # Sums in float32, as a step has them.
    made = inputs[:, : x.shape[1]].float() * weight[:, 0].float()
    for tap in range(1, kernel):
        made = made + inputs[:, tap : tap + x.shape[1]].float() * weight[:, tap].float()
    return silu(made.to(x.dtype)), inputs[:, -kernel:].mT


def convolve_step(
    x: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``silu`` of a causal convolution of each channel, one token of each row.

    Args:
        x: ``[rows, channels]``.
        states: the last inputs of all sequences, ``[slots, channels, kernel]``, newest last; see ``step``.
        slots: ``[rows]``.
        weight: ``[channels, kernel]``.
        bias: ``[channels]``.

    Returns:
        ``[rows, channels]`` in the dtype of x.
    """
    if cpu.takes_rows(x, weight, states) and x.dtype == weight.dtype == states.dtype:
        return cpu.convolve_step(x, states, slots, weight, bias)
    inputs = torch.cat((states[slots][..., 1:], x.to(states.dtype).unsqueeze(-1)), dim=-1)
    states[slots] = inputs
    made = (inputs.float() * weight.float()).sum(-1)
    return silu((made if bias is None else made + bias.float()).to(x.dtype))


def _wide(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """In float32, ``[batch, heads, tokens, ...]``, with q and k of every head, normalised, and q scaled."""
    q, k, v, g, b = (x.float().transpose(1, 2) for x in (q, k, v, g, b))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS) for x in (q, k))
    served = v.shape[1] // k.shape[1]
    q, k = (x.repeat_interleave(served, dim=1) for x in (q, k))
    return q * q.shape[-1] ** -0.5, k, v, g, b
