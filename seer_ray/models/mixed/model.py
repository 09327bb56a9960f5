"""The mixed model as transformers loads and saves it. Importing this makes ``AutoModelForCausalLM`` know it.

Its one forward is that of packed tokens and a step, see ``models.step``: training and the engine give theirs,
a forward of transformers one that keeps nothing, so ``generate`` computes the whole sequence anew for each
token.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seer_ray.models.mixed.attention import MAPPED, AttentionMixer
from seer_ray.models.mixed.config import MixedConfig
from seer_ray.models.mixed.flow import Config, Flow, RMSNorm
from seer_ray.models.mixed.mlp import MLPMixer
from seer_ray.models.mixed.recurrent import OUTER, OuterMixer, VectorMixer
from seer_ray.models.packed import Documents, PackedStep, mixers_of
from seer_ray.models.projection import project
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import HostedStep

_KINDS: dict[str, Any] = {"mlp": MLPMixer, "hgrn": VectorMixer, **dict.fromkeys(OUTER, OuterMixer)}
"""Of mixers other than those of ``attention``."""


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``, what stands behind the mixer in each layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.gate_proj, self.up_proj)
        return project(nn.functional.silu(gate) * up, self.down_proj)[0]


class MixedLayer(nn.Module):
    """Norm and mixer, norm and MLP, each beside the residual stream."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.static = config.mixers[layer] == "static"
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mixer = _KINDS.get(config.mixers[layer], AttentionMixer)(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, hidden: Tensor, flow: Flow) -> Tensor:
        """Like ``hidden [tokens, hidden]``."""
        x = self.input_layernorm(hidden)
        source = self.input_layernorm(flow.embedded) if self.static else x
        hidden = hidden + self.mixer(x, source, flow)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class MixedBody(nn.Module):
    """Embedding, layers and the last norm.

    Attributes:
        rndemb: the fixed vectors that layers of that kind make q and k of, ``[positions, hidden]``.
        fixedseq: the tokens of the fixed text likewise, ``[positions]``.
    """

    rndemb: Tensor
    fixedseq: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(MixedLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        positions = config.max_position_embeddings
        if "rndemb" in config.mixers:
            drawn = config.initializer_range * torch.randn(positions, config.hidden_size)
            self.register_buffer("rndemb", drawn)
        if "fixedseq" in config.mixers:
            self.register_buffer("fixedseq", torch.zeros(positions, dtype=torch.int64))
        self._dense = mixers_of(config)
        self._tables: dict[int, RopeTable] = {}
        self._maps: dict[int, tuple[Tensor, Tensor]] | None = None

    def hidden(self, tokens: Tensor, step: HostedStep, skip: Collection[int] = ()) -> Tensor:
        """Packed tokens ``[tokens]`` through all layers but ``skip``: normalised ``[tokens, hidden]``."""
        embedded = self.embed_tokens(tokens)
        flow = Flow(step, embedded, self._ropes(embedded), self.maps(step, skip))
        return self.norm(self.through(embedded, flow, range(len(self.layers)), skip))

    def through(self, hidden: Tensor, flow: Flow, some: range, skip: Collection[int] = ()) -> Tensor:
        """``hidden [tokens, hidden]`` through some layers, but those of ``skip``."""
        for layer in some:
            if layer not in skip:
                hidden = self.layers[layer](hidden, flow)
        return hidden

    def flow(self, embedded: Tensor, step: HostedStep) -> Flow:
        """Of a pass that goes through the layers part by part."""
        return Flow(step, embedded, self._ropes(embedded), self.maps(step))

    def packed(self, lengths: tuple[int, ...]) -> PackedStep:
        """A step over whole documents of these lengths."""
        rope = self._ropes(self.embed_tokens.weight)[self.config.head_dim]
        return PackedStep(Documents(lengths), rope, self._dense)

    def maps(self, step: HostedStep, skip: Collection[int] = ()) -> dict[int, tuple[Tensor, Tensor]]:
        """q and k of the layers that make them without the input, for as many positions as ``step`` has; all
        positions once ``hold`` was called, unless they are trained."""
        layers = [i for i, kind in enumerate(self.config.mixers) if kind in MAPPED and i not in skip]
        if not layers:
            return {}
        if self._maps is not None and not torch.is_grad_enabled():
            return self._maps
        longest = getattr(step, "longest", None)
        return self._made(layers, int(step.position.max()) + 1 if longest is None else longest, skip)

    @torch.no_grad()
    def hold(self) -> None:
        """Compute ``maps`` for the whole context, once: weights are final. By one thread, as the last bits of
        a product may depend on their number, and chains are to be the same on every worker."""
        layers = [i for i, kind in enumerate(self.config.mixers) if kind in MAPPED]
        if not layers or self._maps is not None:
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._maps = self._made(layers, self.config.max_position_embeddings, ())
        finally:
            torch.set_num_threads(threads)

    def _made(
        self, layers: list[int], positions: int, skip: Collection[int]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for kind in MAPPED:
            own = [layer for layer in layers if self.config.mixers[layer] == kind]
            if not own:
                continue
            stream = self.rndemb if kind == "rndemb" else self.embed_tokens(self.fixedseq[:positions])
            stream = stream[:positions]
            flow = Flow(self.packed((len(stream),)), stream, self._ropes(stream))
            self.through(stream, flow, range(own[-1] + 1), skip)
            found |= {layer: flow.made[layer] for layer in own}
        return found

    def _ropes(self, like: Tensor) -> dict[int, RopeTable]:
        # Made at first use: transformers builds models on a device that has no numbers.
        for dim in {self.config.head_dim, self.config.state_dim} - self._tables.keys():
            positions = self.config.max_position_embeddings
            self._tables[dim] = RopeTable.from_config(self.config, positions, dim=dim)
        return {dim: table.to(like.device) for dim, table in self._tables.items()}


class MixedForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """See the module."""

    config_class = MixedConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012, as the base has it
    _no_split_modules = ["MixedLayer"]  # noqa: RUF012

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = MixedBody(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Of whole rows ``[rows, tokens]``.

        Raises:
            ValueError: rows are padded.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("attention_mask: this model takes no padding; give it rows of one length")
        rows, length = input_ids.shape
        hidden = self.model.hidden(input_ids.flatten(), self.model.packed((length,) * rows))
        logits = self.lm_head(hidden).view(rows, length, -1)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """The whole sequence, every time: nothing is kept."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}

    def _init_weights(self, module: nn.Module) -> None:
        spread = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, 0.0, spread)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


AutoModelForCausalLM.register(MixedConfig, MixedForCausalLM)
