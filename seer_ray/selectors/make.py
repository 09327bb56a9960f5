"""From a selector's name to the selector of one layer."""

from __future__ import annotations

from importlib import import_module

from seer_ray.config.selectors import SELECTORS
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Selector


def make_selector(
    name: str, layer: int, shape: AttentionShape, gate: AttnGate | None = None
) -> Selector | None:
    """The ranking that ``name``, of ``config.selectors``, means in a layer; None: dense.

    Args:
        name: of the selector.
        layer: index of the decoder layer.
        shape: of the model's attention.
        gate: of the layer, where the selector needs one.
    """
    implementation = SELECTORS[name].implementation
    if implementation is None:
        return None
    module, _, attribute = implementation.partition(":")
    kind: type[Selector] = getattr(import_module(module), attribute)
    return kind.of(layer, shape, gate)
