"""The layer plan: which mixer and which selector each layer has, resolved once from the config."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SelectorConfig
from seer_ray.config.selectors import SELECTORS, Traits

SELECTING = ("attention", "parallel")
"""Mixers with attention to all of a sequence, of which a selector may pick the blocks."""
_READS = {"sliding": "sliding", "linear": "linear", "none": "none"}
"""In a plan's code, what layers of other mixers are."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer: what the checkpoint has there, and what decodes it."""

    layer: int
    mixer: str
    """How the checkpoint's layer mixes tokens, of ``models.mixers``."""
    selector: str
    """Which blocks of it a step reads, of ``config.selectors``."""
    blocks: int | None = None
    """Budget in blocks; None: dense."""
    threshold: float | None = None
    sink: bool = True


@dataclass(frozen=True)
class LayerPlan:
    """Immutable; everything downstream (cache, metrics, results) reads this, never the raw config."""

    layers: tuple[LayerSpec, ...]
    block_size: int
    sparse_prefill: bool = False
    """Prompts are read as sparsely as steps are, by the layers that are not dense."""

    @property
    def code(self) -> str:
        """Readable, e.g. ``36L:27seer2048b64+9dense``."""
        kinds = Counter(
            _READS.get(spec.mixer, "dense")
            if spec.blocks is None
            else f"{spec.selector}{spec.blocks * self.block_size}b{self.block_size}"
            + (f"t{spec.threshold:g}" if spec.threshold is not None else "")
            + ("" if spec.sink else "-nosink")
            + ("-prefill" if self.sparse_prefill else "")
            for spec in self.layers
        )
        return f"{len(self.layers)}L:" + "+".join(
            (f"{count}" if len(kinds) > 1 else "") + kind for kind, count in kinds.most_common()
        )

    @property
    def digest(self) -> str:
        """Content hash: two plans that decode alike have the same."""
        content = (self.layers, self.block_size, *(["sparse prefill"] if self.sparse_prefill else []))
        return hashlib.sha256(repr(content).encode()).hexdigest()[:12]

    @property
    def selectors(self) -> set[Traits]:
        """Of all layers."""
        return {SELECTORS[spec.selector] for spec in self.layers}


def resolve_plan(selector: SelectorConfig, mixers: Sequence[str], block_size: int) -> LayerPlan:
    """The config's selector for the layers of a checkpoint.

    Later settings win: the selector for all layers, then ``dense_layers``, then ``layers``; in ``layers`` and
    ``shares`` the later entry.

    Args:
        selector: the config.
        mixers: of the checkpoint's layers.
        block_size: tokens a block.

    Raises:
        ConfigError: a layer that is not there, or a selector that is not known.
    """
    if selector.name not in SELECTORS:
        raise ConfigError(f"selector.name={selector.name}: must be one of {', '.join(SELECTORS)}")
    names = [selector.name] * len(mixers)
    if selector.dense_layers > len(mixers):
        raise ConfigError(
            f"selector.dense_layers={selector.dense_layers}: the model has {len(mixers)} layers"
        )
    names[: selector.dense_layers] = ["dense"] * selector.dense_layers
    for key, name in selector.layers.items():
        option = f"selector.layers.{key}={name}"
        if name not in SELECTORS:
            raise ConfigError(f"{option}: must be one of {', '.join(SELECTORS)}")
        chosen = layer_range(key, len(mixers), option)
        if other := [layer for layer in chosen if mixers[layer] not in SELECTING and name != "dense"]:
            raise ConfigError(
                f"{option}: layer {other[0]} of this model is {mixers[other[0]]}: nothing is selected there"
            )
        names[chosen.start : chosen.stop] = [name] * len(chosen)
    names = [name if mixer in SELECTING else "dense" for name, mixer in zip(names, mixers, strict=True)]
    limits = layer_limits(
        selector.budget, block_size, selector.shares, selector.threshold, len(mixers), "selector.shares"
    )
    return LayerPlan(
        tuple(
            LayerSpec(layer, mixer, name, *limits[layer], selector.sink)
            if SELECTORS[name].sparse
            else LayerSpec(layer, mixer, name)
            for layer, (mixer, name) in enumerate(zip(mixers, names, strict=True))
        ),
        block_size,
        selector.sparse_prefill and any(SELECTORS[name].sparse for name in names),
    )


class Limit(NamedTuple):
    """How much of the KV a layer may read in a step."""

    blocks: int
    """At most."""
    threshold: float | None = None
    """Of those only the ones whose share of the block scores is above this; see ``kernels.select``."""


def layer_limits(
    budget: int,
    block_size: int,
    shares: Mapping[str, float],
    threshold: float | None,
    layers: int,
    option: str,
) -> list[Limit]:
    """What each layer may read.

    Args:
        budget: tokens.
        block_size: tokens a block.
        shares: of single layers, by index or range, what they may read as a multiple of the others. With a
            threshold, theirs is divided by it, and the budget stays; else it multiplies the budget.
        threshold: of layers without a share; None: the budget alone limits.
        layers: of the model.
        option: what ``shares`` is called.

    Raises:
        ConfigError: a layer that is not there.
    """
    limits = [Limit(budget // block_size, threshold)] * layers
    for key, share in shares.items():
        chosen = layer_range(key, layers, f"{option}.{key}={share:g}")
        if threshold is None:
            # To the nearest block, not below what is forced: shares with a mean of 1 keep the mean budget.
            limit = Limit(max(2, round(budget * share / block_size)))
        else:
            limit = Limit(budget // block_size, threshold / share)
        limits[chosen.start : chosen.stop] = [limit] * len(chosen)
    return limits


def layer_range(key: str, layers: int, option: str) -> range:
    """The layers that ``'3'`` or ``'0-2'`` names.

    Raises:
        ConfigError: they are not there; begins with ``option``.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(key))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < layers:
        raise ConfigError(f"{option}: must name layers 0 to {layers - 1}, such as '3' or '0-2'")
    return range(first, last + 1)


def parse_layers(text: str | None, count: int, option: str = "gates.layers") -> tuple[int, ...]:
    """``"0-3,7"`` -> ``(0, 1, 2, 3, 7)``; None: all.

    Raises:
        ConfigError: not of this form, or a layer that is not there.
    """
    if text is None:
        return tuple(range(count))
    found: set[int] = set()
    for part in str(text).split(","):
        found.update(layer_range(part.strip(), count, f"{option}={text}"))
    return tuple(sorted(found))
