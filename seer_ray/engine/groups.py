"""Cache groups: layers that keep the same kind of memory, each with pages of its own."""

from __future__ import annotations

from dataclasses import dataclass

from seer_ray.engine.pages import Keeps
from seer_ray.models.mixers import MIXERS
from seer_ray.models.patch import AttentionShape
from seer_ray.models.plan import LayerPlan


@dataclass(frozen=True)
class PageGroup:
    """Layers whose K and V are kept equally long: they share a page table."""

    layers: tuple[int, ...]
    keeps: Keeps
    window: int | None = None
    """Tokens that the checkpoint itself lets them look back, the current one included; None: all."""


def page_groups(shape: AttentionShape, plan: LayerPlan) -> tuple[PageGroup, ...]:
    """Of a model, the one that keeps everything first; none where nothing is kept in pages.

    Layers with the selector ``window`` need the blocks only that it chooses; of a prompt all of them, unless
    prompts are read as sparsely.
    """
    groups: dict[tuple[Keeps, int | None], list[int]] = {}
    for layer in shape.attending():
        spec, window = plan.layers[layer], None
        if MIXERS[spec.mixer].windowed:
            keeps, window = Keeps(shape.window), shape.window
        elif spec.selector == "window" and spec.limit is not None and not spec.fraction:
            recent = spec.limit.most - spec.sink
            reach = (recent - 1) * plan.block_size + 1
            keeps = Keeps(reach, int(spec.sink), whole_prompts=not plan.sparse_prefill)
        else:
            keeps = Keeps()
        groups.setdefault((keeps, window), []).append(layer)
    found = [PageGroup(tuple(layers), *kind) for kind, layers in groups.items()]
    return tuple(sorted(found, key=lambda group: group.keeps.reach is not None))
