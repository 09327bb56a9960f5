"""From a selector's name to the selector of one layer."""

from __future__ import annotations

from seer_ray.config.modules import import_named
from seer_ray.config.selectors import traits_of
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Selector


def make_selector(
    name: str, layer: int, shape: AttentionShape, gate: AttnGate | None = None
) -> Selector | None:
    """The ranking that ``name``, of ``config.selectors``, means in a layer; None: dense.

    Args:
        name: of the selector; one of the user's own is ``module:Class``.
        layer: index of the decoder layer.
        shape: of the model's attention.
        gate: of the layer, where the selector needs one.
    """
    implementation = traits_of(name).implementation
    if implementation is None:
        return None
    kind: type[Selector] = import_named(implementation, "selector.name", "class")
    return kind.of(layer, shape, gate)
