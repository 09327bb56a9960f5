"""A mixed model as the engine and other passes see it."""

from __future__ import annotations

from typing import Any

import torch

from seer_ray.models.mixers import MIXERS
from seer_ray.models.recurrence import States
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import HostedStep


class MixedHosting:
    """A ``models.hosted.Hosting``."""

    def __init__(self, model: Any) -> None:
        self._body, config = model.model, model.config
        self.states = mixed_states(model)
        self.heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.outputs = [
            layer.mixer.o_proj if MIXERS[name].attention is not None else None
            for name, layer in zip(config.mixers, self._body.layers, strict=True)
        ]
        self._embedded: torch.Tensor | None = None

    def hidden(self, tokens: torch.Tensor, step: HostedStep) -> torch.Tensor:
        """See ``models.hosted``."""
        return self._body.hidden(tokens, step)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Likewise; ``layers`` goes on from the last of these, which some layers look back at."""
        self._embedded = self._body.embed_tokens(tokens)
        return self._embedded.unsqueeze(0)

    def layers(self, hidden: torch.Tensor, step: HostedStep, some: range) -> torch.Tensor:
        """Likewise."""
        assert self._embedded is not None and len(self._embedded) == hidden.shape[1]
        flow = self._body.flow(self._embedded, step)
        return self._body.through(hidden.squeeze(0), flow, some).unsqueeze(0)

    def normalise(self, hidden: torch.Tensor) -> torch.Tensor:
        """Likewise."""
        return self._body.norm(hidden)

    def ropes(self, positions: int) -> list[RopeTable]:
        """Likewise. What else depends on positions alone is computed too."""
        self._body.hold()
        config, device = self._body.config, self._body.embed_tokens.weight.device
        return [RopeTable.from_config(config, positions, device=device)] * config.num_hidden_layers


def mixed_states(model: Any) -> list[States | None]:
    """What each layer keeps of one sequence; None: nothing beside K and V."""
    like = model.model.embed_tokens.weight.detach()
    found: list[States] = [layer.mixer.states(like) for layer in model.model.layers]
    return [states if any(part is not None for part in states) else None for states in found]
