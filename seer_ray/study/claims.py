"""What two papers say of small models with other layers, and whether it holds here, seed by seed.

"Deconstructing Attention" (arXiv:2510.11602) and "A Systematic Analysis of Hybrid Linear Attention"
(arXiv:2507.06457), as far as models of minutes can tell: gaps that are large, never absolute values. Where
full attention stands first in its block and not last, as in the second paper: with few steps, linear layers
below it learn half of the task and keep it from learning the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seer_ray.study.grid import ALL, UNIFORM, Trained
from seer_ray.study.outcomes import hardest

TEXT, SKIPPED = "text/perplexity", "text_skip/perplexity"
CONTEXT = "text_context_"
HYBRID, FIRST = ("even", "1:1 last", "1:1"), ("3:1 first",)
"""Layouts: every other layer an anchor; one anchor before three others."""


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        name: short.
        says: the claim.
        holds: for every seed; None: this grid does not tell.
        figures: of the seed that is nearest to the limit, or worst beyond it.
    """

    name: str
    says: str
    holds: bool | None
    figures: str


Values = list[dict[str, float]]
"""Of a model, by seed."""


def claims(found: Trained) -> list[dict[str, Any]]:
    """All claims, in the papers' order."""
    return [asdict(claim) for claim in _claims(found)]


def _claims(found: Trained) -> Iterator[Claim]:
    for mixer in ("gated_deltanet", "retnet"):
        yield _recall(found, mixer)
    for mixer, least in (("mlp", 1.5), ("nonapproximate", 1.2)):
        says = f"perplexity of {mixer} alone is at least {least} times that of attention"
        yield _ratio("G2", says, _text(found, mixer, (UNIFORM,)), _baseline(found), least, above=True)
    for mixer in ("mlp", "nonapproximate"):
        says = f"perplexity of {mixer} in every other layer is at most 1.15 times that of attention"
        yield _ratio("G3", says, _text(found, mixer, HYBRID), _baseline(found), 1.15, above=False)
    for mixer in dict.fromkeys(model.mixer for model in found.cells if model.layout in HYBRID):
        hybrid = _text(found, mixer, HYBRID)
        skipped = hybrid if hybrid and all(SKIPPED in one for one in hybrid) else None
        says = f"without its layers of {mixer}, the hybrid's perplexity is at least 5 times as high"
        yield _ratio("G4", says, skipped, hybrid, 5.0, above=True, name=SKIPPED)
    yield _invariant(found)


def _recall(found: Trained, mixer: str) -> Claim:
    says = (
        f"attention before three layers of {mixer} recalls 0.95 at least; {mixer} alone 0.7 at most, and 0.3 "
        "less"
    )
    for learn in dict.fromkeys(model.learn for model in found.cells):
        pure, mixed = (_of(found, learn, mixer, layouts) for layouts in ((UNIFORM,), FIRST))
        if not pure or not mixed or (name := hardest(pure[0])) is None:
            continue
        pairs = [(one[name], other[name]) for one, other in zip(mixed, pure, strict=True)]
        holds = all(high >= 0.95 and low <= 0.7 and high - low >= 0.3 for high, low in pairs)
        figures = ", ".join(f"{high:.3f} and {low:.3f}" for high, low in pairs)
        return Claim("G1", says, holds, figures)
    return Claim("G1", says, None, "")


def _ratio(
    claim: str,
    says: str,
    ours: Values | None,
    theirs: Values | None,
    limit: float,
    above: bool,
    name: str = TEXT,
) -> Claim:
    if not ours or not theirs:
        return Claim(claim, says, None, "")
    ratios = [one[name] / other[TEXT] for one, other in zip(ours, theirs, strict=True)]
    worst = min(ratios) if above else max(ratios)
    return Claim(claim, says, worst >= limit if above else worst <= limit, f"{worst:,.3g} times")


def _invariant(found: Trained) -> Claim:
    says = "the perplexity of mlp alone is the same in contexts of any length, to 1e-6"
    values = _text(found, "mlp", (UNIFORM,)) or []
    ends = "/perplexity"
    apart = [
        abs(value / one[TEXT] - 1)
        for one in values
        for name, value in one.items()
        if name.startswith(CONTEXT) and name.endswith(ends)
    ]
    if not apart:
        return Claim("G5", says, None, "")
    return Claim("G5", says, max(apart) <= 1e-6, f"{max(apart):.1e} apart at most")


def _baseline(found: Trained) -> Values | None:
    return _first(found, lambda mixer, layout: layout == ALL)


def _text(found: Trained, mixer: str, layouts: Sequence[str]) -> Values | None:
    return _first(found, lambda one, layout: one == mixer and layout in layouts)


def _first(found: Trained, wanted: Callable[[str, str], bool]) -> Values | None:
    """Of the models that learn a text."""
    for model, cells in found.cells.items():
        if wanted(model.mixer, model.layout) and TEXT in cells[0]:
            return cells
    return None


def _of(found: Trained, learn: str, mixer: str, layouts: Sequence[str]) -> Values | None:
    for model, cells in found.cells.items():
        if (model.learn, model.mixer) == (learn, mixer) and model.layout in layouts:
            return cells
    return None
