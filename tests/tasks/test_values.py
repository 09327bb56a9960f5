"""Chats and structs in dataset rows, as they are or as JSON text."""

import json

import pytest
from tasks.made import messages, user

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig
from seer_ray.tasks.prompts import fill
from seer_ray.tasks.values import column_value

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
RL = {
    "data_source": "gsm8k",
    "prompt": ASKED,
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 7, "question": "1+1?"},
}


@pytest.mark.parametrize("text", [False, True], ids=["list", "JSON text"])
@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("question", {}),
        ("problem", {}),
        ("prompt", {}),
        ("messages", {}),
        ("chat", {"columns": ColumnsConfig(question="chat")}),
        ("chat", {"columns": ColumnsConfig(messages="chat")}),
        ("chat", {"prompt": "{chat}"}),
        ("prompt", {"prompt": "{prompt}\n"}),
    ],
)
def test_a_chat_is_a_chat_wherever_it_stands(column, options, text):
    row = {"id": 1, column: json.dumps(ASKED) if text else ASKED, "answer": "2"}
    assert messages(row, **options) == tuple(ASKED)


def test_a_chat_in_a_field_of_a_struct():
    row = {"input": {"messages": ASKED}}
    assert messages(row, ColumnsConfig(question="input.messages")) == tuple(ASKED)
    assert messages({"input": json.dumps({"messages": ASKED})}, prompt="{input.messages}") == tuple(ASKED)


def test_a_chat_in_the_middle_of_a_message_is_refused():
    for row in ({"prompt": ASKED}, {"prompt": json.dumps(ASKED)}):
        with pytest.raises(ConfigError, match="prompt is a whole chat in data"):
            messages(row, prompt="{question}\nThink.")
        with pytest.raises(ConfigError, match="prompt: is a whole chat in data"):
            messages(row, prompt="{prompt} Think.")


@pytest.mark.parametrize("text", ["[1, 2]", '[{"a": 1}]', '{"role": "user"}', "[", '["[{"]'])
def test_other_json_text_is_a_question(text):
    assert messages({"question": text}) == (user(text),)


@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        (RL, "reward_model.ground_truth", "2"),
        ({"r": json.dumps({"a": {"b": 7}})}, "r.a.b", 7),
        ({"r": {"a": json.dumps({"b": 7})}}, "r.a.b", 7),
        ({"r.a": {"b": 7}, "r": {"a": {"b": 8}}}, "r.a.b", 7),
        ({"r.a.b": 7, "r": {"a": {"b": 8}}}, "r.a.b", 7),
        ({"r": {"a": None}}, "r.a", None),
    ],
)
def test_fields_of_structs(row, path, value):
    assert column_value(row, path, "task.columns.answer", "row 1") == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "reward_model.groundtruth",
            "no field 'groundtruth' in 'reward_model' of row 1 (did you mean 'ground_truth'?); "
            "fields: style, ground_truth",
        ),
        ("data_source.name", "'data_source' in row 1 has no fields: it is text"),
        ("reward_model.style.x", "'reward_model.style' in row 1 has no fields: it is text"),
        ("prompt.role", "'prompt' in row 1 has no fields: it is list"),
        (
            "rewardmodel.ground_truth",
            "no column 'rewardmodel.ground_truth' in row 1 (did you mean 'reward_model'?); "
            "columns: data_source, prompt, reward_model, extra_info",
        ),
    ],
)
def test_fields_that_are_not_there(path, message):
    with pytest.raises(ConfigError) as error:
        column_value(RL, path, "task.columns.answer", "row 1")
    assert str(error.value) == f"task.columns.answer: {message}"


def test_fields_in_the_braces_of_a_template():
    assert messages(RL, prompt="{extra_info.question} ({reward_model.style})") == (user("1+1? (rule)"),)
    assert fill("{a} {{r.b}} {r.c} {0.5} {x y}", {"a": 1, "r": {"c": 2}}, "o", "w") == "1 {r.b} 2 {0.5} {x y}"
    with pytest.raises(ConfigError, match="no field 'answer' in 'extra_info'"):
        messages(RL, prompt="{extra_info.answer}")
    with pytest.raises(ConfigError) as error:
        messages(RL, prompt="{extra_info} Think.")
    assert str(error.value) == (
        "task.prompt='{extra_info} Think.': extra_info: is a struct in data.jsonl:1, with the fields index, "
        "question; name one, such as extra_info.index"
    )
