"""Models whose own layers run as they are: what mixes tokens asks the engine, the rest is transformers'.

While a pass of the engine goes through such a model, attention is a function of ours, which modules call with
q, k and v; rotary embeddings turn nothing, so that q and k arrive before rotation, as caches and gates want
them; the modules that keep a state get that of the sequences in the pass; and linear layers take our products
where those of torch are slower, for few rows on a CPU. Outside of a pass the model is
what it was, so ``model.generate`` works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from transformers import AttentionInterface

from seer_ray.kernels.projection import projections
from seer_ray.models.families import MIXED, family_of
from seer_ray.models.mixed.hosting import MixedHosting, mixed_states
from seer_ray.models.recurrence import Nothing, Run, States, advance, prepare
from seer_ray.models.rope import RopeTable, still
from seer_ray.models.rotation import Rotation, Table, angles
from seer_ray.models.step import Attention, HostedStep

NAME = "seer_ray"
"""Of our attention, among those of transformers."""


@dataclass
class _Part:
    """Some of the layers, in a pass that leaves out the others: those give what enters them."""

    layers: range
    hidden: torch.Tensor | None
    """What enters the first layer, ``[1, tokens, hidden]``; None: the embedding."""


class _Asked(NamedTuple):
    """The model, the pass that goes through it, and of which layers, where it is not all."""

    hosting: ModuleHosting
    step: Any
    part: _Part | None


_asked: ContextVar[_Asked | None] = ContextVar("asked", default=None)


def host(model: Any) -> Hosting:
    """Give the modules of ``model`` the forwards that ask a step. Idempotent; weights and names stay."""
    hosting: Hosting | None = vars(model).get("_seer_ray")
    if hosting is None:
        kind = MixedHosting if model.config.model_type == MIXED else ModuleHosting
        hosting = model._seer_ray = kind(model)
    return hosting


class Hosting(Protocol):
    """What is known of a hosted model: see ``host``."""

    states: list[States | None]
    """Of each layer, of one sequence; None: it keeps none."""
    heads: tuple[int, int, int]
    """Of q, of K and V, and their width."""
    outputs: list[nn.Module | None]
    """The projection of each layer's attention to its hidden size; None: it has no attention."""

    def hidden(self, tokens: torch.Tensor, step: HostedStep) -> torch.Tensor:
        """Packed tokens ``[tokens]`` through the decoder: normalised hidden states ``[tokens, hidden]``."""
        ...

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """What enters the first layer, ``[1, tokens, hidden]``."""
        ...

    def layers(self, hidden: torch.Tensor, step: HostedStep, some: range) -> torch.Tensor:
        """Hidden states ``[1, tokens, hidden]`` through some of the layers."""
        ...

    def normalise(self, hidden: torch.Tensor) -> torch.Tensor:
        """What leaves the last layer, ``[1, tokens, hidden]``, normalised."""
        ...

    def ropes(self, positions: int) -> list[RopeTable]:
        """How each layer turns q and k, on the model's device; layers that are turned alike share one."""
        ...


class ModuleHosting:
    """``Hosting`` of transformers' own modules.

    Attributes:
        rotations: of each layer's q and k; None: they are not turned, or there are none.
    """

    def __init__(self, model: Any) -> None:
        self._body = model.model
        self._config = model.config
        self.states = kept_states(model)
        for module in filter(None, _state_modules(model)):
            prepare(module)
            module.forward = partial(_recur, module, module.forward)
        for module in self._body.modules():
            if type(module) is nn.Linear:
                module.forward = partial(_product, module, module.forward)  # type: ignore[method-assign]
        self.outputs: list[nn.Module | None] = [None] * len(self._body.layers)
        self.tuples = False
        """Whether layers give their hidden states in a tuple."""
        for index, layer in enumerate(self._body.layers):
            layer.forward = partial(_layer, index, layer.forward)
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
        self.heads = probe.heads

    def hidden(self, tokens: torch.Tensor, step: HostedStep) -> torch.Tensor:
        """See ``Hosting``, and of what follows."""
        return self._through(step, step.position, input_ids=tokens.unsqueeze(0)).squeeze(0)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        part = _Part(range(0), None)
        position = torch.arange(len(tokens), device=tokens.device)
        self._through(None, position, part, input_ids=tokens.unsqueeze(0))
        assert part.hidden is not None
        return part.hidden

    def layers(self, hidden: torch.Tensor, step: HostedStep, some: range) -> torch.Tensor:
        part = _Part(some, hidden)
        self._through(step, step.position, part, inputs_embeds=hidden)
        assert part.hidden is not None
        return part.hidden

    def normalise(self, hidden: torch.Tensor) -> torch.Tensor:
        position = torch.arange(hidden.shape[1], device=hidden.device)
        return self._through(None, position, _Part(range(0), hidden), inputs_embeds=hidden)

    def ropes(self, positions: int) -> list[RopeTable]:
        device = next(self._body.parameters()).device
        made: dict[Any, RopeTable] = {}
        for rotation in self.rotations:
            if rotation not in made:
                table = rotation.table(positions) if rotation is not None else still(positions, self.heads[2])
                made[rotation] = table.to(device)
        return [made[rotation] for rotation in self.rotations]

    def _through(
        self,
        step: HostedStep | None,
        position: torch.Tensor,
        part: _Part | None = None,
        **given: torch.Tensor,
    ) -> torch.Tensor:
        """Normalised hidden states ``[1, tokens, hidden]``."""
        with self._asking(_Asked(self, step, part)):
            out = self._body(**given, position_ids=position.unsqueeze(0), use_cache=False)
        return out.last_hidden_state

    @contextmanager
    def _asking(self, asked: _Asked) -> Iterator[None]:
        before = self._config._attn_implementation
        token = _asked.set(asked)
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
    hosting, step, _ = asked
    if isinstance(step, _Probe):
        hosting.outputs[module.layer_idx] = getattr(module, "o_proj", None) or module.out_proj
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    if hosting.rotations and (rotation := hosting.rotations[module.layer_idx]) is not None:
        q, k = rotation.ordered(q), rotation.ordered(k)
    sinks = None if s_aux is None else s_aux.float()
    return step.attend(module.layer_idx, Attention(q, k, v, scaling, sinks)).unsqueeze(0), None


AttentionInterface.register(NAME, _attention)


def _layer(index: int, original: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """A decoder layer, of which a pass may leave out some."""
    if (asked := _asked.get()) is None:
        return original(hidden_states, *args, **kwargs)
    hosting, step, part = asked
    if part is None:
        out = original(hidden_states, *args, **kwargs)
        if isinstance(step, _Probe):
            hosting.tuples = isinstance(out, tuple)
        return out
    if index or part.hidden is None:
        part.hidden = hidden_states
    if index in part.layers:
        out = original(part.hidden, *args, **kwargs)
        part.hidden = out[0] if hosting.tuples else out
    return (part.hidden,) if hosting.tuples else part.hidden


def _still(original: Any, x: torch.Tensor, position_ids: torch.Tensor, *more: Any, **named: Any) -> Any:
    """Rotary embeddings that turn nothing."""
    if (asked := _asked.get()) is None:
        return original(x, position_ids, *more, **named)
    step = asked.step
    if isinstance(step, _Probe):
        return step.turn(original(x, position_ids, *more, **named), (*more, *named.values()))
    cos, sin = original(x, position_ids[..., :1], *more, **named)
    shape = (1, x.shape[1], cos.shape[-1])
    return torch.ones_like(cos).expand(shape), torch.zeros_like(sin).expand(shape)


def _product(module: Any, original: Any, x: torch.Tensor) -> torch.Tensor:
    if _asked.get() is None:
        return original(x)
    (out,) = projections(x, [(module.weight, module.bias)])
    return out


def _recur(module: Any, original: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if (asked := _asked.get()) is None:
        return original(hidden_states, *args, **kwargs)
    run = partial(advance, module, original)
    return asked.step.recur(module.layer_idx, hidden_states.squeeze(0), run).unsqueeze(0)


def _state_modules(model: Any) -> list[Any]:
    """Of each layer, the module that keeps a state; None: it keeps none."""
    name = family_of(model.config).state
    modules = [getattr(layer, name, None) if name else None for layer in model.model.layers]
    return [module if hasattr(module, "conv_kernel_size") else None for module in modules]


@torch.no_grad()
def kept_states(model: Any) -> list[States | None]:
    """What each layer keeps of one sequence; None: nothing beside K and V. On the model's device, which may
    be ``meta``: shapes and dtypes need no weights."""
    if model.config.model_type == MIXED:
        return mixed_states(model)
    weight, found = next(model.parameters()), []
    hidden = torch.zeros(1, _Probe.TOKENS, model.config.hidden_size, dtype=weight.dtype, device=weight.device)
    for module in _state_modules(model):
        nothing = Nothing(keeps=True)
        if module is not None:
            advance(module, module.forward, hidden, nothing)
        found.append(nothing.after)
    return found


class _Probe:
    """A pass in which what mixes tokens gives zeros: what reaches attention, without and with rotation, says
    how a layer turns its q and k."""

    TOKENS = 2

    def __init__(self, layers: int) -> None:
        self.position = torch.arange(5, 5 + self.TOKENS)
        self.turning = False
        self.tables: list[tuple[Table, tuple[Any, ...]]] = []
        """What the model's rotary module gave, and what it was asked for beside positions."""
        self.queries: list[tuple[torch.Tensor | None, torch.Tensor | None]] = [(None, None)] * layers
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

    def attend(self, layer: int, asked: Attention) -> torch.Tensor:
        q, k = asked.q, asked.k
        still, _ = self.queries[layer]
        self.queries[layer] = (still, q.float()) if self.turning else (q.float(), None)
        self.heads = (q.shape[1], k.shape[1], q.shape[2])
        return torch.zeros_like(q)

    def recur(self, layer: int, hidden: torch.Tensor, run: Run) -> torch.Tensor:
        return torch.zeros_like(hidden)
