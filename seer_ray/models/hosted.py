"""Models whose own layers run as they are: what mixes tokens asks the engine, the rest is transformers'.

While a pass of the engine goes through such a model, attention is a function of ours, which modules call with
q, k and v; rotary embeddings turn nothing, so that q and k arrive before rotation, as caches and gates want
them; and the modules that keep a state get that of the sequences in the pass. Outside of a pass the model is
what it was, so ``model.generate`` works.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, Cache
from transformers.cache_utils import LinearAttentionLayer

from seer_ray.models.families import family_of
from seer_ray.models.rotation import Rotation, Table, angles

NAME = "seer_ray"
"""Of our attention, among those of transformers."""

States = tuple[torch.Tensor | None, torch.Tensor | None]
"""What a layer keeps of some sequences, as transformers keeps it: inputs of its convolution
``[sequences, channels, kernel]``, and its recurrent state ``[sequences, ...]``; None: it has none."""
Run = Callable[[torch.Tensor, States], tuple[torch.Tensor, States]]
"""From hidden states ``[sequences, tokens, hidden]`` and the states before them to what the layer makes of
them, and the states after them."""


class HostedStep(Protocol):
    """One pass, as a hosted model sees it: a ``patch.Step`` that knows positions and states."""

    @property
    def position(self) -> torch.Tensor:
        """Of the packed tokens, ``[tokens]``."""
        ...

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor: ...

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        """What ``run`` makes of the packed tokens, ``hidden [tokens, hidden]``, sequence by sequence; the
        states after them are kept."""
        ...


_asked: ContextVar[tuple[Hosting, Any] | None] = ContextVar("asked", default=None)
"""The model and the pass that goes through it."""


def host(model: Any) -> Hosting:
    """Give the modules of ``model`` the forwards that ask a step. Idempotent; weights and names stay."""
    hosting: Hosting | None = vars(model).get("_seer_ray")
    if hosting is None:
        hosting = model._seer_ray = Hosting(model)
    return hosting


class Hosting:
    """What is known of a hosted model: see ``host``.

    Attributes:
        rotations: of each layer's q and k; None: they are not turned, or there are none.
        states: of each layer, of one sequence; None: it keeps none.
        heads: of q, of K and V, and their width.
    """

    def __init__(self, model: Any) -> None:
        self._body = model.model
        self._config = model.config
        state = family_of(model.config).state
        for layer in self._body.layers:
            module = getattr(layer, state, None) if state else None
            if module is not None and hasattr(module, "conv_kernel_size"):
                module.forward = partial(_recur, module, module.forward)
        rotary = getattr(self._body, "rotary_emb", None)
        self._rotary = rotary.forward if rotary is not None else None
        if rotary is not None:
            rotary.forward = partial(_still, rotary.forward)
        self.rotations: list[Rotation | None] = []
        probe = _Probe(len(self._body.layers))
        weight = next(model.parameters())
        with torch.no_grad():
            tokens = torch.zeros(_Probe.TOKENS, dtype=torch.int64, device=weight.device)
            self.hidden(tokens, probe)
            probe.turning = True
            self.hidden(tokens, probe)
        self.rotations = [Rotation.found(*pair, probe.tables, self._table) for pair in probe.queries]
        self.states = probe.states
        self.heads = probe.heads

    def hidden(self, tokens: torch.Tensor, step: HostedStep) -> torch.Tensor:
        """Packed tokens ``[tokens]`` through the decoder: normalised hidden states ``[tokens, hidden]``."""
        with self._asking(step):
            out = self._body(
                input_ids=tokens.unsqueeze(0), position_ids=step.position.unsqueeze(0), use_cache=False
            )
        return out.last_hidden_state.squeeze(0)

    @contextmanager
    def _asking(self, step: HostedStep) -> Iterator[None]:
        before = self._config._attn_implementation
        token = _asked.set((self, step))
        self._config._attn_implementation = NAME
        try:
            yield
        finally:
            self._config._attn_implementation = before
            _asked.reset(token)

    def _table(self, positions: int, more: tuple[Any, ...]) -> Table:
        """By the model's rotary module."""
        assert self._rotary is not None
        device = next(self._body.parameters()).device
        at = torch.arange(positions, device=device).unsqueeze(0)
        cos, sin = self._rotary(torch.zeros(1, device=device), at, *more)
        return cos[0].float(), sin[0].float()


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """q, k and v ``[1, heads, tokens, head_dim]``."""
    if softcap is not None:
        raise NotImplementedError("attention logits with a soft cap")
    asked = _asked.get()
    assert asked is not None
    hosting, step = asked
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    if hosting.rotations and (rotation := hosting.rotations[module.layer_idx]) is not None:
        q, k = rotation.ordered(q), rotation.ordered(k)
    sinks = {} if s_aux is None else {"sinks": s_aux.float()}
    return step.attend(module.layer_idx, q, k, v, scaling, **sinks).unsqueeze(0), None


AttentionInterface.register(NAME, _attention)


def _still(original: Any, x: torch.Tensor, position_ids: torch.Tensor, *more: Any, **named: Any) -> Any:
    """Rotary embeddings that turn nothing."""
    if (asked := _asked.get()) is None:
        return original(x, position_ids, *more, **named)
    _, step = asked
    if isinstance(step, _Probe):
        return step.turn(original(x, position_ids, *more, **named), (*more, *named.values()))
    cos, sin = original(x, position_ids[..., :1], *more, **named)
    shape = (1, x.shape[1], cos.shape[-1])
    return torch.ones_like(cos).expand(shape), torch.zeros_like(sin).expand(shape)


def _recur(module: Any, original: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if (asked := _asked.get()) is None:
        return original(hidden_states, *args, **kwargs)
    _, step = asked
    name = _cache_name(original)

    def run(hidden: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        cache, layer = _cache(module.layer_idx, states)
        out = original(hidden, **{name: cache})
        return out, (layer.conv_states[0], layer.recurrent_states[0])

    return step.recur(module.layer_idx, hidden_states.squeeze(0), run).unsqueeze(0)


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


class _Probe:
    """A pass in which attention gives zeros: what reaches it, without and with rotation, says how a layer
    turns its q and k, and the states that are left say what a layer keeps."""

    TOKENS = 2

    def __init__(self, layers: int) -> None:
        self.position = torch.arange(5, 5 + self.TOKENS)
        self.turning = False
        self.tables: list[tuple[Table, tuple[Any, ...]]] = []
        """What the model's rotary module gave, and what it was asked for beside positions."""
        self.queries: list[tuple[torch.Tensor | None, torch.Tensor | None]] = [(None, None)] * layers
        self.states: list[States | None] = [None] * layers
        self.heads = (0, 0, 0)

    def turn(self, made: Any, more: tuple[Any, ...]) -> Any:
        cos, sin = made
        if not self.turning:
            return torch.ones_like(cos), torch.zeros_like(sin)
        # Angles of its own for each call: real ones of two tables may hardly differ here.
        draw = torch.Generator().manual_seed(len(self.tables))
        pairs = angles(cos[0])
        drawn = 6 * torch.rand(self.TOKENS, pairs, generator=draw).repeat(1, cos.shape[-1] // pairs)
        cos, sin = (x.to(cos).unsqueeze(0) for x in (drawn.cos(), drawn.sin()))
        self.tables.append(((cos[0].float(), sin[0].float()), more))
        return cos, sin

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        still, _ = self.queries[layer]
        self.queries[layer] = (still, q.float()) if self.turning else (q.float(), None)
        self.heads = (q.shape[1], k.shape[1], q.shape[2])
        return torch.zeros_like(q)

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        out, self.states[layer] = run(hidden.unsqueeze(0), (None, None))
        return out.squeeze(0)
