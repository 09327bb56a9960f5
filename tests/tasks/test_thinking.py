"""Reasoning and answer by token ids, in the families of models that there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tokenizers import AddedToken

from seer_ray.tasks.thinking import ReasoningParser

PLAIN = "{{ messages[0].content }}"


def tokenizer(special=(), added=(), template=PLAIN):
    made = tiny_tokenizer()
    made.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    made.chat_template = template
    return made


def parse(made, text, prompt="", marks=None, **options):
    ids = made(text, add_special_tokens=False)["input_ids"]
    return ReasoningParser(made, marks).parse(ids, prompt, **options)


HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")
FINAL = "<|start|>assistant<|channel|>final<|message|>"
FAMILIES = {
    # name: special tokens, other added tokens, what the template says, opening, closing
    "qwen3": ((), ("<think>", "</think>"), "<think>\n\n</think>", "<think>\n", "\n</think>\n\n"),
    "deepseek-r1": ((), ("<think>", "</think>"), "<think>\n", "<think>\n", "\n</think>\n\n"),
    "special think": (("<think>", "</think>"), (), "", "<think>", "</think>"),
    "only a template": ((), (), "assistant\n<think>\n", "<think>", "</think>"),
    "seed-oss": (("<seed:think>", "</seed:think>"), (), "", "<seed:think>", "</seed:think>"),
    "magistral": (("[THINK]", "[/THINK]"), (), "", "[THINK]", "[/THINK]"),
    "gpt-oss": (HARMONY, (), "<|start|>", "<|channel|>analysis<|message|>", f"<|end|>{FINAL}"),
    "cohere": (
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        (),
        "",
        "<|START_THINKING|>",
        "<|END_THINKING|><|START_RESPONSE|>",
    ),
    "reka": ((), (), "<reasoning>", "<reasoning>", "</reasoning>"),
    "exaone-deep": ((), (), "[|assistant|]<thought>\n", "<thought>\n", "</thought>\n\n"),
    "kimi": ((), (), "", "◁think▷", "◁/think▷"),
    "granite": (
        (),
        (),
        "Write 'Here is my thought process:' first",
        "Here is my thought process:\n",
        "\nHere is my response:\n",
    ),
    "granite in other words": (
        (),
        (),
        "Write 'Here is my thought process:' first",
        "Here's my thought process: ",
        " Here's my response: ",
    ),
    "hunyuan": ((), (), "<think>\n", "<think>\n", "\n</think>\n<answer>\n"),
    "longcat": (("<longcat_think>", "</longcat_think>"), (), "", "<longcat_think>\n", "\n</longcat_think>\n"),
    "k2": ((), ("<ifm|think>", "</ifm|think>"), "", "<ifm|think>\n", "</ifm|think>"),
    "k2, fast": ((), ("<ifm|think_fast>", "</ifm|think_fast>"), "", "<ifm|think_fast>", "</ifm|think_fast>"),
    "minimax-m3": ((), ("<mm:think>", "</mm:think>"), "", "<mm:think>", "</mm:think>"),
    "apertus": (("<|inner_prefix|>", "<|inner_suffix|>"), (), "", "<|inner_prefix|>", "<|inner_suffix|>"),
    "gemma-4": (("<|channel>", "<channel|>"), (), "", "<|channel>thought\n", "<channel|>"),
    "solar open": (
        ("<|begin|>", "<|end|>", "<|think|>", "<|content|>"),
        (),
        "",
        "<|think|>",
        "<|end|><|begin|>assistant<|content|>",
    ),
    "solar open 2": (("<|think:start|>", "<|think:end|>"), (), "", "<|think:start|>", "<|think:end|>"),
    "openthinker": (
        (),
        (),
        "<|begin_of_thought|>",
        "<|begin_of_thought|>",
        "<|end_of_thought|>\n\n<|begin_of_solution|>",
    ),
    "not known here": (
        (),
        (),
        "'<nova_thinking>' ~ '</nova_thinking>'",
        "<nova_thinking>",
        "</nova_thinking>",
    ),
    "known by its tokens": (("[REASON]", "[/REASON]"), (), "", "[REASON]", "[/REASON]"),
    "no sign of its marks": ((), (), "", "<think>", "</think>"),
}


@pytest.fixture(params=FAMILIES, ids=list(FAMILIES))
def family(request):
    special, added, template, opening, closing = FAMILIES[request.param]
    return tokenizer(special, added, PLAIN + "{# " + template + " #}"), opening, closing


def test_a_chain_that_thought_to_its_end(family):
    made, opening, closing = family
    found = parse(made, f"{opening}Maybe 7.{closing}It is 8.")
    assert (found.reasoning, found.answer) == ("Maybe 7.", "It is 8.")
    assert opening.strip() in found.text and "It is 8." in found.text


def test_a_chain_that_is_cut_off_inside_has_no_answer(family):
    made, opening, _ = family
    for finished in (False, True):
        found = parse(made, f"{opening}n = 7", finished=finished)
        assert (found.reasoning, found.answer) == ("n = 7", None)


def test_a_chain_that_the_template_opened(family):
    made, opening, closing = family
    prompt = f"<|im_start|>assistant\n{opening}"
    found = parse(made, f"Maybe 7.{closing}It is 8.", prompt)
    assert (found.reasoning, found.answer) == ("Maybe 7.", "It is 8.")
    found = parse(made, "n = 7", prompt, finished=False)
    assert (found.reasoning, found.answer) == ("n = 7", None)


def test_a_template_that_closed_what_it_opened(family):
    made, opening, closing = family
    found = parse(made, "It is 8.", f"<|im_start|>assistant\n{opening}{closing}")
    assert (found.reasoning, found.answer) == (None, "It is 8.")


def test_a_chain_without_marks_is_all_answer(family):
    found = parse(family[0], "It is 8. \n")
    assert (found.text, found.reasoning, found.answer) == ("It is 8. \n", None, "It is 8. \n")


THINK = ((), ("<think>", "</think>"), PLAIN)


@pytest.mark.parametrize(
    ("prompt", "text", "finished", "reasoning", "answer"),
    [
        ("", "<think>a</think>b<think>c</think>d", True, "ac", "bd"),
        ("", "<think>a</think>b<think>c", True, "ac", None),
        ("", "<think>a<think>b</think>c</think>d", True, "abc", "d"),
        ("", "<think>a<think>b</think>c", False, "abc", None),
        ("", "<think>a<think>b</think>c", True, "ab", "c"),
        ("<think>\n", "<think>\na</think>b", False, "a", "b"),
        ("", "a</think>b", True, "a", "b"),
        ("", "<think></think>b", True, None, "b"),
        ("", "<think>\n\n</think>\n\nb", True, None, "b"),
        ("<think>\n\n</think>\n\n", "b", True, None, "b"),
        ("<think>\n\n</think>\n\n", "a</think>b", True, "a", "b"),
        ("<think>\n", "a</think>", True, "a", ""),
        ("", "<think>a</think>b</think>c", True, "a", "b</think>c"),
        ("", "<think>a</think>\n<answer>b</answer>\n", True, "a", "b"),
        ("", "<think>a</think>\n<answer>b", False, "a", "b"),
        ("", "so <answer>b</answer>", True, None, "so <answer>b</answer>"),
        ("", "", False, None, ""),
        ("<think>", "", False, None, None),
    ],
)
def test_blocks(prompt, text, finished, reasoning, answer):
    found = parse(tokenizer(*THINK), text, prompt, finished=finished)
    assert (found.reasoning, found.answer) == (reasoning, answer)


def spelled(made, text):
    """One token a byte, also for what the vocabulary has a token for."""
    return [id for letter in text for id in made(letter, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("kind", ["special", "added"])
def test_letters_of_a_mark_that_is_a_token_are_text(kind):
    made = tokenizer(**{kind: ("<think>", "</think>")})
    parser = ReasoningParser(made)
    found = parser.parse(spelled(made, "Write <think> and </think>: 7"))
    assert (found.reasoning, found.answer) == (None, "Write <think> and </think>: 7")
    ids = made("<think>", add_special_tokens=False)["input_ids"]
    ids += spelled(made, "a </think> b")
    assert parser.parse(ids).answer is None
    ids += made("</think>", add_special_tokens=False)["input_ids"] + spelled(made, "use <think>")
    found = parser.parse(ids)
    assert (found.reasoning, found.answer) == ("a </think> b", "use <think>")


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<|channel|>final<|message|>8<|return|>", None, "8"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            f"<|constrain|>json<|message|>b<|call|>{FINAL}8",
            "ab",
            "8",
        ),
        (f"<|channel|>analysis<|message|>a<|end|>{FINAL}8<|end|>{FINAL}9<|return|>", "a", "89"),
        ("<|channel|>commentary<|message|>8<|end|>", "8", None),
        (f"<|channel|>analysis<|message|>a<|end|>{FINAL}8<|end|><|start|>assistant", "a", "8assistant"),
    ],
)
def test_channels_of_harmony(text, reasoning, answer):
    found = parse(tokenizer(HARMONY), text, "<|start|>assistant")
    assert (found.reasoning, found.answer) == (reasoning, answer)
    assert "<|return|>" not in found.text


def test_a_mark_that_prompt_and_completion_share():
    found = parse(tokenizer(HARMONY), "analysis<|message|>a", "<|start|>assistant<|channel|>")
    assert (found.reasoning, found.answer) == ("a", None)


def test_special_tokens_that_mark_nothing_are_left_out():
    made = tokenizer(("[THINK]", "[/THINK]"))
    found = parse(made, "[THINK]a[/THINK]b<|im_end|>")
    assert (found.text, found.reasoning, found.answer) == ("[THINK]a[/THINK]b", "a", "b")


def test_the_first_stop_string_ends_the_text():
    found = parse(tokenizer(*THINK), "<think>a</think>b\nQ: c\nQ: d", stop=["\nQ:", ""])
    assert (found.text, found.answer) == ("<think>a</think>b", "b")
    found = parse(tokenizer(*THINK), "<think>a\nQ: </think>b", stop=["\nQ:"])
    assert (found.text, found.reasoning, found.answer) == ("<think>a", "a", None)


def test_marks_of_ones_own():
    made = tokenizer(added=("<think>", "</think>"))
    found = parse(made, "%% a ;; b <think>", marks=["%%", ";;"])
    assert (found.reasoning, found.answer) == ("a", "b <think>")
    found = parse(made, "<think>a", marks=[])
    assert (found.reasoning, found.answer) == (None, "<think>a")


def test_a_question_of_marks_does_not_count():
    made = tokenizer(template=CHAT_TEMPLATE)
    assert parse(made, "It is 7", "<|im_start|>assistant\n").answer == "It is 7"


def test_text_of_which_no_tokens_are_known():
    parser = ReasoningParser()
    assert parser.parse_text("<seed:think>9</seed:think>The value is 7.").answer == "The value is 7."
    assert parser.parse_text(r"<think>the answer is \boxed{7} but wait", finished=False).answer is None
    assert parser.parse_text("7").answer == "7"


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "é", "<", "think>"]), max_size=12))
def test_the_text_is_there_whatever_the_marks(pieces):
    text = "".join(pieces)
    found = parse(tokenizer(*THINK), text)
    assert found.text == text
    if found.answer is not None:
        letters = (found.reasoning or "") + found.answer
        assert letters.count("a") == text.count("a") and letters.count("é") == text.count("é")


@pytest.mark.parametrize(
    ("family", "prompt", "expected"),
    [
        ("qwen3", "", False),
        ("qwen3", "<think>\n\n</think>\n\n", None),
        ("deepseek-r1", "<think>\n", True),
        ("special think", "", False),
        ("gpt-oss", "", None),
        ("only a template", "<think>", None),
    ],
)
def test_what_a_completion_may_think_before_its_answer(family, prompt, expected):
    """The two tokens around it and whether it is open; None: marks are no tokens, or closed by the prompt."""
    special, added, template, *_ = FAMILIES[family]
    made = tokenizer(special, added, template)
    marks = tuple(made.convert_tokens_to_ids(["<think>", "</think>"]))
    found = ReasoningParser(made).may_think(prompt)
    assert found == (None if expected is None else (marks, expected))


def test_a_stop_string_within_the_least_tokens_ends_nothing():
    made = tokenizer(added=("<think>", "</think>"))
    assert parse(made, "a.b.c", stop=["."]).text == "a"
    assert parse(made, "a.b.c", stop=["."], least=2).text == "a.b"
    assert parse(made, "<think>.</think>x.y", stop=["."], least=2).text == "<think>.</think>x"
    assert parse(made, "ab--c", stop=["--"], least=3).text == "ab"
