r"""The tokenizer of small models that are trained on the built-in problems.

Made by code, not from data: a line ``x12 = x11 + x3 = 5 + 7 = 12 -> 2\n`` is 14 tokens. Numbers up to 999,
the labels ``x1`` to ``x999`` and register names are one token each and never carry a space, so that the
same name is the same token wherever it stands; operators carry the spaces around them, words the one before
them. The rest falls back to single characters. Decoding is plain joining: any ASCII text comes back as it
was, and so does any part of it.
"""

from __future__ import annotations

import re
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, START, END, UNKNOWN = "<|pad|>", "<|start|>", "<|end|>", "<|unknown|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, START, END, UNKNOWN, *(f"<|{role}|>" for role in ROLES))

NUMBERS = 1000
OPERATORS = (" = ", " + ", " - ", " * ", " -> ", ". ", ", ", ": ", "? ", "}.", "\\boxed{", " \\boxed{")
COMMON = (
    "At Go Name Start The There These What Which Who Solve Compute Find Let Then So Therefore Answer Step "
    "after an and answer are at be by comes computes each end ends entries entry every far first follow "
    "from given go has have hold how in included into is it its last line made many mod modulo next no not "
    "now numbers of on one or order program registers result says set so start step steps stop sum table "
    "that the then there these this through to total until updates value values was way what which whole "
    "will with you your"
)
WORDS = tuple(word for word in COMMON.split() if len(word) > 1)

CHAT_TEMPLATE = (
    START
    + "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    + END
    + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary() -> list[str]:
    """All tokens, in the order of their ids."""
    tokens = [
        *SPECIAL,
        "\n",
        "\t",
        *string.printable[:95],  # without whitespace but the space
        *(str(number) for number in range(10, NUMBERS)),
        *(f"x{number}" for number in range(1, NUMBERS)),
        *OPERATORS,
        *WORDS,
        *(f" {word}" for word in WORDS),
    ]
    assert len(set(tokens)) == len(tokens)
    return tokens


def make_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template.

    Args:
        context: longest sequence of its model, in tokens.
    """
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(vocabulary())}, unk_token=UNKNOWN))
    words = "|".join(sorted(WORDS, key=len, reverse=True))
    operators = "|".join(re.escape(operator) for operator in sorted(OPERATORS, key=len, reverse=True))
    number = r"(?<![0-9])(?:0|[1-9][0-9]{0,2})(?![0-9])"
    label = r"(?<![A-Za-z0-9])x[1-9][0-9]{0,2}(?![0-9])"
    word = rf"(?: |(?<![A-Za-z]))(?:{words})(?![A-Za-z])"
    pattern = Regex(rf"{label}|{number}|{operators}|{word}|(?m:.)")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def prompt_text(question: str) -> str:
    """A question up to where its answer begins: what the chat template makes of it."""
    return f"{START}<|user|>{question}{END}<|assistant|>"


def answer_text(solution: str) -> str:
    """What the model is to say after ``prompt_text``."""
    return f"{solution}{END}"
