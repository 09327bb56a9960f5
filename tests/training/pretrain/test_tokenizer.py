"""The tokenizer of small models: exact, short, and an ordinary one on disk."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from seer_ray.config.options import GeneratorConfig
from seer_ray.tasks.generators import GENERATORS, generate
from seer_ray.training.pretrain.tokenizer import (
    END,
    SPECIAL,
    answer_text,
    make_tokenizer,
    prompt_text,
    vocabulary,
)

TOKENIZER = make_tokenizer(4096)
UNKNOWN = TOKENIZER.unk_token_id


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def exact(text: str) -> None:
    tokens = ids(text)
    assert TOKENIZER.decode(tokens) == text and UNKNOWN not in tokens
    # So does any part: streaming and stop strings rely on it.
    half = len(tokens) // 2
    assert TOKENIZER.decode(tokens[:half]) + TOKENIZER.decode(tokens[half:]) == text


@given(
    st.sampled_from(sorted(GENERATORS)),
    st.integers(2, 200),
    st.integers(1, 5),
    st.integers(0, 99),
    st.integers(),
)
@settings(max_examples=60)
def test_every_problem_comes_back_as_it_was(name, steps, difficulty, index, seed):
    made = generate(GeneratorConfig(name, steps, difficulty), index, seed)
    exact(made.question)
    exact(made.solution)


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " \n\t"))
def test_any_ascii_text_comes_back_as_it_was(text):
    exact(text)


@given(st.lists(st.sampled_from([token for token in vocabulary() if token not in SPECIAL])))
def test_text_of_its_own_tokens_comes_back_as_it_was(tokens):
    exact("".join(tokens))


def test_a_line_of_the_chain_is_fourteen_tokens():
    line = "x12 = x11 + x3 = 5 + 7 = 12 -> 2\n"
    assert TOKENIZER.tokenize(line) == [
        "x12",
        " = ",
        "x11",
        " + ",
        "x3",
        " = ",
        *"5",
        " + ",
        "7",
        " = ",
        "12",
        " -> ",
        "2",
        "\n",
    ]
    assert len(ids(100 * line)) == 1400


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x999 x1000 x0 max1", ["x999", " ", *"x1000", " ", *"x0", " ", *"max", "1"]),
        ("999 1000 007", ["999", " ", *"1000", " ", *"007"]),
        ("the these", ["the", " these"]),
        ("thesis", list("thesis")),
        ("K07: value 3", ["K", "0", "7", ": ", "value", " ", "3"]),
    ],
)
def test_names_and_numbers_are_whole_or_single_characters(text, tokens):
    assert TOKENIZER.tokenize(text) == tokens


def test_what_is_not_ascii_is_unknown():
    assert ids("é") == [UNKNOWN]


def test_a_chat_is_the_text_that_is_trained_on():
    user = {"role": "user", "content": "What is x3?"}
    prompt = TOKENIZER.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert prompt == prompt_text("What is x3?")
    chat = [user, {"role": "assistant", "content": "x3 = 1"}]
    whole = TOKENIZER.apply_chat_template(chat, return_dict=False)
    assert whole == ids(prompt_text("What is x3?")) + ids(answer_text("x3 = 1"))
    assert whole[-1] == TOKENIZER.eos_token_id == TOKENIZER.convert_tokens_to_ids(END)
    assert TOKENIZER.decode(whole, skip_special_tokens=True) == "What is x3?x3 = 1"


def test_it_is_an_ordinary_tokenizer_on_disk(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    made = generate(GeneratorConfig("program", 20), 0)
    for text in (prompt_text(made.question), answer_text(made.solution)):
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids(text)
        assert loaded.decode(ids(text)) == text
    assert loaded.chat_template == TOKENIZER.chat_template
    assert (loaded.eos_token, loaded.model_max_length) == (END, 4096)
