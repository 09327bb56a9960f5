"""Rows in the form of OpenAI's batch API, back to the requests that they answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results.sample import CONFIG, row

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import TaskConfig
from seer_ray.results import ledger
from seer_ray.results.export import openai_batch
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.datasets import load_problems

IDS = ("first", "line\u2028break", "a/b", "'quote\"")


def export(folder: RunFolder, file: Path) -> list[dict[str, Any]]:
    count = openai_batch(folder, str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == count
    return lines


def test_a_batch_comes_back_under_its_own_ids(tmp_path: Path) -> None:
    """What is read as a batch, decoded and exported is the answer to that batch."""
    asked = tmp_path / "batch.jsonl"
    requests = [
        {
            "custom_id": id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": f"{id}?"}],
                "metadata": {"answer": "4"},
            },
        }
        for id in IDS
    ]
    asked.write_text("\n".join(map(json.dumps, requests)))
    problems = load_problems(TaskConfig(name="batch", data=str(asked)))
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit(row(p.id, completion=f"{p.id} is 4 \ud800", reference=p.answer) for p in problems[:-1])
        folder.commit([row(problems[-1].id, error="too long", finish_reason="error", correct=None)])
        lines = {line["custom_id"]: line for line in export(folder, tmp_path / "out.jsonl")}
    assert list(lines) == [request["custom_id"] for request in requests]
    for id in IDS[:-1]:
        assert lines[id]["error"] is None and lines[id]["response"]["status_code"] == 200
        body = lines[id]["response"]["body"]
        assert body["choices"][0]["message"] == {"role": "assistant", "content": f"{id} is 4 ?"}
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
        assert body["metadata"]["answer"] == "4" and body["metadata"]["correct"] == "true"
    assert lines[IDS[-1]]["response"] is None
    assert lines[IDS[-1]]["error"] == {"code": "request_failed", "message": "too long"}


def test_samples_are_choices_of_one_line_once_all_are_there(tmp_path: Path) -> None:
    """Also where the row asks for more than the run; a sample that failed fails its line."""
    config = replace(CONFIG, samples=2)
    with RunFolder.open(str(tmp_path / "run"), config) as folder:
        folder.commit(
            row("p", n, extracted_answer=None, correct=n == 0, finish_reason="length" if n else "abort")
            for n in (1, 0)
        )
        folder.commit([row("q", 0), row("r", 0, asked='{"n": 1}'), row("s", 0), row("s", 1, error="no")])
        lines = export(folder, tmp_path / "out.jsonl")
        assert lines == export(folder, tmp_path / "again.jsonl")
    assert [line["custom_id"] for line in lines] == ["p", "r", "s"]
    assert len({line["id"] for line in lines}) == 3
    body = lines[0]["response"]["body"]
    ends = [(choice["index"], choice["finish_reason"]) for choice in body["choices"]]
    assert ends == [(0, "stop"), (1, "length")]
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert body["metadata"] == {"answer": "p", "correct/0": "true", "correct/1": "false"}
    assert lines[2]["error"]["message"] == "no" and lines[2]["response"] is None


def test_samples_of_several_parts_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    with RunFolder.open(str(tmp_path / "run"), replace(CONFIG, samples=3)) as folder:
        for keys in ("p0 q1", "q0 r0", "p1 q2", "p2 r1"):
            folder.commit(row(key[0], int(key[1]), completion=key) for key in keys.split())
        assert len(folder._ledger.parts) == 4
        lines = export(folder, tmp_path / "out.jsonl")
    said = {
        line["custom_id"]: [c["message"]["content"] for c in line["response"]["body"]["choices"]]
        for line in lines
    }
    assert said == {"q": ["q0", "q1", "q2"], "p": ["p0", "p1", "p2"]}, "r lacks a sample"


@pytest.mark.parametrize(
    ("reasoning", "answer", "message"),
    [
        ("hm", "7", {"content": "7", "reasoning_content": "hm"}),
        ("hm", None, {"content": None, "reasoning_content": "hm"}),
        (None, "7", {"content": "7"}),
        (None, None, {"content": "It is p."}),
    ],
    ids=["both", "cut off", "no reasoning", "a row of before they were told apart"],
)
def test_reasoning_stands_beside_the_answer(
    tmp_path: Path, reasoning: str, answer: str, message: Any
) -> None:
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("p", reasoning=reasoning, answer=answer)])
        [line] = export(folder, tmp_path / "out.jsonl")
    assert line["response"]["body"]["choices"][0]["message"] == {"role": "assistant", **message}


def test_nothing_to_export_and_nowhere_to_put_it_are_said(tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        with pytest.raises(ConfigError, match="has no rows yet"):
            openai_batch(folder, str(tmp_path / "out.jsonl"))
        folder.commit([row("p")])
        with pytest.raises(ConfigError, match=r"--openai-batch .*cannot be written"):
            openai_batch(folder, str(tmp_path / "missing" / "out.jsonl"))
