"""Prompts in Jinja, and columns that results keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tasks.made import write_jsonl

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.datasets import load_problems

ROWS = [
    {"question": "1+1? {{ x }}", "answer": "2", "subject": "Algebra", "level": 3, "options": ["a", "b"]},
    {"question": "a+b?", "answer": "c", "subject": None, "options": []},
]


def load(tmp_path: Path, prompt: str = "{{ question }}", keep: tuple[str, ...] = (), rows=ROWS):  # type: ignore[no-untyped-def]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    task = TaskConfig(data=data, prompt=prompt, template="jinja", columns=ColumnsConfig(keep=list(keep)))
    return load_problems(task)


def test_a_template_has_the_columns_of_the_row(tmp_path: Path) -> None:
    prompt = "{{ question }}{% for one in options %} ({{ one }}){% endfor %}\n"
    prompt += "{% if subject %}{{ subject }}.{% endif %}"
    asked = [problem.messages[-1]["content"] for problem in load(tmp_path, prompt)]
    # As in chat templates, a line break behind a tag is none of the text.
    assert asked == ["1+1? {{ x }} (a) (b)Algebra.", "a+b?"], "values are never looked into"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Solve it.", "task.prompt='Solve it.': must name a column in braces, such as {{ question }}"),
        ("{{ question }", "task.prompt: unexpected '}' (as Jinja, in line 1)"),
        ("{{ question }} {{ topic }}", "'topic' is undefined (as Jinja, in "),
        ("{{ question.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_what_is_wrong_with_a_template(tmp_path: Path, prompt: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, prompt)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_columns_that_are_kept(tmp_path: Path) -> None:
    found = [json.loads(str(problem.inputs)) for problem in load(tmp_path, keep=("subject", "level"))]
    assert found == [{"subject": "Algebra", "level": 3}, {"subject": None, "level": None}]
    assert [problem.inputs for problem in load(tmp_path)] == [None, None]
    with pytest.raises(
        ConfigError, match=r"^task.columns.keep=subjct: no row of .* \(did you mean 'subject'\?\)$"
    ):
        load(tmp_path, keep=("subjct",))
