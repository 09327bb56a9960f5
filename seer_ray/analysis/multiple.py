"""Many tests, one error rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def sequences(p_values: Mapping[str, float], ordered: Sequence[Sequence[str]], alpha: float) -> set[str]:
    """Hypotheses that are rejected with a familywise error rate of at most ``alpha``, in the strong sense.

    Each sequence is tested in its order until one stands, which costs nothing for its length: a wrong
    rejection can only be the first true hypothesis of it. The sequences share ``alpha``, and one that is
    rejected to its end leaves its part to the others (the graphical procedure of Bretz, Maurer, Brannath
    and Posch 2009). One sequence is fixed-sequence testing; sequences of one hypothesis each are Holm's
    procedure.

    The orders must not depend on the outcomes that are tested.

    Args:
        p_values: by hypothesis; NaN: nothing is known, it stands
        ordered: the sequences; every hypothesis in one of them
        alpha: in (0, 1)
    """
    waiting = [list(sequence) for sequence in ordered if sequence]
    levels = [alpha / max(1, len(waiting))] * len(waiting)
    rejected: set[str] = set()
    moved = True
    while moved:
        moved = False
        for i, sequence in enumerate(waiting):
            while sequence and _at_most(p_values[sequence[0]], levels[i]):
                rejected.add(sequence.pop(0))
                moved = True
            if not sequence and levels[i]:
                others = [j for j, left in enumerate(waiting) if left]
                for j in others:
                    levels[j] += levels[i] / len(others)
                levels[i] = 0.0
    return rejected


def _at_most(p: float, level: float) -> bool:
    return not math.isnan(p) and p <= level * (1 + 1e-12)
