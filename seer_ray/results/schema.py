"""The columns of a completions file: the one place that says their names, types, units and meaning."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

VERSION = 1
"""Of the run folder and of its Parquet files. A folder of a newer version is refused."""


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False


TEXT = pa.large_string()
_LIKELY = {"token_id": pa.int32(), "token": pa.string(), "logprob": pa.float32()}
LOGPROB = pa.struct({**_LIKELY, "top": pa.list_(pa.struct(_LIKELY))})
COLUMNS = (
    Column("problem_id", TEXT, "id of the dataset row"),
    Column("sample", pa.int32(), "number of the completion among those of its problem, from 0"),
    Column(
        "seed",
        pa.int64(),
        "of the job, or the row's own; noise is a function of (seed, problem_id, sample, position)",
    ),
    Column("prompt", TEXT, "rendered by the chat template"),
    Column("asked", TEXT, "settings of the row's own, as JSON; null: none", nullable=True),
    Column("completion", TEXT, "generated text, with the marks of reasoning and no other special tokens"),
    Column("reasoning", TEXT, "its reasoning, without marks; null: none, or not told apart", nullable=True),
    Column(
        "answer",
        TEXT,
        "what is not reasoning, which is graded; null: the reasoning did not end, or not told apart",
        nullable=True,
    ),
    Column("token_ids", pa.list_(pa.int32()), "generated token ids"),
    Column(
        "inputs",
        TEXT,
        "columns of the dataset's row that task.columns.keep names, as a JSON object; null: it names none",
        nullable=True,
    ),
    Column(
        "logprobs",
        pa.list_(LOGPROB),
        "of each token, by the model alone, with the most likely ones; null: sampling.logprobs is not set",
        nullable=True,
    ),
    Column("finish_reason", TEXT, "stop, length, abort or error"),
    Column("extracted_answer", TEXT, "the answer that the grader found; null: none", nullable=True),
    Column("reference", TEXT, "the answer graded against; null: none", nullable=True),
    Column("correct", pa.bool_(), "null: not graded (see grade_error, error, reference)", nullable=True),
    Column(
        "score",
        pa.float64(),
        "0 to 1, of graders that give parts of a point; null: correct says it all, or not graded",
        nullable=True,
    ),
    Column(
        "in_form",
        pa.bool_(),
        "the answer stands in the form that the prompt asks for, such as a box; null: it asks for none",
        nullable=True,
    ),
    Column("grade_error", TEXT, "why the grader failed", nullable=True),
    Column("prompt_tokens", pa.int32(), "length of the prompt", "tokens"),
    Column("completion_tokens", pa.int32(), "length of token_ids", "tokens"),
    Column(
        "thinking_tokens",
        pa.int32(),
        "tokens of the reasoning, without marks; null: the model's marks are not known",
        "tokens",
        nullable=True,
    ),
    Column(
        "thinking_forced",
        pa.bool_(),
        "its end was forced at sampling.thinking_budget; null: there is no budget",
        nullable=True,
    ),
    Column(
        "attended_kv",
        pa.int64(),
        "KV read, summed over steps, layers and KV heads: by drafts and what verifies them, too",
        "tokens",
    ),
    Column(
        "available_kv",
        pa.int64(),
        "KV dense attention would read; sparsity = 1 - attended/available",
        "tokens",
    ),
    Column(
        "attended_kv_layers",
        pa.list_(pa.int64()),
        "attended_kv of each layer; null: not counted by layer. Each layer has an equal part of available_kv",
        "tokens",
        nullable=True,
    ),
    Column(
        "drafted",
        pa.list_(pa.int64()),
        "passes with a draft token at place 1, 2, ... behind the token before; null: nothing was drafted",
        nullable=True,
    ),
    Column(
        "accepted", pa.list_(pa.int64()), "those of them that became tokens; null likewise", nullable=True
    ),
    Column(
        "draft_kv",
        pa.int64(),
        "of attended_kv, what drafts read; the rest is what verified them; null: nothing was drafted",
        "tokens",
        nullable=True,
    ),
    Column("queued_s", pa.float64(), "waiting inside engines", "s"),
    Column("prefill_s", pa.float64(), "prefill", "s"),
    Column(
        "first_token_s",
        pa.float64(),
        "from its submission to an engine to its first token, waiting included; null: not known",
        "s",
        nullable=True,
    ),
    Column("decode_s", pa.float64(), "first to last token", "s"),
    Column("preemptions", pa.int32(), "times the chain was put back to make room"),
    Column("attempts", pa.int32(), "workers that were given this request; more than 1: some died"),
    Column("worker", TEXT, "which worker finished it; null: none", nullable=True),
    Column("model", TEXT, "base model"),
    Column(
        "selector", TEXT, "layer plan in readable form, budget included; where layers differ with a digest"
    ),
    Column("error", TEXT, "why there is no completion; null: there is one", nullable=True),
    Column("finished_at", pa.timestamp("us", tz="UTC"), "when the completion ended"),
)
TOKENS = "token_ids"
NAMES = tuple(column.name for column in COLUMNS)


def schema(metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The Parquet schema. Units and meanings stand in each field's metadata and, for readers that see only
    the file's, under ``seer_ray.columns`` as JSON."""
    fields = [
        pa.field(c.name, c.type, nullable=c.nullable, metadata={"unit": c.unit, "meaning": c.meaning})
        for c in COLUMNS
    ]
    described = {c.name: {"unit": c.unit, "meaning": c.meaning} for c in COLUMNS}
    own = {"seer_ray.schema_version": str(VERSION), "seer_ray.columns": json.dumps(described)}
    return pa.schema(fields, metadata={**own, **(metadata or {})})


def table(rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, str] | None = None) -> pa.Table:
    """Rows as a table of this schema.

    Raises:
        ValueError: a row lacks a column that must be given, or has one that does not exist.
    """
    rows, known = list(rows), frozenset(NAMES)
    for row in rows:
        if unknown := row.keys() - known:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    return pa.Table.from_arrays([_array(column, rows) for column in COLUMNS], schema=schema(metadata))


def _array(column: Column, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    values = [row.get(column.name) for row in rows]
    if not column.nullable:
        for row, value in zip(rows, values, strict=True):
            if value is None:
                raise ValueError(f"{column.name}: missing in the row of {row.get('problem_id')!r}")
    if column.name == TOKENS:
        return lists([value or () for value in values], "i")
    if column.type == TEXT:
        try:
            return pa.array(values, TEXT)
        except UnicodeError:
            values = list(map(clean, values))
    return pa.array(values, column.type)


def lists(values: Iterable[Iterable[int]], code: str) -> pa.ListArray:
    """Lists of whole numbers; those that are arrays are copied as they are.

    Args:
        code: ``i`` or ``q``, of 4 or 8 bytes each.
    """
    numbers, ends = array(code), [0]
    for value in values:
        numbers.extend(value)
        ends.append(len(numbers))
    flat = np.frombuffer(numbers, np.dtype(code)) if numbers else np.empty(0, np.dtype(code))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat))


def clean(value: Any) -> Any:
    """Text that UTF-8 can hold: JSON input may carry lone surrogates, and one must not cost a job."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
