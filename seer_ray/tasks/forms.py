r"""The form in which a prompt asks for the answer, and whether a completion keeps to it.

A grader looks for the answer wherever it may stand (the flexible answer). Strict is who counts it only where
it was asked for: both are said side by side, as lm-evaluation-harness does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from seer_ray.tasks.extraction import after_hashes, boxes, own_turn, tagged

_ASKS_LINE = re.compile(r"[\"'`]\s*answer:|\banswer:\s*[\[<$({]", re.IGNORECASE)
_ASKS_SENTENCE = re.compile(r"[\"'`“]\s*(?:so )?(?:the )?(?:final |correct )?answer is", re.IGNORECASE)
_LINE = re.compile(r"^[\W_]{0,4}answer[\W_]{0,3}:[\W_]{0,4}\w", re.IGNORECASE | re.MULTILINE)
_SENTENCE = re.compile(r"\banswer is:?[\s*$]*\S", re.IGNORECASE)

FORMS: dict[str, tuple[re.Pattern[str], Callable[[str], object]]] = {
    "box": (re.compile(r"\\(?:boxed|fbox)\b"), boxes),
    "hashes": (re.compile(r"####"), after_hashes),
    "tag": (re.compile(r"<answer>", re.IGNORECASE), tagged),
    "line": (_ASKS_LINE, _LINE.search),
    "sentence": (_ASKS_SENTENCE, _SENTENCE.search),
}
"""Name -> what a prompt that asks for it has, and what finds it in a completion; the first that fits."""


def asked_form(messages: Sequence[Mapping[str, str]]) -> str | None:
    """The form that a chat asks for in what is not the assistant's; None: none that is known here."""
    text = "\n".join(message["content"] for message in messages if message["role"] != "assistant")
    return next((name for name, (asks, _) in FORMS.items() if asks.search(text)), None)


def in_form(form: str | None, answer: str | None) -> bool | None:
    """Whether a completion without its reasoning has its answer in a form; None: no form was asked for.

    Args:
        form: of ``FORMS``; None: none
        answer: None: the reasoning did not end
    """
    if form is None:
        return None
    return answer is not None and bool(FORMS[form][1](own_turn(answer)))
