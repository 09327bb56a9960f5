"""What a report page carries with it for its table, viewer and maps: deflated, in base64, within a size."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.engine.trace import Trace
from seer_ray.report.drawing import colour
from seer_ray.report.inputs import inputs_of
from seer_ray.results.entry import Key

MAPS_PART = 0.4
"""Of the size, what maps may take; texts take what is left."""
LONGEST_TEXTS = (1 << 62, 100_000, 40_000, 16_000, 6_000, 2_000, 600)
"""Characters of a chain that are tried, one after the other, until the texts fit."""
DENSEST = 8
"""Characters that a byte of the page may hold at best: what has more of them need not be tried."""
COLUMNS = (
    "problem_id",
    "sample",
    "prompt",
    "completion",
    "extracted_answer",
    "reference",
    "correct",
    "grade_error",
    "error",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "attended_kv",
    "available_kv",
    "decode_s",
)


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
    order = {problem: place for place, problem in enumerate(sorted(comparison.problems, key=natural))}
    notes: list[str] = []
    maps, about = _maps(comparison.runs, order, int(limit * MAPS_PART), notes)
    rest = limit - sum(map(len, maps))
    sizes = np.concatenate([_sizes(one) for one in comparison.runs])
    for longest in LONGEST_TEXTS:
        if np.minimum(sizes, longest).sum() > DENSEST * rest and longest != LONGEST_TEXTS[-1]:
            continue
        data = _pack(_page_data(comparison, order, about, longest))
        if len(data) <= rest:
            break
    if longest != LONGEST_TEXTS[0]:
        notes.append(f"Texts of more than {longest:,} characters are shown without their middle.")
    return Embedded(data, maps, notes)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Key of an order in which p2 comes before p10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def _page_data(
    comparison: Comparison,
    order: dict[str, int],
    maps: list[dict[str, Any]],
    longest: int,
) -> dict[str, Any]:
    prompts: dict[str, int] = {}
    inputs = inputs_of(one.folder for one in comparison.runs)
    problems: list[dict[str, Any]] = [{"id": problem, "in": inputs.get(problem, {})} for problem in order]
    settings = []
    for one in comparison.runs:
        columns: dict[str, list[Any]] = {
            name: [] for name in ("p", "s", "q", "t", "a", "k", "f", "e", "n", "r", "d")
        }
        for row in _chains(one, order, longest):
            problem = problems[order[row["problem_id"]]]
            problem["ref"] = row["reference"]
            values = (
                order[row["problem_id"]],
                row["sample"],
                prompts.setdefault(row["prompt"], len(prompts)),
                row["completion"],
                row["extracted_answer"],
                _verdict(row),
                row["finish_reason"],
                row["error"] or row["grade_error"],
                row["completion_tokens"],
                round(row["attended_kv"] / row["available_kv"], 4) if row["available_kv"] else None,
                round(row["decode_s"], 2),
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        settings.append(
            {"name": one.name, "colour": colour(one), "dense": one.setting.dense, "chains": columns}
        )
    return {"settings": settings, "problems": problems, "prompts": list(prompts), "maps": maps}


def _sizes(one: ComparedRun) -> NDArray[np.int64]:
    """Characters of each completion."""
    found = [
        pc.utf8_length(batch["completion"]).to_numpy(zero_copy_only=False)
        for batch in one.folder.stream(("completion",))
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _chains(one: ComparedRun, order: dict[str, int], longest: int) -> list[dict[str, Any]]:
    """Rows with their texts cut, as they are read: all texts of a run may be more than the memory holds."""
    rows = []
    for batch in one.folder.stream(COLUMNS):
        for row in batch.to_pylist():
            rows.append({**row, **{name: _cut(row[name], longest) for name in ("prompt", "completion")}})
    return sorted(rows, key=lambda row: (order[row["problem_id"]], row["sample"]))


def _verdict(row: dict[str, Any]) -> str:
    """``right``, ``wrong``, ``none`` (no answer, and so wrong), ``error`` or ``ungraded``."""
    if row["error"] is not None:
        return "error"
    if row["correct"] is None:
        return "ungraded"
    if row["extracted_answer"] is None and not row["correct"]:
        return "none"
    return "right" if row["correct"] else "wrong"


def _cut(text: str, longest: int) -> str:
    """Without the middle of what is too long: the answer stands at the end."""
    if len(text) <= longest:
        return text
    tail = longest // 2
    gone = len(text) - longest
    return f"{text[: longest - tail]}\n[… {gone:,} characters left out …]\n{text[-tail:]}"


# -- maps ----------------------------------------------------------------------------------------------


def _maps(
    runs: Iterable[ComparedRun], order: dict[str, int], limit: int, notes: list[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Recorded chains, the same problems of all settings first. Each may take its part of what is left."""
    queue: list[tuple[int, int, int, ComparedRun, Key]] = []
    for place, one in enumerate(runs):
        queue += [
            (order[key[0]], key[1], place, one, key) for key in one.folder.recorded() if key[0] in order
        ]
    queue.sort(key=lambda item: item[:3])
    maps: list[str] = []
    about: list[dict[str, Any]] = []
    left_out = coarse = 0
    for number, (problem, sample, place, one, key) in enumerate(queue):
        room = max((limit - sum(map(len, maps))) // (len(queue) - number), limit // 20)
        recording = one.folder.read_selection(key)
        data, shape = fit(recording.trace, room)
        if sum(map(len, maps)) + len(data) > limit:
            left_out += 1
            continue
        coarse += bool(shape["merged"] or shape["stride"] > 1)
        said = {"setting": place, "problem": problem, "sample": sample, "map": len(maps), **shape}
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


def _pack(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate from a JSON dataset is no UTF-8.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode()
