"""Speculation, as the options say it: what drafts tokens, and what then decides the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.fields import MOST_DRAFTED
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.config.works import selection_in, selectors_of

SPECULATE, DRAFTER = "engine.speculate", "engine.drafter"
OFF, AUTO = "0", "auto"
DRAFTING = ("selector.", "plan.")
"""Options that say what a drafter reads, by how they begin, and of those that decide nothing else."""
PROMPTS = "selector.prefill."
"""Options that begin like these, but say how prompts are read, by a drafter or not."""


def speculates(engine: EngineConfig) -> bool:
    """Whether tokens are drafted before they are decided."""
    return engine.speculate != OFF


def longest_draft(engine: EngineConfig) -> int:
    """Tokens that a pass verifies beside its own, at most; 0: there is no speculation."""
    return MOST_DRAFTED if engine.speculate == AUTO else int(engine.speculate)


def check_speculation(selector: SelectorConfig, engine: EngineConfig, plan: PlanConfig) -> None:
    """There is something to draft with, and prompts are as dense decoding has them.

    Raises:
        ConfigError: there is not, or they are not.
    """
    if not speculates(engine):
        return
    said = f"engine.speculate={engine.speculate}"
    if selector.sparse_prefill:
        raise ConfigError(
            f"selector.sparse_prefill=true: with {said} the rows are those of dense decoding, whose prompts "
            "are dense; leave one of the two out"
        )
    if engine.drafter != "ngram" and selectors_of(selector, plan) == {"dense"}:
        raise ConfigError(
            f"{said}: engine.drafter={engine.drafter} drafts with sparse steps, and selector.name=dense has "
            "none; take selector=seer, quest or window, or engine.drafter=ngram"
        )


def speculated(flat: Mapping[str, Any]) -> bool:
    """Whether a run with these options, by dotted name, speculates."""
    return str(flat.get(SPECULATE, OFF)) != OFF


def decided(flat: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the rows of a run, in one form for all runs whose rows are dense decoding's: those that
    speculate, and those in which every layer reads everything.

    Args:
        flat: options by dotted name.
        defaults: of all options.
    """
    if not speculated(flat) and selectors_of(*selection_in(flat)) != {"dense"}:
        return dict(flat)
    kept = {name: value for name, value in flat.items() if not _drafts(name)}
    return kept | {name: value for name, value in defaults.items() if name in flat and _drafts(name)}


def _drafts(name: str) -> bool:
    return name in (SPECULATE, DRAFTER) or (name.startswith(DRAFTING) and not name.startswith(PROMPTS))
