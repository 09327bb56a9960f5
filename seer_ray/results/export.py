"""Rows in forms that other programs read."""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import written_file

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
    if not run.committed():
        raise ConfigError(f"{run.uri}: has no rows yet; give the run's command again to go on with it")
    count = 0
    try:
        with written_file(Path(file).expanduser()) as out:
            for samples in _problems(run):
                if (line := _line(run.run_id, samples, run.config.get("samples", 1))) is not None:
                    out.write(f"{json.dumps(line)}\n".encode())
                    count += 1
    except OSError as error:
        raise ConfigError(f"--openai-batch {file}: cannot be written ({one_line(error)})") from error
    return count


def _problems(run: RunFolder) -> Iterator[list[Row]]:
    """The rows of each problem, as soon as all that there are of it were read. What of others was read until
    then is in memory: not much, as the samples of a problem are decoded at one time."""
    left = Counter(problem for problem, _ in run.in_order())
    begun: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    for batch in run.stream(COLUMNS):
        places: dict[str, list[int]] = defaultdict(list)
        for place, problem in enumerate(batch["problem_id"].to_pylist()):
            places[problem].append(place)
        for problem, own in places.items():
            begun[problem].append(batch.take(pa.array(own)))
            left[problem] -= len(own)
            if not left[problem]:
                yield [row for rows in begun.pop(problem) for row in rows.to_pylist()]


def _line(run_id: str, samples: list[Row], usual: int) -> Row | None:
    """Of a problem; None: not all of its samples are there."""
    samples.sort(key=lambda row: row["sample"])
    asked: Row = json.loads(samples[0]["asked"] or "{}")
    if len(samples) < asked.get("n", usual):
        return None
    id = samples[0]["problem_id"]
    # The same problem has the same id in every export.
    unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{id}").hex
    line: Row = {"id": f"batch_req_{unique}", "custom_id": id}
    failed = [row["error"] for row in samples if row["error"] is not None]
    if failed:
        return line | {"response": None, "error": {"code": "request_failed", "message": failed[0]}}
    make = _completion if asked.get("url") == COMPLETIONS else _chat
    response = {"status_code": 200, "request_id": unique, "body": make(samples, unique)}
    return line | {"response": response, "error": None}


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
