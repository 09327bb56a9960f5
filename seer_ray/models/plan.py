"""The layer plan: which mixer and which selector each layer has, resolved once from the config."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.config.selectors import SELECTORS, Traits, short_name, traits_of
from seer_ray.config.works import Work
from seer_ray.kernels.blocks import Amount
from seer_ray.models.layers import layer_range
from seer_ray.models.layout import lay_out, paid_budget
from seer_ray.models.limits import Limit, layer_limits
from seer_ray.models.mixers import MIXERS

SELECTING = ("attention", "parallel", "rndemb", "fixedseq", "static")
"""Mixers with attention to all of a sequence, of which a selector may pick the blocks."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer: what the checkpoint has there, and what decodes it."""

    layer: int
    mixer: str
    """How the checkpoint's layer mixes tokens, of ``models.mixers``."""
    selector: str
    """Which blocks of it a step reads, of ``config.selectors``."""
    blocks: int | None = None
    """Budget in blocks; None: dense. It and what follows: see ``models.limits.Limit``."""
    threshold: float | None = None
    sink: bool = True
    mass: float | None = field(default=None, repr=False)
    fraction: float = field(default=0.0, repr=False)
    heads: tuple[Limit, ...] = field(default=(), repr=False)

    @property
    def limit(self) -> Limit | None:
        """What a step may read; None: everything."""
        if self.blocks is None:
            return None
        return Limit(self.blocks, self.threshold, self.mass, self.fraction, self.heads)


@dataclass(frozen=True)
class PrefillPlan:
    """How much prompts read, by the layers that have a prefill gate."""

    amount: Amount
    last_blocks: int = 2
    """Blocks of rows at a prompt's end that are dense."""
    sink: bool = True
    shared: bool = False
    """The query heads of a KV head share a decision."""
    first: int = 0
    """Layers before this one are dense."""

    @property
    def code(self) -> str:
        """Readable, e.g. ``d0.3``, ``m0.95-shared``."""
        said = {"d": self.amount.density, "t": self.amount.threshold, "m": self.amount.mass}
        amount = "".join(f"{name}{value:g}" for name, value in said.items() if value is not None)
        return (
            amount
            + (f"-last{self.last_blocks}" if self.last_blocks != 2 else "")
            + ("" if self.sink else "-nosink")
            + ("-shared" if self.shared else "")
            + (f"-from{self.first}" if self.first else "")
        )

    @classmethod
    def of(cls, selector: SelectorConfig) -> PrefillPlan | None:
        """What the options say; None: prompts read everything."""
        asked = selector.prefill
        if not asked.asked:
            return None
        amount = Amount(asked.density, asked.threshold, asked.mass)
        return cls(amount, asked.last_blocks, asked.sink, asked.shared, selector.dense_layers)


@dataclass(frozen=True)
class LayerPlan:
    """Immutable; everything downstream (cache, metrics, results) reads this, never the raw config."""

    layers: tuple[LayerSpec, ...]
    block_size: int
    sparse_prefill: bool = False
    """Prompts are read as sparsely as steps are, by the layers that are not dense."""
    window: int | None = None
    """Tokens that the checkpoint's layers with a window look back."""
    prefill: PrefillPlan | None = None
    """How prompts are read; None: all, or as ``sparse_prefill`` says."""

    @property
    def code(self) -> str:
        """Readable, e.g. ``36L:27seer2048b64+9dense``, ``34L:28sliding1024+6dense``, ``24L:dense~d0.3``; what
        follows ``~`` is of prompts."""
        others = {name: name for name in MIXERS if name not in ("attention", "parallel")}
        others["sliding"] = f"sliding{self.window}"
        kinds = Counter(
            others.get(spec.mixer, "dense")
            if spec.blocks is None
            else f"{short_name(spec.selector)}{spec.blocks * self.block_size}b{self.block_size}"
            + (f"t{spec.threshold:g}" if spec.threshold is not None else "")
            + (f"m{spec.mass:g}" if spec.mass is not None else "")
            + (f"f{spec.fraction:g}" if spec.fraction else "")
            + ("-heads" if spec.heads else "")
            + ("" if spec.sink else "-nosink")
            + ("-prefill" if self.sparse_prefill else "")
            for spec in self.layers
        )
        return (
            f"{len(self.layers)}L:"
            + "+".join((f"{count}" if len(kinds) > 1 else "") + kind for kind, count in kinds.most_common())
            + (f"~{self.prefill.code}" if self.prefill is not None else "")
        )

    @property
    def digest(self) -> str:
        """Content hash: two plans that decode alike have the same."""
        content = (self.layers, self.block_size, *(["sparse prefill"] if self.sparse_prefill else []))
        if any(spec.mixer == "sliding" for spec in self.layers):
            content += (self.window,)
        if self.prefill is not None:
            content += (self.prefill,)
        # Not told by a layer's repr, so that plans without them are called as they always were.
        adaptive = [(spec.mass, spec.fraction, spec.heads) for spec in self.layers]
        if any(map(any, adaptive)):
            content += (adaptive,)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """Tells it from all other plans: the code, and the digest where layers or heads differ, as the code
        does not say which is where, or where a selector is not of ours, whose module the code does not name.
        """
        alike = len({replace(spec, layer=0) for spec in self.layers}) == 1 and not self.layers[0].heads
        ours = all(spec.selector in SELECTORS for spec in self.layers)
        return self.code if alike and ours else f"{self.code}@{self.digest}"

    @property
    def dense(self) -> LayerPlan:
        """The same layers, of which all read everything in decode steps."""
        layers = tuple(LayerSpec(spec.layer, spec.mixer, "dense") for spec in self.layers)
        return replace(self, layers=layers, sparse_prefill=False)

    @property
    def selectors(self) -> set[Traits]:
        """Of all layers."""
        return {traits_of(spec.selector) for spec in self.layers}


def resolve_plan(
    selector: SelectorConfig,
    mixers: Sequence[str],
    block_size: int,
    plan: PlanConfig | None = None,
    window: int | None = None,
    kv_heads: int | None = None,
) -> LayerPlan:
    """What the options mean for the layers of a checkpoint. Their mixers stay, and only those with full
    attention are planned.

    Later settings win: the layout of the plan, then ``dense_layers``, then ``layers``; in ``layers`` and
    ``shares`` the later entry.

    Args:
        selector: the config.
        mixers: of the checkpoint's layers.
        block_size: tokens a block.
        plan: None: no layout, the selector for all layers.
        window: of the checkpoint's layers that have one, in tokens.
        kv_heads: of each layer, all ranks together; None: not known.

    Raises:
        ConfigError: a layer that is not there, a selector that is not known, or a plan that the layers cannot
            have.
    """
    plan = plan or PlanConfig()
    traits_of(selector.name)
    laid = lay_out(selector, plan, [i for i, mixer in enumerate(mixers) if mixer in SELECTING])
    chosen = [laid.get(layer, Work("dense")) for layer in range(len(mixers))]
    if selector.dense_layers > len(mixers):
        raise ConfigError(
            f"selector.dense_layers={selector.dense_layers}: the model has {len(mixers)} layers"
        )
    chosen[: selector.dense_layers] = [Work("dense")] * selector.dense_layers
    for key, name in selector.layers.items():
        option = f"selector.layers.{key}={name}"
        traits_of(name, f"selector.layers.{key}")
        named = layer_range(key, len(mixers), option)
        if other := [layer for layer in named if mixers[layer] not in SELECTING and name != "dense"]:
            raise ConfigError(
                f"{option}: layer {other[0]} of this model is {mixers[other[0]]}: nothing is selected there"
            )
        chosen[named.start : named.stop] = [Work(name)] * len(named)
    budget = selector.budget
    if plan.equal_at is not None:
        budget = paid_budget(selector, plan, [chosen[layer] for layer in laid], block_size)
    limits = layer_limits(
        [budget if work.budget is None else work.budget for work in chosen],
        block_size,
        selector,
        kv_heads=kv_heads,
    )
    return LayerPlan(
        tuple(
            LayerSpec(layer, mixer, work.selector, sink=selector.sink, **limits[layer]._asdict())
            if traits_of(work.selector).sparse
            else LayerSpec(layer, mixer, work.selector)
            for layer, (mixer, work) in enumerate(zip(mixers, chosen, strict=True))
        ),
        block_size,
        selector.sparse_prefill and any(traits_of(work.selector).sparse for work in chosen),
        window,
        PrefillPlan.of(selector),
    )
