"""Rows in forms that other programs read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import write_file

COLUMNS = (
    "problem_id",
    "sample",
    "completion",
    "reasoning",
    "answer",
    "finish_reason",
    "extracted_answer",
    "reference",
    "correct",
    "prompt_tokens",
    "completion_tokens",
    "model",
    "error",
    "finished_at",
)
FINISH = {"stop": "stop", "length": "length"}
"""Reasons of ours that OpenAI's API has too."""


def openai_batch(run: RunFolder, file: str) -> int:
    """All rows as a result file of OpenAI's batch API: a JSON line each, with ``custom_id`` and either
    ``response`` or ``error``.

    ``custom_id`` is the problem's id; in a run of several samples, which cannot share one, the sample number
    stands behind it: ``id/0``, ``id/1``. What the API has no field for stands in ``response.body.metadata``:
    sample, answer, reference and grade.

    Returns:
        How many lines there are.

    Raises:
        ConfigError: the file cannot be written, or the run has no rows.
    """
    table = run.read(COLUMNS)
    if not table.num_rows:
        raise ConfigError(f"{run.uri}: has no rows yet; give the run's command again to go on with it")
    several = len(set(table["sample"].to_pylist())) > 1
    lines = [json.dumps(line) for line in _lines(run.run_id, table.to_pylist(), several)]
    try:
        write_file(Path(file).expanduser(), ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"--openai-batch {file}: cannot be written ({one_line(error)})") from error
    return len(lines)


def _lines(run_id: str, rows: list[dict[str, Any]], several: bool) -> Iterator[dict[str, Any]]:
    for row in rows:
        custom_id = f"{row['problem_id']}/{row['sample']}" if several else row["problem_id"]
        # The same row has the same id in every export.
        unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{row['sample']}/{row['problem_id']}").hex
        line: dict[str, Any] = {"id": f"batch_req_{unique}", "custom_id": custom_id}
        if row["error"] is not None:
            yield line | {"response": None, "error": {"code": "request_failed", "message": row["error"]}}
        else:
            response = {"status_code": 200, "request_id": unique, "body": _body(row, unique)}
            yield line | {"response": response, "error": None}


def _message(row: dict[str, Any]) -> dict[str, Any]:
    """The reasoning apart, as servers that tell it apart have it."""
    if row["reasoning"] is None and row["answer"] is None:
        return {"role": "assistant", "content": row["completion"]}
    message = {"role": "assistant", "content": row["answer"]}
    return message if row["reasoning"] is None else message | {"reasoning_content": row["reasoning"]}


def _body(row: dict[str, Any], unique: str) -> dict[str, Any]:
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    metadata = {
        "sample": str(row["sample"]),
        "extracted_answer": row["extracted_answer"],
        "answer": row["reference"],
        "correct": None if row["correct"] is None else str(row["correct"]).lower(),
    }
    return {
        "id": f"chatcmpl-{unique}",
        "object": "chat.completion",
        "created": int(row["finished_at"].timestamp()),
        "model": row["model"],
        "choices": [
            {
                "index": 0,
                "message": _message(row),
                "logprobs": None,
                "finish_reason": FINISH.get(row["finish_reason"], "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
