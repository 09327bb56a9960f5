"""Templates, chats, and the tokens of a prompt."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.made import messages, user
from tiny import tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ColumnsConfig, TaskConfig
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.prompts import fill, opening, render


@given(st.text() | st.sampled_from([r"\frac{1}{2} {x} {question}", "{{answer}}", "{", "}"]))
def test_a_question_survives_whatever_braces_it_has(question):
    template = "Solve.\n{question}\nUse \\boxed{}."
    expected = "Solve.\n" + question + "\nUse \\boxed{}."
    assert fill(template, {"question": question, "answer": "7"}, "task.prompt", "row 1") == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{question} ({subject})", "1+1? (sums)"),
        (r"{question} End with \boxed{answer}.", r"1+1? End with \boxed{answer}."),
        (r"{question} like \frac{answer}{subject}", r"1+1? like \frac{answer}{subject}"),
        ("{question} as {{answer}}", "1+1? as {answer}"),
        ('{question} as {"answer": 5}', '1+1? as {"answer": 5}'),
        ("{question} {1} {} {{1}}", "1+1? {1} {} {{1}}"),
        ("{two words}: {question}", "yes: 1+1?"),
        ("{question} {options}", '1+1? ["a", "é"]'),
        ("{question} {level}", "1+1? 3"),
    ],
)
def test_fill(template, expected):
    row = {
        "question": "1+1?",
        "answer": "2",
        "subject": "sums",
        "two words": "yes",
        "options": ["a", "é"],
        "level": 3,
    }
    assert fill(template, row, "task.prompt", "row 1") == expected


def test_unknown_placeholder_names_the_columns_and_the_near_miss():
    with pytest.raises(ConfigError) as error:
        messages({"question": "1+1?", "answer": "2"}, prompt="{qestion} {question}")
    assert str(error.value) == (
        "task.prompt='{qestion} {question}': no column 'qestion' in data.jsonl:1 (did you mean 'question'?); "
        "columns: question, answer"
    )


def test_question_is_the_mapped_column_even_beside_one_of_that_name():
    row = {"problem": "1+1?", "question": "other"}
    assert messages(row, ColumnsConfig(question="problem")) == (user("1+1?"),)


def test_the_question_goes_by_several_names():
    assert messages({"prompt": "no", "problem": "1+1?"}) == (user("1+1?"),)
    assert messages({"problem": "no", "question": "1+1?"}) == (user("1+1?"),)
    with pytest.raises(ConfigError, match=r"task\.columns\.question=question: no column 'question'"):
        messages({"text": "1+1?"})


@pytest.mark.parametrize("question", ["", None])
def test_an_empty_question_is_refused(question):
    with pytest.raises(ConfigError, match=r"empty in data\.jsonl:1"):
        messages({"question": question})


def test_system_and_few_shot_come_before_the_question_in_its_template():
    chat = messages(
        {"question": "2+2?"},
        system="Be brief.",
        few_shot=[{"question": "1+1?", "answer": "2"}],
        prompt="Q: {question}",
    )
    assert chat == (
        {"role": "system", "content": "Be brief."},
        user("Q: 1+1?"),
        {"role": "assistant", "content": "2"},
        user("Q: 2+2?"),
    )


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("1+1=2", "task.few_shot[0]='1+1=2': must be {question: ..., answer: ...}"),
        ({"question": "1+1?"}, "task.few_shot[0]: no column 'answer' in the example; columns: question"),
        (
            {"question": "1+1?", "anwser": "2"},
            "task.few_shot[0]: no column 'answer' in the example (did you mean 'anwser'?); "
            "columns: question, anwser",
        ),
    ],
)
def test_bad_few_shot(example, message):
    with pytest.raises(ConfigError) as error:
        messages({"question": "2+2?"}, few_shot=[example])
    assert str(error.value) == message


CHAT = ColumnsConfig(messages="messages")


def test_a_chat_of_its_own_keeps_its_system_message_unless_the_task_has_one():
    chat = [{"role": "system", "content": "Old."}, user("Hi")]
    assert messages({"messages": chat}, CHAT) == tuple(chat)
    assert messages({"messages": chat}, CHAT, system="New.") == (
        {"role": "system", "content": "New."},
        user("Hi"),
    )


def test_a_chat_may_be_json_text_and_its_content_a_list_of_texts():
    assert messages({"messages": '[{"role": "user", "content": "Hi"}]'}, CHAT) == (user("Hi"),)
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": " you"}]
    assert messages({"messages": [user(parts)]}, CHAT) == (user("Hi you"),)


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([], "must be a list"),
        ("not JSON", "must be a list"),
        ([{"role": "user"}], "must have a role and a text"),
        ([user(None)], "must have a role and a text"),
        ([user([{"type": "image_url", "image_url": {}}])], "must have a role and a text"),
        ([user("Hi"), {"role": "assistant", "content": "Hello"}], "ends with the assistant's message"),
    ],
)
def test_bad_chat(chat, message):
    with pytest.raises(ConfigError, match=message) as error:
        messages({"messages": chat}, CHAT)
    assert "data.jsonl:1" in str(error.value)


PROBLEM = Problem("p", ({"role": "system", "content": "Be brief."}, user("Größe?")), None)


def test_render_by_the_chat_template():
    tokenizer = tiny_tokenizer()
    text, tokens = render(PROBLEM, tokenizer, TaskConfig())
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nGröße?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokens == tokenizer.apply_chat_template(
        list(PROBLEM.messages), add_generation_prompt=True, return_dict=False
    )


def test_thinking_switch():
    tokenizer = tiny_tokenizer()
    default, _ = render(PROBLEM, tokenizer, TaskConfig())
    assert render(PROBLEM, tokenizer, TaskConfig(thinking=True))[0] == default
    assert render(PROBLEM, tokenizer, TaskConfig(thinking=False))[0] == default + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize("template", ["{{ messages[0]['content'] }}", None])
def test_thinking_without_a_switch_is_refused(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="this model's chat template has no thinking switch"):
        render(PROBLEM, tokenizer, TaskConfig(thinking=False))


class WithBos:
    """A tokenizer that puts a first token (1) before every text, as Llama's; its template writes it too."""

    def __init__(self, chat_template):
        self.chat_template = chat_template

    def __call__(self, text, add_special_tokens=True):
        tokens = [1] if text.startswith("<s>") else []
        tokens += [ord(letter) for letter in text.removeprefix("<s>")]
        return {"input_ids": [1, *tokens] if add_special_tokens else tokens}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "<s>" + messages[-1]["content"]


def test_one_first_token_with_and_without_a_template():
    problem = Problem("p", (user("ab"), user("c")), None)
    assert render(problem, WithBos("template"), TaskConfig()) == ("<s>c", [1, 99])
    assert render(problem, WithBos(None), TaskConfig()) == ("ab\n\nc", [1, 97, 98, 10, 10, 99])


def test_a_chat_that_the_template_refuses():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ConfigError) as error:
        render(PROBLEM, tokenizer, TaskConfig())
    assert str(error.value) == (
        "problem 'p': the model's chat template refuses a chat of system, user: System role not supported"
    )


CLOCK = datetime(2024, 2, 29, 23, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "29 Feb 2024"),
        ('{{ strftime_now("%Y-%m-%d") }}', "2024-02-29"),
        ("{{ strftime_now('%A, %-d %B %y, %H:%M %Z') }}", "Thursday, 29 February 24, 23:05 UTC"),
        ("{{ strftime_now('100%% %%d %F') }}", "100% %d 2024-02-29"),
        ("{% set how = '%d' ~ '/%m' %}{{ strftime_now(how) }}", "29/02"),
        ("{% if strftime_now is defined %}{{ strftime_now('%j') }}{% endif %}", "060"),
        ("{%- macro today() %}{{ strftime_now('%Y') }}{% endmacro %}{{ today() }}", "2024"),
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
            "Today: {{ date_string | upper }}",
            "Today: 29 FEB 2024",
        ),
        ("\n {{ strftime_now('%Y') }}", "\n 2024"),
    ],
)
def test_a_template_that_writes_the_date_reads_the_clock_that_it_is_given(template, expected):
    tokenizer = tiny_tokenizer()
    for own in (template, {"default": template, "tool_use": ""}):
        tokenizer.chat_template = own
        assert render(PROBLEM, tokenizer, TaskConfig(), CLOCK)[0] == expected
        assert render(PROBLEM, tokenizer, TaskConfig())[0] != expected


@pytest.mark.parametrize(
    "question", ["1+1?", "What does </think> mean? <think>", "k", "<|im_start|>assistant\n"]
)
def test_without_a_template_what_the_task_puts_behind_the_question_counts(question):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    task = TaskConfig(prompt="{question}\nAnswer:\n<think>\n")
    problem = Problem("p", messages({"question": question}, prompt=task.prompt), None)
    text, _ = render(problem, tokenizer, task)
    assert opening(problem, tokenizer, task, text, None) == "\nAnswer:\n<think>\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (tiny_tokenizer().chat_template, "<|im_start|>assistant\n"),
        ("{{ messages[-1].content }}[/INST]", "[/INST]"),
        ("{{ messages[-1].content }}<|im_start|>assistant\n<think>", "<|im_start|>assistant\n<think>"),
        ("{{ messages[-1].content | trim }}", ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize(
    "question", ["1+1?", "What does </think> mean? <think>", "k", "<|im_start|>assistant\n"]
)
def test_what_the_template_puts_behind_the_chat(template, expected, question):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    problem = Problem("p", (user(question),), None)
    text, _ = render(problem, tokenizer, TaskConfig())
    assert opening(problem, tokenizer, TaskConfig(), text, None) == expected
