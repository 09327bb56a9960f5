"""Marks of thinking in a model's own token ids."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.test_thinking import FAMILIES, PLAIN, tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.engine.forcing import ThinkingState
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.tasks.thinking import ReasoningParser

UNKNOWN = ("kimi", "no sign of its marks")
"""Neither their vocabulary nor their template says what their marks are."""


def rules(made: Any, budget: int | None = None, end: str | None = None) -> ThinkingRules:
    config = RunConfig()
    config.sampling.thinking_budget, config.sampling.thinking_end = budget, end
    return ThinkingRules(config, ReasoningParser(made), made)


def ids(made: Any, text: str) -> list[int]:
    return made(text, add_special_tokens=False)["input_ids"]


def said(made: Any, found: ThinkingRules, opening: str, thought: str, answer: str) -> list[int]:
    """A chain that would think and then, where it is let, answer."""
    thinking = found.of(opening)
    assert thinking is not None
    state, chain = ThinkingState(thinking), []
    for token in ids(made, thought):
        if state.next is not None:
            break
        chain.append(state.take(token))
    while state.next is not None:
        chain.append(state.take(-1))
    return [*chain, *ids(made, answer)]


@pytest.fixture(params=[name for name in FAMILIES if name not in UNKNOWN])
def family(request: pytest.FixtureRequest) -> tuple[Any, str, str]:
    special, added, template, opening, closing = FAMILIES[request.param]
    return tokenizer(special, added, PLAIN + "{# " + template + " #}"), opening, closing


@pytest.mark.parametrize("by_prompt", [False, True])
def test_a_natural_end_is_found_and_a_budget_ends_it(family: tuple[Any, str, str], by_prompt: bool) -> None:
    made, opening, closing = family
    prompt, begin = (opening, "") if by_prompt else ("", opening)
    whole = ids(made, f"{begin}Maybe 7, maybe 9.{closing}It is 8.")
    count, forced = rules(made).count(prompt, whole)
    assert count is not None and len("Maybe 7, maybe 9.") <= count <= len("\nMaybe 7, maybe 9.\n\n")
    assert forced is None and rules(made, 50).count(prompt, whole) == (count, False)

    cut = said(made, rules(made, 9), prompt, f"{begin}Maybe 7, maybe 9.", "It is 8.")
    assert rules(made, 9).count(prompt, cut) == (9, True)
    parsed = ReasoningParser(made).parse(cut, prompt)
    assert parsed.reasoning is not None and "\nMaybe 7, maybe".find(parsed.reasoning) >= 0
    assert parsed.answer == "It is 8."


def test_a_prompt_that_closes_what_it_opens_has_no_thinking(family: tuple[Any, str, str]) -> None:
    made, opening, closing = family
    assert rules(made, 3).count(f"{opening}{closing}", ids(made, "It is 8.")) == (0, False)


def merged() -> PreTrainedTokenizerFast:
    """Pieces of several letters: a mark has other tokens in other places."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("<", "/"), ("t", "h"), ("i", "n"), ("th", "in"), ("thin", "k"), (">", "Ċ"), (".", "</")]
    vocabulary = {piece: place for place, piece in enumerate([*alphabet, *map("".join, pairs)])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.chat_template = PLAIN + "{# <think> #}"
    return fast


def test_a_mark_is_found_however_it_is_cut_into_tokens() -> None:
    made = merged()
    for text, count in (("a</think>b", 1), ("a.</think>\nb", 2), ("a<</think>b", 2)):
        assert rules(made).count("<think>", ids(made, text)) == (count, None), text
    letters = [made.get_vocab()[letter] for letter in "a</think>b"]
    assert rules(made).count("<think>", letters) == (1, None)


def test_what_is_begun_of_an_end_is_gone_on_with() -> None:
    made = merged()
    for text in ("ab<", "ab</", "ab</t", "ab</thin"):
        found = rules(made, len(ids(made, text)))
        chain = said(made, found, "<think>", text, "c")
        assert made.decode(chain) == "ab</think>c", text
        assert found.count("<think>", chain) == (2, True)


def test_what_is_forced_may_be_given() -> None:
    made = merged()
    chain = said(made, rules(made, 2, "\nTime is up.\n</think>\n"), "<think>", "abc", "d")
    assert made.decode(chain) == "ab\nTime is up.\n</think>\nd"
    with pytest.raises(ConfigError, match=r"sampling.thinking_end='Time is up.': must have .*</think>"):
        rules(made, 2, "Time is up.")


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_model_whose_marks_are_not_known(name: str) -> None:
    special, added, template, opening, _ = FAMILIES[name]
    made = tokenizer(special, added, PLAIN + template)
    assert rules(made).count("", ids(made, f"{opening}7")) == (None, None)
    with pytest.raises(ConfigError, match=r"sampling.thinking_budget=9: .*task.thinking_marks"):
        rules(made, 9)


class Blind:
    """A tokenizer that reads its control tokens out of no text, as that of mistral-common."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __call__(self, text: str, **options: Any) -> Any:
        return self._made(text, split_special_tokens=True, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def test_control_tokens_that_no_text_gives() -> None:
    made = tokenizer(("[THINK]", "[/THINK]"))
    close = made.convert_tokens_to_ids("[/THINK]")
    assert close not in ids(Blind(made), "[/THINK]")
    whole = ids(made, "[THINK]7[/THINK]It is 8.")
    assert rules(Blind(made)).count("", whole) == (1, None)
    thinking = rules(Blind(made), 2).of("[THINK]")
    assert thinking is not None and thinking.marks[0].forced.rests == ((close,),)
