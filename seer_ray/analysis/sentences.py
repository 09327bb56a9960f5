"""Comparisons in sentences."""

from __future__ import annotations

import numpy as np

from seer_ray.analysis.outcomes import Outcomes
from seer_ray.analysis.paired import Difference, Drift, PairedOutcomes
from seer_ray.analysis.power import More
from seer_ray.analysis.speedup import Speedup
from seer_ray.analysis.words import points, round_percent

CUT_OFF = 0.05
"""Fraction of truncated chains above which lengths and accuracies are about the limit too."""


def sentence(
    name: str,
    baseline: str,
    found: Difference,
    attended_share: float | None,
    speedup: Speedup,
    length: Drift | None,
) -> str:
    """One setting: ``seer 2,048: change in accuracy −0.4 points (−1.7 to +0.8), attention reads ...``."""
    spread = f" ({found.ends})" if np.isfinite(found.low) else ""
    parts = [f"change in accuracy {points(found.value)} points{spread}"]
    if attended_share:
        bound = f"at most {1 / attended_share:.1f}x by bytes"
        parts.append(f"attention reads {round_percent(attended_share)} of the KV ({bound})")
    if speedup.value is not None:
        ends = f" ({speedup.low:.2g} to {speedup.high:.2g})"
        parts.append(f"decode {speedup.value:.2g}x {baseline}{ends}")
    if length is not None:
        drift = round(100 * length.value)
        word = "longer" if drift > 0 else "shorter"
        parts.append(f"chains {abs(drift)} % {word}" if drift else "chains of the same length")
    return f"{name}: {', '.join(parts)}"


def rests_on(
    found: Difference, why: str, speed: Speedup, cautions: tuple[str, ...], settings: int, confidence: float
) -> str:
    """What a sentence rests on."""
    text = (
        f"{found.pairs:,} pairs of {found.problems:,} problems, in brackets {100 * confidence:g} % intervals "
        f"by problem; {found.lost} pairs lost, {found.gained} gained (p = {found.p_value:.2g}); {why}"
    )
    text += f"; speed: in {speed.turns} turns" if speed.value is not None else f"; speed: {speed.lacks}"
    if settings > 1:
        wrong = round_percent(1 - confidence)
        text += f"; {settings} settings compared, chance that any is wrongly said to keep it at most {wrong}"
    return text + "".join(f"; {caution}" for caution in cautions)


def undecided(name: str, lacking: More | None) -> str:
    """What would decide about a setting."""
    if lacking is None:
        return f"{name} is not decided, and more data would hardly show it: it was seen to lose the margin."
    truth = "it loses nothing" if lacking.assumed == 0 else f"the loss is {points(lacking.assumed)} points"
    chance = f"{100 * lacking.power:.0f} % chance to show it, if {truth}"
    return f"To decide about {name}: {lacking.text} ({chance})."


def cautions(
    pairs: PairedOutcomes, found: Difference, baseline: Outcomes, setting: Outcomes
) -> tuple[str, ...]:
    """What the figures do not say by themselves."""
    said = []
    if pairs.unlike:
        said.append(
            f"{pairs.unlike:,} chains of {pairs.name} are not those of {pairs.baseline}, though dense "
            "attention decides both: by rounding; engine.exact=true has it that none is"
        )
    if found.caution:
        said.append(found.caution)
    if pairs.unmatched:
        said.append(
            f"{pairs.unmatched:,} samples are there for one only and left out: "
            "while a job runs, the long chains are those that are missing"
        )
    if not pairs.same_seed:
        said.append("different seeds: pairs share the problem, not the noise")
    for outcomes in (baseline, setting):
        if outcomes.errors:
            said.append(f"{outcomes.errors:,} rows of {outcomes.name} have an error and count as wrong")
        if outcomes.ungraded:
            said.append(f"{outcomes.ungraded:,} completions of {outcomes.name} are not graded and left out")
        cut = float(np.nanmean(outcomes.truncated)) if np.isfinite(outcomes.truncated).any() else 0.0
        if cut > CUT_OFF:
            said.append(f"{round_percent(cut)} of the chains of {outcomes.name} are cut off at the limit")
    return tuple(said)
