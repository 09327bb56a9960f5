"""Comparing a text with one or several references: found in it, words in common, longest common sequence.

Several references are a JSON list of texts, as ``tasks.datasets`` writes the value of a column that is a
list.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from functools import cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def references(answer: str) -> list[str]:
    """The texts of a JSON list of texts, or the answer itself."""
    if answer.startswith("["):
        try:
            found = json.loads(answer)
        except ValueError:
            return [answer]
        if isinstance(found, list) and found and all(isinstance(text, str) for text in found):
            return found
    return [answer]


def found_in(text: str, answers: Sequence[str]) -> list[str]:
    """Those answers that stand in the text, case aside (RULER's ``string_match``)."""
    folded = text.casefold()
    return [answer for answer in answers if answer.strip().casefold() in folded]


def normalised(text: str) -> str:
    """Without case, punctuation, articles and superfluous space (SQuAD, Rajpurkar et al., 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split())


def token_f1(text: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, at best over the answers (SQuAD's F1)."""
    return _best("rouge1", normalised(text), [normalised(answer) for answer in answers])


def rouge_l(text: str, answers: Sequence[str]) -> float:
    """F-measure of the longest common sequence of words, at best over the answers (Lin, 2004)."""
    return _best("rougeL", text, answers)


def _best(kind: str, text: str, answers: Sequence[str]) -> float:
    score = _scorer(kind).score_multi(list(answers), text)[kind]
    return float(score.fmeasure)


class _Words:
    """Of any script: the library's own tokenizer knows ASCII alone."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.casefold())


@cache
def _scorer(kind: str) -> Any:
    # Brings nltk, which only these graders need.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Words())
