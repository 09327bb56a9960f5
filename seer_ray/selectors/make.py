"""From a selector's name to the selector of one layer."""

from __future__ import annotations

from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Selector
from seer_ray.selectors.fixed import Random, Window
from seer_ray.selectors.oracle import Oracle
from seer_ray.selectors.quest import Quest
from seer_ray.selectors.seer import Seer


def make_selector(
    name: str, layer: int, shape: AttentionShape, gate: AttnGate | None = None
) -> Selector | None:
    """The ranking that ``name`` (one of ``config.SELECTORS``) means in a layer; None: dense.

    Args:
        name: of the selector.
        layer: index of the decoder layer.
        shape: of the model's attention.
        gate: of the layer; ``seer`` needs one.
    """
    match name:
        case "seer":
            assert gate is not None
            return Seer(gate)
        case "quest":
            return Quest(shape.head_dim, shape.kv_heads)
        case "oracle":
            return Oracle()
        case "window":
            return Window(shape.kv_heads)
        case "random":
            return Random(shape.kv_heads, layer * shape.group.size + shape.group.rank)
    return None
