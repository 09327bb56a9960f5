"""Random models whose layers mix tokens each in its own way: ``from mixed import TRAINED, make_mixed``."""

from __future__ import annotations

from typing import Any

from engines import TinyModel, family_model

from seer_ray.models.mixers import MIXERS

TRAINED = tuple(name for name, traits in MIXERS.items() if traits.trained)
RELAXED = ("mlp", "approximate", "nonapproximate", "rndemb", "fixedseq", "static")
RECURRENT = ("retnet", "gla", "hgrn", "hgrn2", "deltanet", "gated_deltanet")


def make_mixed(*mixers: str, conv: int = 0, **overrides: Any) -> TinyModel:
    """One for all tests, so none may change it; see ``families``."""
    return family_model("seer_mixed", mixers=mixers, num_hidden_layers=len(mixers), conv=conv, **overrides)
