"""What a row asks for itself: every key of a batch line's body is honoured, or its row is refused."""

import json
import pickle

import pytest
from pyarrow import parquet, table
from tasks.made import ROWS, faults, load, refused, write_jsonl
from tiny import tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.asked import COMPLETIONS, KEYS, LABELS, ONLY, Asked, parse_settings
from seer_ray.tasks.prompts import render
from seer_ray.tasks.sources import WrittenFloat
from seer_ray.tasks.structured import Form

ANY_OBJECT = '{"type": "object"}'
SCHEMA = {"type": "object", "properties": {"b": {"const": 1}, "a": {"type": "null"}}}
HONOURED = [
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"temperature": 1.5, "top_p": 0.9, "min_p": 0.05}, {"temperature": 1.5, "top_p": 0.9, "min_p": 0.05}),
    ({"top_k": 40}, {"top_k": 40}),
    ({"top_k": -1}, {"top_k": 0}),
    ({"max_tokens": 5}, {"max_new_tokens": 5}),
    ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_new_tokens": 6}),
    ({"min_tokens": 3}, {"min_new_tokens": 3}),
    ({"stop": "END"}, {"stop": ("END",)}),
    ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
    ({"stop_token_ids": [3, 4]}, {"stop_token_ids": (3, 4)}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    (
        {"presence_penalty": -2, "frequency_penalty": 2.0},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0},
    ),
    ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
    ({"logit_bias": {"50": -100, "7": 1.5}}, {"logit_bias": ((7, 1.5), (50, -100.0))}),
    ({"logprobs": True}, {"logprobs": 0}),
    ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
    ({"logprobs": False, "top_logprobs": 0}, {"logprobs": None}),
    ({"logprobs": 3}, {"logprobs": 3}),
    ({"extra_body": {"top_k": 5, "min_tokens": None}}, {"top_k": 5}),
]
FORMS = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Form("response_format", "json", ANY_OBJECT)),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        Form("response_format", "json", json.dumps(SCHEMA)),
    ),
    ({"guided_json": SCHEMA}, Form("guided_json", "json", json.dumps(SCHEMA))),
    ({"guided_json": json.dumps(SCHEMA)}, Form("guided_json", "json", json.dumps(SCHEMA))),
    ({"guided_regex": "[a-z]+"}, Form("guided_regex", "regex", "[a-z]+")),
    ({"guided_choice": ["yes", "no"]}, Form("guided_choice", "choice", '["yes", "no"]')),
    ({"structured_outputs": {"json": SCHEMA}}, Form("structured_outputs.json", "json", json.dumps(SCHEMA))),
    ({"structured_outputs": {"regex": "a", "json": None}}, Form("structured_outputs.regex", "regex", "a")),
    ({"structured_outputs": {"choice": ["a"]}}, Form("structured_outputs.choice", "choice", '["a"]')),
    (
        {"structured_outputs": {"json_object": True}},
        Form("structured_outputs.json_object", "json", ANY_OBJECT),
    ),
]
REFUSED = [
    ({"temperature": -1}, "temperature=-1: must be a number, at least 0"),
    ({"temperature": "hot"}, 'temperature="hot": must be a number'),
    ({"temperature": True}, "temperature=true: must be a number"),
    ({"top_p": 1.1}, "top_p=1.1: must be a number, at least 0, at most 1"),
    ({"max_tokens": 0}, "max_tokens=0: must be a whole number, at least 1"),
    ({"max_tokens": 1.5}, "max_tokens=1.5: must be a whole number"),
    ({"n": float("inf")}, "n=Infinity: must be a whole number"),
    ({"presence_penalty": 2.1}, "presence_penalty=2.1: must be a number, at least -2, at most 2"),
    ({"logit_bias": {"a": 1}}, 'logit_bias={"a": 1}: must be an object of token ids and numbers'),
    ({"logit_bias": {"1": 101}}, 'logit_bias={"1": 101}: must be a number, at least -100, at most 100'),
    ({"stop": [""]}, 'stop=[""]: must be a text or a list of texts'),
    (
        {"logprobs": True, "top_logprobs": 21},
        "top_logprobs=21: must be a whole number, at least 0, at most 20",
    ),
    ({"top_logprobs": 2}, "top_logprobs=2: must be 0"),
    ({"stream": True}, "stream=true: must be false"),
    ({"tools": [{"type": "function"}]}, 'tools=[{"type": "function"}]: must be []'),
    ({"n": 2, "best_of": 3}, "best_of=3: must be 2"),
    ({"suffix": "x"}, 'suffix="x": must be ""'),
    ({"guided_grammar": "root ::= a"}, "guided_grammar: cannot be honoured (did you mean 'guided_"),
    ({"temprature": 1}, "temprature: cannot be honoured (did you mean 'temperature'?)"),
    ({"prompt_logprobs": 1}, "prompt_logprobs: cannot be honoured"),
    ({"extra_body": [1]}, "extra_body=[1]: must be an object"),
    ({"extra_body": {"beam": 1}}, "beam: cannot be honoured"),
    (
        {"response_format": {"type": "xml"}},
        'response_format={"type": "xml"}: must be of type text, json_object or',
    ),
    ({"response_format": {"type": "json_schema"}}, "json_schema: {schema: ...}}"),
    ({"guided_json": "{"}, 'guided_json="{": must be a JSON schema'),
    ({"guided_choice": []}, "guided_choice=[]: must be a list of texts"),
    ({"structured_outputs": {"grammar": "x"}}, "must be one of json, regex, choice, json_object"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice: there is guided_regex already"),
]


def asked(body: dict, url: str | None = None) -> Asked:
    return parse_settings(body, "b.jsonl:1", "body", url)


@pytest.mark.parametrize(("body", "sampling"), HONOURED, ids=str)
def test_sampling_keys(body, sampling):
    assert asked({"messages": [], **body}).sampling == sampling


@pytest.mark.parametrize(("body", "form"), FORMS, ids=str)
def test_forms(body, form):
    assert asked(body).form == form


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused_with_its_name(body, message):
    with pytest.raises(ConfigError) as error:
        asked(body)
    assert str(error.value).startswith("body.") and message in str(error.value)
    assert "b.jsonl:1" in str(error.value)


def test_the_other_keys():
    found = asked({"model": "m", "n": 3, "seed": -5, "reasoning_effort": "low"})
    assert (found.model, found.samples, found.seed) == ("m", 3, -5)
    assert found.template == {"reasoning_effort": "low"}
    assert asked({"chat_template_kwargs": {"a": 1}}).template == {"a": 1}
    with pytest.raises(ConfigError, match=r"reasoning_effort: /v1/completions has no chat template"):
        asked({"reasoning_effort": "low"}, COMPLETIONS)


def test_every_key_is_tried_here_and_null_is_as_good_as_absent():
    tried = {key for body, *_ in (*HONOURED, *FORMS) for key in body}
    tried |= {
        "model",
        "n",
        "seed",
        "thinking_token_budget",
        "chat_template_kwargs",
        "reasoning_effort",
        "best_of",
        *ONLY,
        *LABELS,
    }
    assert set(KEYS) <= tried
    assert asked(dict.fromkeys(KEYS)) == Asked()
    defaults = {key: ways[0] for key, ways in ONLY.items()} | dict.fromkeys(LABELS, "x") | {"best_of": 1}
    assert asked(defaults).sampling == {}


def test_the_note_is_what_was_asked():
    found = asked({"messages": [1], "n": 2, "user": "me", "top_p": WrittenFloat(0.1, "0.10")}, COMPLETIONS)
    assert json.loads(str(found.note)) == {"url": COMPLETIONS, "n": 2, "top_p": 0.1}
    assert asked({"prompt": "x"}).note is None
    sampled = pickle.loads(pickle.dumps(found.sampling))
    assert type(sampled["top_p"]) is float


def line(number, url=COMPLETIONS, **body):
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


def test_lines_of_completions(tmp_path):
    rows = [
        line(0, prompt="1+1=", n=2),
        line(1, prompt=[49, 43]),
        line(2, prompt=["a"], metadata={"answer": 2}),
        line(3, prompt=["a", "b"]),
        line(4, prompt=[]),
        line(5, messages=[{"role": "user", "content": "a"}]),
        {**line(6, prompt="a"), "method": "GET"},
        line(7, prompt="a", echo=True),
        line(8, prompt="a", url="/v1/embeddings"),
    ]
    problems = {problem.id: problem for problem in load(write_jsonl(tmp_path / "b.jsonl", rows))}
    assert (problems["r0"].raw, problems["r0"].messages, problems["r0"].samples(5)) == ("1+1=", (), 2)
    assert (problems["r1"].raw, problems["r1"].samples(5)) == ((49, 43), 5)
    assert (problems["r2"].raw, problems["r2"].answer) == ("a", "2")
    errors = faults(tmp_path / "b.jsonl")
    assert errors == {
        "r3": "body.prompt: 2 prompts in b.jsonl:4; give each a line of its own",
        "r4": "body.prompt: must be text or token ids in b.jsonl:5",
        "r5": "b.jsonl:6: not a line of an OpenAI batch: must have custom_id and body.prompt",
        "r6": "b.jsonl:7: method=GET: must be POST",
        "r7": "body.echo=true: must be false, in b.jsonl:8",
        "r8": "b.jsonl:9: url=/v1/embeddings: must be /v1/chat/completions or /v1/completions",
    }
    tokenizer = tiny_tokenizer()
    text, tokens = render(problems["r0"], tokenizer, TaskConfig())
    assert (text, tokens) == ("1+1=", tokenizer("1+1=")["input_ids"])
    assert render(problems["r1"], tokenizer, TaskConfig())[1] == [49, 43]


def test_values_for_the_chat_template(tmp_path):
    rows = [
        line(number, "/v1/chat/completions", messages=[{"role": "user", "content": "a"}], **body)
        for number, body in enumerate(
            [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "high"}]
        )
    ]
    quick, hard = load(write_jsonl(tmp_path / "b.jsonl", rows))
    assert render(quick, tiny_tokenizer(), TaskConfig(thinking=True))[0].endswith("</think>\n\n")
    with pytest.raises(ConfigError, match=r"problem 'r1': reasoning_effort: this model's chat template"):
        render(hard, tiny_tokenizer(), TaskConfig())


def test_a_column_of_settings(tmp_path):
    """As struct, with nulls where other rows have keys; as JSON text; and what is wrong with single rows."""
    settings = [{"temperature": 0.5, "stop": None}, {"temperature": None, "stop": ["x"]}, None]
    columns = ColumnsConfig(sampling="how")
    parquet.write_table(
        table({name: [row[name] for row in ROWS[:3]] for name in ROWS[0]} | {"how": settings}),
        tmp_path / "a.parquet",
    )
    found = [problem.asked.sampling for problem in load(tmp_path / "a.parquet", columns)]
    assert found == [{"temperature": 0.5}, {"stop": ("x",)}, {}]
    texts = ['{"n": 2}', "", '{"nn": 2}', "[1]", "high"]
    rows = [{**row, "how": text} for row, text in zip(ROWS, texts, strict=False)]
    problems = load(write_jsonl(tmp_path / "a.jsonl", rows), columns)
    assert [problem.samples(1) for problem in problems] == [2, 1, 1, 1, 1]
    errors = faults(tmp_path / "a.jsonl", columns)
    assert errors["p2"].startswith("task.columns.sampling=how.nn: cannot be honoured")
    assert errors["p3"] == "task.columns.sampling=how: must be a struct of settings, is text in a.jsonl:4"
    assert errors["p4"] == "task.columns.sampling=how: must be a struct of settings, is text in a.jsonl:5"
    batch = write_jsonl(tmp_path / "b.jsonl", [line(0, prompt="a")])
    assert "a batch has its settings in body" in refused(batch, columns)
