"""``task.document``: found by its place in the prompt, or refused with the row's place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tasks.made import faults, load, user, write_jsonl
from tiny import tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.documents import document_tokens
from seer_ray.tasks.prompts import adds_special, render, rendered

TEXT = "Rome has 7 hills. Rome is old."
ROWS = [
    {"id": "a", "context": TEXT, "question": "How many hills has Rome?", "answer": "7"},
    {"id": "b", "context": "Old", "question": "Old, or Old?", "answer": "Old"},
]
PROMPT = "Read this: {context}\nThen answer: {question}"


def inside(problem):
    place = problem.document
    return problem.messages[place.message]["content"][place.start : place.end]


def tokens_of(problem, tokenizer, task):
    special = adds_special(problem, tokenizer)
    return document_tokens(problem, tokenizer, lambda each: rendered(each, tokenizer, task), special)


@pytest.fixture
def data(tmp_path):
    return write_jsonl(tmp_path / "d.jsonl", ROWS)


@pytest.mark.parametrize(
    ("prompt", "template"),
    [(PROMPT, "braces"), ("Read this: {{ context | trim }}\nThen answer: {{ question }}", "jinja")],
)
def test_the_template_says_where_it_is_however_often_its_text_stands(data, prompt, template):
    a, b = load(data, prompt=prompt, template=template, document="context")
    assert (inside(a), inside(b)) == (TEXT, "Old")
    assert b.messages == (user("Read this: Old\nThen answer: Old, or Old?"),)
    assert b.document.start == len("Read this: ")


def test_the_question_can_be_the_document(data):
    columns = ColumnsConfig(question="context")
    a, _ = load(data, columns, prompt="Summarise: {question} Be brief.", document="context")
    assert inside(a) == TEXT and a.document.start == len("Summarise: ")


def test_a_question_or_a_chat_with_the_document_in_it_is_searched(tmp_path):
    rows = [
        {"id": "a", "context": TEXT, "question": f"{TEXT} How many?", "answer": "7"},
        {"id": "b", "context": "hills", "question": "hills and hills", "answer": "2"},
        {"id": "c", "context": "valleys", "question": "hills and hills", "answer": "2"},
        {"id": "d", "context": "", "question": "hills", "answer": "2"},
    ]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    assert inside(load(path, document="context")[0]) == TEXT
    found = faults(path, document="context")
    assert found["b"].startswith("task.document=context: its text stands 2 times in the prompt of d.jsonl:2")
    assert found["c"].startswith("task.document=context: its text is not in the prompt of d.jsonl:3")
    assert found["d"] == "task.document=context: empty in d.jsonl:4"
    chat = [{"role": "system", "content": "Be brief."}, user(f"About {TEXT}")]
    path = write_jsonl(tmp_path / "c.jsonl", [{"messages": chat, "context": TEXT, "answer": "7"}])
    problem = load(path, ColumnsConfig(messages="messages"), document="context")[0]
    assert (problem.document.message, inside(problem)) == (1, TEXT)


def test_a_column_that_is_not_there_is_refused(data):
    with pytest.raises(
        ConfigError, match=r"task.document=contxt: no column 'contxt' in .*d.jsonl:1.*context"
    ):
        load(data, document="contxt")


@pytest.mark.parametrize("chat", [True, False])
def test_its_tokens_are_those_of_its_text_alone(data, chat):
    tokenizer = tiny_tokenizer()
    if not chat:
        tokenizer.chat_template = None
    task = TaskConfig(prompt=PROMPT, document="context")
    for problem in load(data, prompt=PROMPT, document="context"):
        first, end = tokens_of(problem, tokenizer, task)
        _, tokens = render(problem, tokenizer, task)
        assert tokenizer.decode(tokens[first:end]) == inside(problem)
        assert tokenizer.decode(tokens[:first]).endswith("Read this: ")
    assert tokens_of(replace(problem, document=None), tokenizer, task) is None


def test_a_chat_template_that_changes_the_document_is_refused(data):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'][:20] }}{% endfor %}"
    task = TaskConfig(prompt=PROMPT, document="context")
    problem = load(data, prompt=PROMPT, document="context")[0]
    with pytest.raises(ConfigError, match="problem 'a': the model's chat template changes the document"):
        tokens_of(problem, tokenizer, task)
