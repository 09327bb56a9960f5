"""The named layouts of a layer plan: which layers are anchors.

The first nine are those of Xue et al. (2025), "Deconstructing Attention", Table 11, which keep 12, 12, 12,
12, 12, 6, 1, 1 and 2 of 24 layers. Names are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LAYOUTS: dict[str, Callable[[int], Iterable[int]]] = {
    "even": lambda n: range(1, n, 2),  # counted from 1, as the paper does
    "odd": lambda n: range(0, n, 2),
    "top": lambda n: range(n // 2),
    "middle": lambda n: (*range(n // 4), *range(n - n // 4, n)),
    "bottom": lambda n: range(n // 2, n),
    "quarter": lambda n: range(3, n, 4),
    "first": lambda n: (0,),
    "last": lambda n: (n - 1,),
    "bilateral": lambda n: {0, n - 1},
    "all_cheap": lambda n: (),
    "all_anchor": lambda n: range(n),
}
"""By name: the anchors among ``n`` layers, counted from 0."""


def anchors_of(name: str, layers: int) -> frozenset[int]:
    """Of a named layout; the last layer where there are too few for any other, unless none are meant."""
    found = frozenset(LAYOUTS[name](layers))
    return found if found or name == "all_cheap" else frozenset({layers - 1})
