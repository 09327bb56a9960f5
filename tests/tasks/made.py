"""Rows of datasets, and what becomes of them: ``from tasks.made import load, faults``."""

from __future__ import annotations

import json
import re

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.prompts import build_messages

ROWS = [{"id": f"p{i}", "question": f"{i}+1?", "answer": str(i + 1)} for i in range(6)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def load(data, columns=None, **task):
    return load_problems(TaskConfig(data=str(data), columns=columns or ColumnsConfig(), **task))


def ids(problems):
    return [problem.id for problem in problems]


def refused(data, columns=None, **task):
    """The message, without the folder that pytest made."""
    with pytest.raises(ConfigError) as error:
        load(data, columns, **task)
    assert "\n" not in str(error.value)
    return re.sub(r"[^ =]*/test_[^/]*/", "", str(error.value))


def faults(data, columns=None, **task):
    """What is wrong with single rows, without the folder that pytest made: id -> message."""
    problems = load(data, columns, **task)
    for problem in problems:
        assert problem.error is None or (problem.messages, problem.answer) == ((), None)
    found = {problem.id: problem.error for problem in problems if problem.error is not None}
    assert all("\n" not in error for error in found.values())
    short = {re.sub(r".*/test_[^/]*/", "", id): error for id, error in found.items()}
    return {id: re.sub(r"[^ =]*/test_[^/]*/", "", error) for id, error in short.items()}


def messages(row, columns=None, **task):
    return build_messages(row, columns or ColumnsConfig(), TaskConfig(**task), "data.jsonl:1")


def user(content):
    return {"role": "user", "content": content}
