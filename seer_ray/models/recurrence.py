"""Modules of transformers that keep a state, and how one goes on from the states of some sequences.

Such a module takes a cache. Most are given one that holds copies, which are put back afterwards. A decode
step of Gated DeltaNet on a CPU changes the states where they lie: copies cost more than the step itself.
On a GPU transformers takes the kernels of flash-linear-attention where they are installed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from transformers import Cache
from transformers.cache_utils import LinearAttentionLayer

from seer_ray.kernels.delta import convolve_step, step

States = tuple[torch.Tensor | None, torch.Tensor | None]
"""What a layer keeps of some sequences, as transformers keeps it: inputs of its convolution
``[sequences, channels, kernel]``, and its recurrent state ``[sequences, ...]``; None: it has none."""


class Held(Protocol):
    """What a layer keeps of the sequences that are computed."""

    @property
    def keeps(self) -> bool:
        """Whether anybody wants the states after this pass."""
        ...

    def take(self) -> States:
        """A copy; (None, None): nothing came before."""
        ...

    def put(self, states: States) -> None:
        """Those after this pass."""
        ...


Run = Callable[[torch.Tensor, Held], torch.Tensor]
"""From hidden states ``[sequences, tokens, hidden]`` and what is held of the sequences to what the layer
makes of them; the states are moved on."""


class Slots(NamedTuple):
    """``Held`` in some of the slots of an engine."""

    kept: States
    """Of all slots."""
    slots: torch.Tensor
    """Of the sequences, ``[sequences]``."""

    @property
    def keeps(self) -> bool:
        return True

    def take(self) -> States:
        conv, recurrent = (part[self.slots] if part is not None else None for part in self.kept)
        return conv, recurrent

    def put(self, states: States) -> None:
        for part, new in zip(self.kept, states, strict=True):
            if part is not None and new is not None:
                part[self.slots] = new.to(part.dtype)


class Nothing:
    """``Held`` of sequences that begin; ``after``: what there is of them then, where ``keeps``."""

    def __init__(self, keeps: bool = False) -> None:
        self.keeps = keeps
        self.after: States | None = None

    def take(self) -> States:
        return None, None

    def put(self, states: States) -> None:
        if self.keeps:
            self.after = states


def advance(module: Any, forward: Any, hidden: torch.Tensor, held: Held) -> torch.Tensor:
    """A ``Run`` by a module, whose own forward is given."""
    name = _cache_name(forward)
    if hidden.shape[1] == 1 and isinstance(held, Slots) and _in_place(module, held):
        return forward(hidden, **{name: _InPlace(held)})
    cache, layer = _cache(module.layer_idx, held.take())
    out = forward(hidden, **{name: cache})
    held.put((layer.conv_states[0], layer.recurrent_states[0]))
    return out


def _cache_name(forward: Any) -> str:
    """What a module's forward calls the cache: differs between versions of transformers."""
    known = inspect.signature(inspect.unwrap(forward)).parameters
    return next(name for name in ("cache", "cache_params", "past_key_values") if name in known)


def _cache(index: int, states: States) -> tuple[Cache, LinearAttentionLayer]:
    """A cache with the states of one layer, and that layer; (None, None): nothing came before."""
    layer = LinearAttentionLayer()
    conv, recurrent = states
    if conv is not None or recurrent is not None:
        layer.lazy_initialization(conv_states=conv, recurrent_states=recurrent)
        if conv is not None:
            layer.conv_states[0] = conv
        if recurrent is not None:
            layer.recurrent_states[0] = recurrent
        layer.has_previous_state[0] = True
    return Cache(layers=[layer] * (index + 1)), layer


# -- Gated DeltaNet in place -----------------------------------------------------------------------------

CONVOLVE, UPDATE = "causal_conv1d_update", "torch_recurrent_gated_delta_rule"
"""Functions of a modeling file that Gated DeltaNet decodes by."""


def prepare(module: Any) -> None:
    """Before a module is asked for ``advance``. The two functions of its file, where it has them, then know
    states that lie in slots; given tensors, they do what they did. Idempotent."""
    file = sys.modules[type(module).__module__]
    for name, ours in ((CONVOLVE, _convolve), (UPDATE, _update)):
        theirs = getattr(file, name, None)
        if theirs is not None and getattr(theirs, "func", None) is not ours:
            setattr(file, name, partial(ours, theirs))


def _in_place(module: Any, held: Slots) -> bool:
    file = sys.modules[type(module).__module__]
    known = hasattr(file, CONVOLVE) and hasattr(file, UPDATE)
    return known and held.slots.is_cpu and getattr(module, "activation", None) == "silu"


class _Where(NamedTuple):
    """States of rows, in place of a copy of them."""

    states: torch.Tensor
    slots: torch.Tensor


class _InPlace:
    """What a module takes for its cache."""

    def __init__(self, held: Slots) -> None:
        conv, recurrent = held.kept
        assert conv is not None and recurrent is not None
        self._conv, self._recurrent = _Where(conv, held.slots), _Where(recurrent, held.slots)

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> _Where:
        return self._conv

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> _Where:
        return self._recurrent

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def update_recurrent_state(self, states: None, layer_idx: int) -> None:
        """They are up to date."""


def _convolve(
    theirs: Any,
    hidden_states: torch.Tensor,
    conv_state: Any,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """``hidden_states [rows, channels, 1]``."""
    if not isinstance(conv_state, _Where):
        return theirs(hidden_states, conv_state, weight, bias, activation, **kwargs)
    return convolve_step(hidden_states.squeeze(-1), *conv_state, weight, bias).unsqueeze(-1)


def _update(
    theirs: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    initial_state: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``query, key, value [rows, 1, heads, dim]``."""
    if not isinstance(initial_state, _Where):
        return theirs(query, key, value, g=g, beta=beta, initial_state=initial_state, **kwargs)
    q, k, v, g, b = (x.squeeze(1) for x in (query, key, value, g, beta))
    out = step(q, k, v, g, b, *initial_state)
    return out.unsqueeze(1), None


def recur_apart(hidden: torch.Tensor, lengths: Sequence[int], run: Run) -> torch.Tensor:
    """What ``run`` makes of whole documents of these lengths, side by side: nothing came before any."""
    return torch.cat([run(part.unsqueeze(0), Nothing()).squeeze(0) for part in hidden.split(list(lengths))])
