"""Marks that models put around their reasoning: the table of those known, and how others are found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Marks:
    """How one family of models opens and closes its reasoning, as patterns of text."""

    open: re.Pattern[str]
    close: re.Pattern[str]
    signs: tuple[str, ...]
    """A model whose vocabulary or chat template has one of these uses the marks."""
    nests: bool = True
    """False: a mark begins a section of its own, and ends the one before."""
    begins: tuple[str, ...] = ()
    """What ``open`` matches, as the models write it."""
    ends: tuple[str, ...] = ()
    """What ``close`` matches likewise, the usual one first."""


def pair(open: str, close: str) -> Marks:
    """Marks that are fixed texts."""
    return Marks(
        re.compile(re.escape(open)), re.compile(re.escape(close)), (open, close), True, (open,), (close,)
    )


def _sections(header: str, reasoning: str, answer: str, sign: str, begin: str, end: str) -> Marks:
    return Marks(
        re.compile(header + reasoning), re.compile(header + answer), (sign,), False, (begin,), (end,)
    )


KNOWN = (
    pair("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, GLM, Nemotron, Phi-4-reasoning, Hunyuan, ...
    pair("<thinking>", "</thinking>"),
    pair("<thought>", "</thought>"),  # EXAONE Deep
    pair("<reasoning>", "</reasoning>"),  # Reka
    pair("<seed:think>", "</seed:think>"),  # Seed-OSS
    pair("<mm:think>", "</mm:think>"),  # MiniMax-M3
    pair("<longcat_think>", "</longcat_think>"),
    pair("<think:opensource>", "</think:opensource>"),
    *(pair(f"<ifm|{word}>", f"</ifm|{word}>") for word in ("think", "think_fast", "think_faster")),  # K2
    pair("[THINK]", "[/THINK]"),  # Magistral, Ministral
    pair("◁think▷", "◁/think▷"),  # Kimi
    pair("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    pair("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    pair("<|think:start|>", "<|think:end|>"),  # Solar Open 2
    pair("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    pair("<|channel>thought", "<channel|>"),  # Gemma 4
    pair("<unused94>thought", "<unused95>"),  # MedGemma
    pair("[unused16]", "[unused17]"),  # openPangu
    Marks(  # Granite 3.2
        re.compile(r"Here(?: is|'s) my thought process:"),
        re.compile(r"Here(?: is|'s) my response:"),
        ("Here is my thought process", "Here's my thought process"),
        begins=("Here is my thought process:", "Here's my thought process:"),
        ends=("Here is my response:", "Here's my response:"),
    ),
    _sections(  # gpt-oss: the channels of harmony
        r"(?:<\|(?:end|call)\|>)?(?:<\|start\|>assistant)?(?: to=[^<\s]*)?<\|channel\|>",
        r"(?:analysis|commentary)\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
        r"final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
        "<|channel|>",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    _sections(  # Solar Open
        r"(?:<\|end\|>)?(?:<\|begin\|>assistant)?",
        r"<\|think\|>",
        r"<\|content\|>",
        "<|content|>",
        "<|think|>",
        "<|end|><|begin|>assistant<|content|>",
    ),
)

AROUND_ANSWER = re.compile(
    r"\s*(?:<(?P<tag>answer|response|output)>|<\|begin_of_solution\|>)(?P<answer>.*?)"
    r"(?:(?:</(?P=tag)>|<\|end_of_solution\|>)\s*)?",
    re.DOTALL,
)
"""An answer after the reasoning that has marks of its own around it: Hunyuan, Granite 3.3, Ernie, R1-Zero."""

_NAME = (
    r"(?:[\w.]+[:|_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
    r"(?:[:_](?!effort|mode|budget|level|language|enabled)[\w.]+)?"
)
_TAG = re.compile(rf"(?:<(?P<angle>{_NAME})>|\[(?P<square>{_NAME})\]|◁(?P<triangle>{_NAME})▷)", re.IGNORECASE)


def marks_of(template: str, tokens: Iterable[str]) -> tuple[Marks, ...]:
    """The marks of a model.

    Known ones of which the chat template or the vocabulary has a sign, and what else looks like them there:
    a tag named after thinking or reasoning, together with its closing tag.

    Args:
        template: Source of the chat template, or of all of them.
        tokens: Texts of the vocabulary's added tokens.
    """
    added = frozenset(tokens)

    def there(text: str) -> bool:
        return text in added or text in template

    found = [marks for marks in KNOWN if any(map(there, marks.signs))]
    signs = {sign for marks in KNOWN for sign in marks.signs}
    for tag in dict.fromkeys(match[0] for match in _TAG.finditer("\n".join([template, *sorted(added)]))):
        closing = f"{tag[0]}/{tag[1:]}"
        if tag not in signs and there(closing):
            found.append(pair(tag, closing))
    return tuple(found)
