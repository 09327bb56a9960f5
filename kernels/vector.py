"""A gated recurrence of vectors, the memory of HGRN: ``h <- f h + (1 - f) x``, channel by channel.

(Qin et al. 2023, arXiv:2311.04823.) ``recurrent`` is the definition; ``chunked`` doubles, step by step, how
far each token looks back; ``step`` is one token of each row of a batch.

Shapes: f from 0 to 1 and x ``[batch, tokens, width]``; states are float32, ``[batch, width]``.
"""

from __future__ import annotations

import torch

CHUNK = 256


def recurrent(f: torch.Tensor, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token: the states after each, in the dtype of x, and the last one."""
    outs = []
    for t in range(x.shape[1]):
        state = _advance(f[:, t], x[:, t], state)
        outs.append(state)
    return torch.stack(outs, dim=1).to(x.dtype), state


def chunked(
    f: torch.Tensor, x: torch.Tensor, state: torch.Tensor | None = None, chunk: int = CHUNK
) -> tuple[torch.Tensor, torch.Tensor]:
    """``recurrent``, so many tokens at a time; ``state`` None: nothing came before."""
    outs = []
    for some, inputs in zip(f.float().split(chunk, dim=1), x.float().split(chunk, dim=1), strict=True):
        left, held, reach = some, (1 - some) * inputs, 1
        while reach < some.shape[1]:
            held = torch.cat((held[:, :reach], held[:, reach:] + left[:, reach:] * held[:, :-reach]), dim=1)
            left = torch.cat((left[:, :reach], left[:, reach:] * left[:, :-reach]), dim=1)
            reach *= 2
        out = held if state is None else held + left * state.unsqueeze(1)
        outs.append(out)
        state = out[:, -1]
    assert state is not None
    return torch.cat(outs, dim=1).to(x.dtype), state


def step(f: torch.Tensor, x: torch.Tensor, states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """One token of each row, ``f, x [rows, width]``; the rows' states are changed in place. Like x."""
    state = states[slots] = _advance(f, x, states[slots])
    return state.to(x.dtype)


def _advance(f: torch.Tensor, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    f = f.float()
    return f * state + (1 - f) * x.float()
