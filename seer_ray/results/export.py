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
    "asked",
    "completion",
    "reasoning",
    "answer",
    "logprobs",
    "finish_reason",
    "extracted_answer",
    "reference",
    "correct",
    "prompt_tokens",
    "completion_tokens",
    "thinking_tokens",
    "model",
    "error",
    "finished_at",
)
FINISH = {"stop": "stop", "length": "length"}
"""Reasons of ours that OpenAI's API has too."""
COMPLETIONS = "/v1/completions"

Row = dict[str, Any]


def openai_batch(run: RunFolder, file: str) -> int:
    """The answers as a result file of OpenAI's batch API: a JSON line for each problem whose samples are all
    there, with ``custom_id`` and either ``response`` or ``error``.

    ``custom_id`` is the problem's id, samples are ``choices``; one that failed fails its line. What the API
    has no field for stands in ``response.body.metadata``: answer, reference and grade, of several samples
    with the number behind the name.

    Returns:
        How many lines there are.

    Raises:
        ConfigError: the file cannot be written, or the run has no rows.
    """
    table = run.read(COLUMNS)
    if not table.num_rows:
        raise ConfigError(f"{run.uri}: has no rows yet; give the run's command again to go on with it")
    lines = [json.dumps(line) for line in _lines(run.run_id, table.to_pylist(), run.config.get("samples", 1))]
    try:
        write_file(Path(file).expanduser(), "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise ConfigError(f"--openai-batch {file}: cannot be written ({one_line(error)})") from error
    return len(lines)


def _lines(run_id: str, rows: list[Row], usual: int) -> Iterator[Row]:
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(row["problem_id"], []).append(row)
    for id, samples in problems.items():
        samples.sort(key=lambda row: row["sample"])
        asked: Row = json.loads(samples[0]["asked"] or "{}")
        if len(samples) < asked.get("n", usual):
            continue
        # The same problem has the same id in every export.
        unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{id}").hex
        line: Row = {"id": f"batch_req_{unique}", "custom_id": id}
        failed = [row["error"] for row in samples if row["error"] is not None]
        if failed:
            yield line | {"response": None, "error": {"code": "request_failed", "message": failed[0]}}
        else:
            make = _completion if asked.get("url") == COMPLETIONS else _chat
            response = {"status_code": 200, "request_id": unique, "body": make(samples, unique)}
            yield line | {"response": response, "error": None}


def _chat(samples: list[Row], unique: str) -> Row:
    choices = [{"message": _message(row), "logprobs": _chat_logprobs(row["logprobs"])} for row in samples]
    return _body(samples, f"chatcmpl-{unique}", "chat.completion", choices)


def _completion(samples: list[Row], unique: str) -> Row:
    choices = [{"text": row["completion"], "logprobs": _logprobs(row["logprobs"])} for row in samples]
    return _body(samples, f"cmpl-{unique}", "text_completion", choices)


def _body(samples: list[Row], id: str, kind: str, choices: list[Row]) -> Row:
    first = samples[0]
    prompt, completion = first["prompt_tokens"], sum(row["completion_tokens"] for row in samples)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    thoughts = [row.get("thinking_tokens") for row in samples]
    if None not in thoughts:
        usage["completion_tokens_details"] = {"reasoning_tokens": sum(thoughts)}
    ends = [FINISH.get(row["finish_reason"], "stop") for row in samples]
    return {
        "id": id,
        "object": kind,
        "created": int(max(row["finished_at"] for row in samples).timestamp()),
        "model": first["model"],
        "choices": [
            {"index": row["sample"], **choice, "finish_reason": end}
            for row, choice, end in zip(samples, choices, ends, strict=True)
        ],
        "usage": usage,
        "metadata": _metadata(samples),
    }


def _message(row: Row) -> Row:
    """The reasoning apart, as servers that tell it apart have it."""
    if row["reasoning"] is None and row["answer"] is None:
        return {"role": "assistant", "content": row["completion"]}
    message = {"role": "assistant", "content": row["answer"]}
    return message if row["reasoning"] is None else message | {"reasoning_content": row["reasoning"]}


def _metadata(samples: list[Row]) -> dict[str, str]:
    found = {"answer": samples[0]["reference"]}
    for row in samples:
        behind = f"/{row['sample']}" if len(samples) > 1 else ""
        found[f"extracted_answer{behind}"] = row["extracted_answer"]
        found[f"correct{behind}"] = None if row["correct"] is None else str(row["correct"]).lower()
    return {name: value for name, value in found.items() if value is not None}


def _chat_logprobs(tokens: list[Row] | None) -> Row | None:
    if tokens is None:
        return None

    def said(token: Row) -> Row:
        return {
            "token": token["token"],
            "logprob": token["logprob"],
            "bytes": list(token["token"].encode()),
        }

    content = [said(token) | {"top_logprobs": list(map(said, token["top"]))} for token in tokens]
    return {"content": content, "refusal": None}


def _logprobs(tokens: list[Row] | None) -> Row | None:
    """As completions have them."""
    if tokens is None:
        return None
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token["token"])
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{one["token"]: one["logprob"] for one in token["top"]} for token in tokens],
        "text_offset": offsets,
    }
