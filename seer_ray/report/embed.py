"""What a report page carries with it for its table, viewer and maps: deflated, in base64, within a size."""

from __future__ import annotations

import base64
import contextlib
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.engine.trace import Trace
from seer_ray.report.chain_data import Full, pack, sizes
from seer_ray.results.keys import Key

MAPS_PART = 0.4
"""Of the size, what maps may take; texts take what is left."""
LONGEST_TEXTS = (1 << 62, 100_000, 40_000, 16_000, 6_000, 2_000, 600)
"""Characters of a chain that are tried, one after the other, until the texts fit."""
DENSEST = 8
"""Characters that a byte of the page may hold at best: what has more of them need not be tried."""
ROW = 100
"""Characters of a chain beside its text, about."""


@dataclass
class Embedded:
    """Text for ``<script>`` elements that are no scripts: base64, so nothing in it can end one."""

    data: str
    """Deflated JSON: settings, problems and chains."""
    maps: list[str] = field(default_factory=list)
    """Each one chain's deflated bitmaps; the JSON says whose and of what shape."""
    notes: list[str] = field(default_factory=list)
    """What was left out, in sentences for the reader."""


def embed(comparison: Comparison, limit: int) -> Embedded:
    """All chains of a comparison, as far as they fit.

    Args:
        limit: bytes of the result, about
    """
    ordered = sorted(comparison.problems, key=natural)
    notes: list[str] = []
    maps, about = _maps(comparison.runs, ordered, int(limit * MAPS_PART), notes)
    mapped = {said["problem"] for said in about}
    rest = limit - sum(map(len, maps))
    lengths = np.concatenate([sizes(one) for one in comparison.runs])
    room, shortest = DENSEST * rest, LONGEST_TEXTS[-1]
    kept, data = ordered, None
    for longest in (n for n in LONGEST_TEXTS[:-1] if np.minimum(lengths, n).sum() <= room):
        with contextlib.suppress(Full):
            data = pack(comparison, kept, about, longest, rest)
            break
    if data is None:
        longest = shortest
        kept = _every(kept, float((np.minimum(lengths, shortest) + ROW).sum() / max(1, room)), mapped)
    while data is None:
        try:
            data = pack(comparison, kept, about, shortest, rest)
        except Full as full:
            fewer = _every(kept, 1.1 / full.share, mapped)
            # Less than one problem there cannot be, nor less than those that have maps.
            rest = rest if len(fewer) < len(kept) else 1 << 62
            kept = fewer
    if longest != LONGEST_TEXTS[0]:
        notes.append(f"Texts of more than {longest:,} characters are shown without their middle.")
    if len(kept) < len(ordered):
        notes.append(
            f"Chains of {len(kept):,} of the {len(ordered):,} problems are on this page, evenly chosen; "
            "all are in the run folders, and all figures are of all."
        )
    return Embedded(data, maps, notes)


def _every(problems: list[str], stride: float, mapped: set[str]) -> list[str]:
    """Every so many-th, and those that have maps."""
    step = max(1, math.ceil(stride))
    return [one for place, one in enumerate(problems) if place % step == 0 or one in mapped]


def natural(text: str) -> list[tuple[int, int, str]]:
    """Key of an order in which p2 comes before p10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


# -- maps ----------------------------------------------------------------------------------------------


def _maps(
    runs: Iterable[ComparedRun], problems: Sequence[str], limit: int, notes: list[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Recorded chains, the same problems of all settings first, with their problems' ids. Each
    may take its part of what is left."""
    order = {problem: place for place, problem in enumerate(problems)}
    queue: list[tuple[int, int, int, ComparedRun, Key]] = []
    for place, one in enumerate(runs):
        queue += [
            (order[key[0]], key[1], place, one, key) for key in one.folder.recorded() if key[0] in order
        ]
    queue.sort(key=lambda item: item[:3])
    maps: list[str] = []
    about: list[dict[str, Any]] = []
    left_out = coarse = 0
    for number, (_, sample, place, one, key) in enumerate(queue):
        room = max((limit - sum(map(len, maps))) // (len(queue) - number), limit // 20)
        recording = one.folder.read_selection(key)
        data, shape = fit(recording.trace, room)
        if sum(map(len, maps)) + len(data) > limit:
            left_out += 1
            continue
        coarse += bool(shape["merged"] or shape["stride"] > 1)
        said = {"setting": place, "problem": key[0], "sample": sample, "map": len(maps), **shape}
        about.append(said | {"prompt": list(recording.prompt), "tokens": list(recording.tokens)})
        maps.append(data)
    if coarse:
        notes.append(f"{coarse} maps of attended blocks are shown with heads merged or steps left out.")
    if left_out:
        notes.append(f"{left_out} recorded maps are left out; they are in the run folders.")
    return maps, about


def fit(trace: Trace, limit: int) -> tuple[str, dict[str, Any]]:
    """A trace as a map of at most so many bytes, if that can be: with all heads, with the heads of a layer
    merged, then with every second step, every fourth...

    Returns:
        The packed bitmaps of all kept steps, one after the other, each as what flipped since the one before
        (see ``seer_ray.engine.trace``; a step that was not recorded flips nothing), and their shape.
    """
    merged, stride = False, 1
    while True:
        data, missing = _flips(trace, merged, stride)
        packed = base64.b64encode(zlib.compress(data, 9)).decode()
        layers, heads, block = trace.shape
        if len(packed) <= limit or stride > 1024:
            return packed, {
                "layers": layers,
                "heads": 1 if merged else heads,
                "allHeads": heads,
                "block": block,
                "promptTokens": trace.prompt_tokens,
                "steps": len(trace.entries),
                "stride": stride,
                "merged": merged,
                "missing": missing,
            }
        merged, stride = True, stride * 2 if merged else 1


def _flips(trace: Trace, merged: bool, stride: int) -> tuple[bytes, list[int]]:
    """(bitmaps, kept steps that are not recorded)."""
    pieces, missing, last = [], [], np.zeros(0, np.uint8)
    for step, seen in enumerate(trace.steps()):
        if step % stride:
            continue
        if seen is None:
            missing.append(step // stride)
            blocks, layers, heads = trace.blocks(step), trace.shape[0], 1 if merged else trace.shape[1]
            pieces.append(bytes(-(-blocks * layers * heads // 8)))
            last = np.concatenate([last, np.zeros(len(pieces[-1]) - len(last), np.uint8)])
            continue
        bits = np.packbits((seen.any(2) if merged else seen).reshape(-1))
        flips = bits.copy()
        flips[: len(last)] ^= last
        pieces.append(flips.tobytes())
        last = bits
    return b"".join(pieces), missing
