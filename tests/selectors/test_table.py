"""Every row of the table of selectors has a class and a config group's choice."""

from __future__ import annotations

import pytest
from checkout import ROOT

from seer_ray.config.selectors import SELECTORS
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.selectors.base import Selector
from seer_ray.selectors.make import make_selector

SHAPE = AttentionShape(1, 4, 2, 16, ("attention",))


@pytest.mark.parametrize("name", SELECTORS)
def test_rows(name: str) -> None:
    gate = AttnGate(num_query_heads=4, num_kv_heads=2, head_dim=16, gate_dim=16, block_size=8, use_rope=False)
    made = make_selector(name, 0, SHAPE, gate if SELECTORS[name].gates else None)
    assert isinstance(made, Selector) if SELECTORS[name].sparse else made is None
    assert (ROOT / "conf" / "selector" / f"{name}.yaml").read_text() == f"name: {name}\n"


def test_looks_differ() -> None:
    looks = [(traits.colours, traits.marker) for traits in SELECTORS.values()]
    assert len({marker for _, marker in looks}) == len({colours for colours, _ in looks}) == len(looks)
