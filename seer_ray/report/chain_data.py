"""The chains of a report page as JSON, deflated as it is written: only texts that are cut are in memory."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seer_ray.analysis.comparison import ComparedRun, Comparison
from seer_ray.report.drawing import colour
from seer_ray.report.inputs import inputs_of

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
AT_ONCE = 256
"""Rows that are Python objects at one time."""
CHAINS = pa.schema(
    {
        "p": pa.int32(),
        "s": pa.int32(),
        "q": pa.int32(),
        "t": pa.large_string(),
        "a": pa.large_string(),
        "k": pa.dictionary(pa.int8(), pa.string()),
        "f": pa.dictionary(pa.int8(), pa.string()),
        "e": pa.large_string(),
        "n": pa.int32(),
        "r": pa.float64(),
        "d": pa.float64(),
    }
)
"""Of each row: place of its problem, sample, place of its prompt, text, answer found, verdict, finish reason,
error, tokens, share of the KV that was read, seconds of decoding."""


class Full(Exception):
    """More than there is room for.

    Args:
        share: of the chains, that fitted.
    """

    def __init__(self, share: float) -> None:
        super().__init__(f"only {100 * share:.1f} % of the chains fit")
        self.share = share


class _Deflated:
    """Text, deflated as it comes."""

    def __init__(self) -> None:
        self._deflate, self._pieces = zlib.compressobj(6), list[bytes]()
        self.size = 0
        """Bytes so far, in base64."""

    def write(self, text: str) -> None:
        # A lone surrogate from a JSON dataset is no UTF-8.
        self._keep(self._deflate.compress(text.encode("utf-8", "replace")))

    def finish(self) -> str:
        """All of it, in base64."""
        self._keep(self._deflate.flush())
        return base64.b64encode(b"".join(self._pieces)).decode()

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self.size += len(data) * 4 // 3


class _Chains:
    """Chains by problem and sample, of batches in which they stand in any order. The texts stay where they
    are: there is no room for two of them."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches
        rows = [np.arange(batch.num_rows) for batch in batches]
        where = [np.full(batch.num_rows, place) for place, batch in enumerate(batches)]
        keys = ([np.asarray(batch[name]) for batch in batches] for name in ("s", "p"))
        order = np.lexsort([_joined(key) for key in keys])
        self._batch, self._row = _joined(where)[order], _joined(rows)[order]

    def __len__(self) -> int:
        return len(self._row)

    def values(self, column: str, rows: slice) -> list[Any]:
        """Of some of them."""
        places = zip(self._batch[rows].tolist(), self._row[rows].tolist(), strict=True)
        return [self._batches[batch][column][row].as_py() for batch, row in places]


def _joined(pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def sizes(one: ComparedRun) -> NDArray[np.int64]:
    """Characters of each completion."""
    found = [
        pc.utf8_length(batch["completion"]).to_numpy(zero_copy_only=False)
        for batch in one.folder.stream(("completion",))
    ]
    return _joined(found)


def pack(
    comparison: Comparison,
    kept: Sequence[str],
    maps: Sequence[Mapping[str, Any]],
    longest: int,
    limit: int,
) -> str:
    """Settings, problems, prompts and chains, and what maps there are.

    Args:
        kept: problems whose chains are told, in their order on the page.
        maps: of those problems, by id.
        longest: characters of a text; what is longer loses its middle.
        limit: bytes of the result.

    Raises:
        Full: it is more.
    """
    out, order = _Deflated(), {problem: place for place, problem in enumerate(kept)}
    prompts: dict[str, int] = {}
    references: dict[str, str | None] = {}
    out.write('{"settings":[')
    for number, one in enumerate(comparison.runs):
        about = {"name": one.name, "colour": colour(one), "dense": one.setting.dense}
        out.write(f'{"," if number else ""}{_json(about)[:-1]},"chains":{{')
        chains = _chains(one, order, longest, prompts, references)
        # Texts are most of it: the last.
        for column in sorted(CHAINS.names, key="t".__eq__):
            out.write(f'{"" if column == "p" else ","}"{column}":[')
            for start in range(0, len(chains), AT_ONCE):
                values = chains.values(column, slice(start, start + AT_ONCE))
                out.write(f"{',' if start else ''}{_json(values)[1:-1]}")
                if out.size > limit:
                    done = number + (start + AT_ONCE) / len(chains) if column == "t" else number
                    raise Full(max(0.05, min(1.0, done / len(comparison.runs))))
            out.write("]")
        out.write("}}")
    inputs = inputs_of(one.folder for one in comparison.runs)
    problems = [{"id": id, "in": inputs.get(id, {}), "ref": references.get(id)} for id in kept]
    placed = [{**said, "problem": order[said["problem"]]} for said in maps]
    rest = {"problems": problems, "prompts": list(prompts), "maps": placed}
    out.write(f"],{_json(rest)[1:]}")
    text = out.finish()
    if len(text) > limit:
        raise Full(0.9 * limit / len(text))
    return text


def _chains(
    one: ComparedRun,
    order: Mapping[str, int],
    longest: int,
    prompts: dict[str, int],
    references: dict[str, str | None],
) -> _Chains:
    """The rows of a setting with their texts cut; adds prompts and references."""
    tables, wanted = [], pa.array(order, pa.large_string())
    for batch in one.folder.stream(COLUMNS):
        batch = batch.filter(pc.is_in(batch["problem_id"], wanted))
        for start in range(0, batch.num_rows, AT_ONCE):
            rows = batch.slice(start, AT_ONCE).to_pylist()
            references.update((row["problem_id"], row["reference"]) for row in rows)
            told = [_told(row, order, longest, prompts) for row in rows]
            tables.append(pa.RecordBatch.from_pylist(told, CHAINS))
    return _Chains(tables)


def _told(
    row: Mapping[str, Any], order: Mapping[str, int], longest: int, prompts: dict[str, int]
) -> dict[str, Any]:
    return {
        "p": order[row["problem_id"]],
        "s": row["sample"],
        "q": prompts.setdefault(_cut(row["prompt"], longest), len(prompts)),
        "t": _cut(row["completion"], longest),
        "a": row["extracted_answer"],
        "k": _verdict(row),
        "f": row["finish_reason"],
        "e": row["error"] or row["grade_error"],
        "n": row["completion_tokens"],
        "r": round(row["attended_kv"] / row["available_kv"], 4) if row["available_kv"] else None,
        "d": round(row["decode_s"], 2),
    }


def _verdict(row: Mapping[str, Any]) -> str:
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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
