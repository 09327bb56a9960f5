"""The mixers that there are, one row of traits each: how a layer mixes tokens, and what it keeps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.models.layers import layer_range


@dataclass(frozen=True)
class Traits:
    """Of one mixer."""

    native: tuple[str, ...]
    """What transformers calls such a layer in ``layer_types``; none: only models of ours have it."""
    help: str
    """How it mixes tokens."""
    keeps: str
    """What it keeps of a sequence."""
    attention: str | None = None
    """``module:class`` of the ``engine.passes.Mixer`` that is its attention, over pages of K and V."""
    windowed: bool = False
    """Its attention reaches back ``sliding_window`` tokens only: the pages behind them are given back."""
    state: bool = False
    """Keeps a state of fixed size for each sequence: a recurrence, a convolution."""
    trained: bool = False
    """``pretrain`` makes models with it."""
    anchor: bool = False
    """Sees single tokens far away: other layers are relaxed beside it."""


_PAGED = "seer_ray.engine.mixers.attention:PagedAttention"
_KV, _MATRIX = "K and V of all tokens", "a matrix for each head"


def _own(help: str, keeps: str, attention: str | None = None) -> Traits:
    """Of a mixer that models of ours alone have, see ``models.mixed``."""
    return Traits((), help, keeps, attention, state=attention is None and keeps != "nothing", trained=True)


MIXERS = {
    "attention": Traits(
        ("full_attention",),
        "attention to all tokens, or to the blocks that a selector picks",
        "K and V of all tokens",
        _PAGED,
        trained=True,
        anchor=True,
    ),
    "sliding": Traits(
        ("sliding_attention",),
        "attention to the last tokens",
        "K and V of its window",
        "seer_ray.engine.mixers.sliding:SlidingAttention",
        windowed=True,
        trained=True,
        anchor=True,
    ),
    "linear": Traits(
        ("linear_attention", "conv"),
        "a linear recurrence (Gated DeltaNet, Mamba-2) or a short convolution",
        "a state of fixed size",
        state=True,
    ),
    "parallel": Traits(
        ("hybrid",),
        "attention and a recurrence side by side",
        "K and V of all tokens, and a state",
        _PAGED,
        state=True,
    ),
    "none": Traits(("moe", "mlp"), "mixes no tokens", "nothing"),
    "mlp": _own("an MLP in the place of attention: mixes no tokens", "nothing"),
    "approximate": _own(
        "attention whose exponential is a Taylor series of the second order", "sums of the orders 0, 1 and 2"
    ),
    "nonapproximate": _own(
        "a mean of all values, weighted by a score of each token alone", "a vector for each head"
    ),
    "rndemb": _own("attention by a map that fixed random vectors make", _KV, _PAGED),
    "fixedseq": _own("attention by a map that a fixed text makes", _KV, _PAGED),
    "static": _own("attention by a map that the tokens' own embeddings make", _KV, _PAGED),
    "retnet": _own("outer products, a fixed decay for each head", _MATRIX),
    "gla": _own("outer products, a decay for each channel", _MATRIX),
    "hgrn": _own("a gated recurrence of vectors", "a vector"),
    "hgrn2": _own("outer products, keys tied to the decay of each channel", _MATRIX),
    "deltanet": _own("the delta rule", _MATRIX),
    "gated_deltanet": _own("the delta rule with a decay for each head", _MATRIX),
}
"""By their names in options and plans."""
NATIVE = {native: name for name, traits in MIXERS.items() for native in traits.native}
"""Names in options by those of transformers."""


def layer_mixers(config: Any) -> list[str]:
    """The mixer of each layer of a checkpoint, by its Hugging Face config.

    Raises:
        ConfigError: a kind of layer that is not known.
    """
    if (own := getattr(config, "mixers", None)) is not None:
        return _checked(own, config.num_hidden_layers)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        name = "sliding" if getattr(config, "sliding_window", None) else "attention"
        return [name] * config.num_hidden_layers
    if unknown := sorted(set(kinds) - NATIVE.keys()):
        raise ConfigError(
            f"model type {config.model_type}: layers of kind {', '.join(unknown)} are not supported; "
            f"supported are {', '.join(NATIVE)}"
        )
    return [NATIVE[kind] for kind in kinds]


def _checked(mixers: Sequence[str], layers: int) -> list[str]:
    """Of a mixed model."""
    for name in mixers:
        check_trained(name, f"mixer {name}")
    if len(mixers) != layers:
        raise ConfigError(f"mixers: names {len(mixers)}, the model has {layers} layers")
    return list(mixers)


def check_trained(name: str, option: str) -> None:
    """
    Raises:
        ConfigError: no mixer that ``pretrain`` makes models with; begins with ``option``.
    """
    known = [name for name, traits in MIXERS.items() if traits.trained]
    if name not in known:
        raise ConfigError(f"{option}: must be one of {', '.join(known)}{did_you_mean(name, known)}")


def resolve_mixers(named: Mapping[str, str], layers: int, laid: Sequence[str] | None = None) -> list[str]:
    """The mixer of every layer of a model that is to be trained, by name.

    Args:
        named: of single layers, by index or range.
        layers: how many there are.
        laid: of the others, see ``layout.lay_mixers``; None: attention.

    Raises:
        ConfigError: an unknown mixer or layer.
    """
    names = list(laid or ["attention"] * layers)
    for key, name in named.items():
        option = f"architecture.mixers.{key}={name}"
        check_trained(name, option)
        chosen = layer_range(key, layers, option)
        names[chosen.start : chosen.stop] = [name] * len(chosen)
    return names
