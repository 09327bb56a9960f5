"""Cache groups: layers that keep the same kind of memory, each with pages of its own."""

from __future__ import annotations

from dataclasses import dataclass

from seer_ray.models.mixers import MIXERS
from seer_ray.models.patch import AttentionShape


@dataclass(frozen=True)
class PageGroup:
    """Layers whose K and V are kept equally long: they share a page table."""

    layers: tuple[int, ...]
    reach: int | None = None
    """Tokens that they look back, the current one included; None: all. Pages behind are given back."""


def page_groups(shape: AttentionShape) -> tuple[PageGroup, ...]:
    """Of a model, the one that keeps everything first; none where nothing is kept in pages."""
    near = tuple(layer for layer in shape.attending() if MIXERS[shape.mixers[layer]].windowed)
    far = tuple(layer for layer in shape.attending() if layer not in near)
    return (*([PageGroup(far)] if far else []), *([PageGroup(near, shape.window)] if near else []))
