"""Rows as MLflow shows them: a table for its evaluation page, and chains as traces with their grades."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

Row = dict[str, Any]

FILE = "completions.json"
TABLE = (
    "problem_id",
    "sample",
    "prompt",
    "reasoning",
    "answer",
    "completion",
    "extracted_answer",
    "reference",
    "correct",
    "finish_reason",
    "completion_tokens",
    "error",
)
COLUMNS = (
    *TABLE,
    "grade_error",
    "prompt_tokens",
    "attended_kv",
    "available_kv",
    "queued_s",
    "prefill_s",
    "decode_s",
    "attempts",
    "worker",
    "model",
    "selector",
    "finished_at",
)
MOST_ROWS, LONGEST = 1000, 8000
"""Of the table, which a browser loads whole: rows, and characters of a text, whose end stays."""
PREVIEW = 1000
"""Characters of what MLflow lists of a trace."""


def sample_of(keys: Collection[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """Some rows, evenly over the problems, first samples first; the same ones whatever order they came in."""
    count = min(most, len(keys))
    stride = max(1, len({problem for problem, _ in keys}) / most) if most else 1.0
    last = int((count - 1) * stride) + 1 if count else 0
    ordered = heapq.nsmallest(last, keys, key=lambda key: (key[1], key[0]))
    return [ordered[int(place * stride)] for place in range(count)]


def key(row: Row) -> tuple[str, int]:
    return row["problem_id"], row["sample"]


def table(rows: Sequence[Row]) -> str:
    """As ``mlflow.log_table`` writes one, in order of problem and sample."""
    ordered = sorted(rows, key=key)
    # The completion is shown where reasoning and answer are not told apart.
    apart = any(row["answer"] is not None for row in ordered)
    names = [name for name in TABLE if name != "completion" or not apart]
    return json.dumps({"columns": names, "data": [[_cut(row[name]) for name in names] for row in ordered]})


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"[… {len(value) - LONGEST:,} characters left out …]\n{value[-LONGEST:]}"
    return value


def trace(row: Row, folder: str, run: str, experiment: str) -> tuple[Any, Any]:
    """A chain as MLflow's (``TraceInfo``, ``TraceData``). Its id is a function of the chain: told twice, it
    is there once.

    Args:
        row: with ``COLUMNS``.
        folder: id of the run folder.
        run: MLflow's id of the run.
        experiment: MLflow's.
    """
    from mlflow.entities import TraceData, TraceInfo, TraceLocation, TraceState

    digest = hashlib.sha256(json.dumps([folder, run, *key(row)]).encode()).digest()[:16]
    spans = _spans(row, digest)
    usage = {
        "input_tokens": row["prompt_tokens"],
        "output_tokens": row["completion_tokens"],
        "total_tokens": row["prompt_tokens"] + row["completion_tokens"],
    }
    info = TraceInfo(
        trace_id=_id(digest),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=spans[0]["start_time_unix_nano"] // 10**6,
        execution_duration=(spans[0]["end_time_unix_nano"] - spans[0]["start_time_unix_nano"]) // 10**6,
        state=TraceState.ERROR if row["error"] else TraceState.OK,
        request_preview=row["prompt"][:PREVIEW],
        response_preview=(_answer(row) or "")[-PREVIEW:],
        client_request_id=f"{row['problem_id']}/{row['sample']}"[:250],
        trace_metadata={
            "mlflow.sourceRun": run,
            "mlflow.trace.tokenUsage": json.dumps(usage),
            "mlflow.traceInputs": row["prompt"][:250],
            "mlflow.traceOutputs": (_answer(row) or "")[-250:],
        },
        tags={
            "mlflow.traceName": f"{row['problem_id']}/{row['sample']}"[:250],
            "problem_id": row["problem_id"][:250],
            "sample": str(row["sample"]),
            "selector": row["selector"][:250],
            "finish_reason": row["finish_reason"],
        },
        assessments=_assessments(row, digest),
    )
    return info, TraceData.from_dict({"spans": spans})


def _id(digest: bytes) -> str:
    return f"tr-{digest.hex()}"


def _answer(row: Row) -> str | None:
    """What a reader wants to see of it first."""
    return row["error"] or (row["answer"] if row["answer"] is not None else row["completion"])


def _spans(row: Row, digest: bytes) -> list[Row]:
    """The request, and below it what it was doing when: it waited, its prompt was read, its tokens came."""
    end = _nanoseconds(row["finished_at"])
    waited, prefilled, decoded = (round(1e9 * row[name]) for name in ("queued_s", "prefill_s", "decode_s"))
    begin = end - waited - prefilled - decoded
    message = {"role": "assistant", "content": _answer(row)}
    if row["reasoning"]:
        message["reasoning_content"] = row["reasoning"]
    share = row["attended_kv"] / row["available_kv"] if row["available_kv"] else None
    figures = {
        **{name: row[name] for name in ("model", "selector", "worker", "attempts", "prompt_tokens")},
        **{name: row[name] for name in ("completion_tokens", "attended_kv", "available_kv")},
        "kv_read_share": share,
        "mlflow.llm.model": row["model"],
    }
    whole = {
        "inputs": {"messages": [{"role": "user", "content": row["prompt"]}]},
        "outputs": {"choices": [{"index": 0, "message": message, "finish_reason": row["finish_reason"]}]},
    }
    usage = {"input_tokens": row["prompt_tokens"], "output_tokens": row["completion_tokens"]}
    parts = [
        (None, "chain", begin, end, "CHAT_MODEL", whole, {**figures, "mlflow.chat.tokenUsage": usage}),
        (0, "queued", begin, begin + waited, "UNKNOWN", {}, {}),
        (0, "prefill", begin + waited, begin + waited + prefilled, "UNKNOWN", {}, {}),
        (0, "decode", end - decoded, end, "UNKNOWN", {}, {}),
    ]
    if row["correct"] is not None:
        judged = {
            "inputs": {"answer": row["extracted_answer"], "reference": row["reference"]},
            "outputs": {"correct": row["correct"]},
        }
        parts.append((0, "grade", end, end, "EVALUATOR", judged, {}))
    ids = [hashlib.sha256(digest + bytes([place])).digest()[:8] for place in range(len(parts))]
    error = {"code": "STATUS_CODE_ERROR", "message": row["error"]} if row["error"] else None
    return [
        {
            "trace_id": _base64(digest),
            "span_id": _base64(own),
            "parent_span_id": _base64(ids[parent]) if parent is not None else None,
            "name": name,
            "start_time_unix_nano": start,
            "end_time_unix_nano": stop,
            "events": [],
            "status": error or {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                "mlflow.traceRequestId": json.dumps(_id(digest)),
                "mlflow.spanType": json.dumps(kind),
                **{f"mlflow.span{side.title()}": json.dumps(said) for side, said in sides.items()},
                **{key: json.dumps(value) for key, value in more.items()},
            },
        }
        for own, (parent, name, start, stop, kind, sides, more) in zip(ids, parts, strict=True)
    ]


def _assessments(row: Row, digest: bytes) -> list[Any]:
    """What was expected, and the grade."""
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    found: list[Any] = []
    source = AssessmentSource(source_type="CODE", source_id="seer-ray grader")
    when = _nanoseconds(row["finished_at"]) // 10**6
    times: Any = {"create_time_ms": when, "last_update_time_ms": when}
    if row["reference"] is not None:
        found.append(Expectation("expected_response", row["reference"], source=source, **times))
    if row["correct"] is not None or row["grade_error"]:
        why = row["grade_error"] or f"answer found: {row['extracted_answer'] or 'none'}"
        fault: Any = {"error": why} if row["correct"] is None else {"value": bool(row["correct"])}
        found.append(Feedback("correct", source=source, rationale=why, **fault, **times))
    for place, one in enumerate(found):
        one.assessment_id = f"a-{hashlib.sha256(digest + bytes([100 + place])).hexdigest()[:32]}"
        one.trace_id = _id(digest)
    return found


def _nanoseconds(when: datetime) -> int:
    return round(when.timestamp() * 10**6) * 1000


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
