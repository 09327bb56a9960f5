"""Structured output: what a completion may go on with, so that it has the form that was asked for.

The rules come from llguidance, which needs no preparation for a schema, says which keys of one it does not
know instead of passing them over, and computes masks beside the forward pass, without Python's lock. A guide
is a function of the tokens alone: after preemption it stands where it stood, and after a kill it is led
through the tokens that are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from seer_ray.config.errors import ConfigError
from seer_ray.engine.request import Structure

WHITESPACE = "[ \\n]?"
"""Between the parts of JSON. Bounded: else a chain may end in blanks and not in JSON."""


class Guide:
    """The form of one completion, from where its tokens stand.

    Args:
        matcher: llguidance's.
        structure: what was asked.
    """

    def __init__(self, matcher: Any, structure: Structure) -> None:
        self._matcher, self._structure = matcher, structure
        self._thinks, self._fresh = structure.begun, True
        self._mask: Future[None] | None = None
        self._bits: np.ndarray | None = None

    @property
    def active(self) -> bool:
        """The next token must fit. Not while the model thinks."""
        return not self._thinks

    @property
    def done(self) -> bool:
        """The form is complete, or there is no going on."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str | None:
        """Why it cannot go on; None: it can."""
        if not self._matcher.is_error():
            return None
        return f"{self._structure.asked}: {_first(self._matcher.get_error())}"

    def take(self, token: int) -> None:
        """The completion's next token."""
        opens, closes = self._structure.thinking or (None, None)
        if self._thinks:
            self._thinks = token != closes
        elif self._fresh and token == opens:
            self._thinks = True
        else:
            self._matcher.consume_token(token)
        self._fresh = False

    def mask(self) -> np.ndarray:
        """A bit for each token that may come, uint8 ``[vocabulary / 8]``, lowest bits first. Waits for it."""
        assert self._mask is not None, "prepare() comes first"
        self._mask.result()
        assert self._bits is not None
        return self._bits

    def _compute(self) -> None:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._fresh and self._structure.thinking is not None:  # it may think first
            bits = bits.copy()
            opens, _ = self._structure.thinking
            bits[opens // 8] |= 1 << opens % 8
        self._bits = bits


def prepare(guides: Iterable[Guide | None]) -> None:
    """Begins to compute the masks of the next tokens, beside whatever follows."""
    active = [guide for guide in guides if guide is not None and guide.active]

    def compute() -> None:
        for guide in active:
            guide._compute()

    if active:
        computed = _beside().submit(compute)
        for guide in active:
            guide._mask = computed


@cache
def _beside() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "guides")


class Guides:
    """Makes guides for one tokenizer.

    Args:
        tokenizer: of the model; None: it has none.
        vocabulary: entries of the logits.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._known: Any = None

    def make(self, structure: Structure, tokens: Sequence[int] = ()) -> Guide:
        """The guide of a completion that has these tokens.

        Raises:
            ConfigError: a form that cannot be kept to; says why.
        """
        matcher = _library().LLMatcher(self._tokens(structure), _grammar(structure), log_level=0)
        guide = Guide(matcher, structure)
        for token in tokens:
            guide.take(token)
        if guide.error is not None:
            raise ConfigError(guide.error)
        return guide

    def _tokens(self, structure: Structure) -> Any:
        if self._known is None:
            _library()
            from llguidance.hf import from_tokenizer

            try:
                self._known = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary)
            except ValueError as error:
                raise ConfigError(
                    f"{structure.asked}: needs a tokenizer of the tokenizers library ({_first(str(error))})"
                ) from error
        return self._known


def _grammar(structure: Structure) -> str:
    matcher = _library().LLMatcher
    try:
        if structure.kind == "json":
            options = {"whitespace_pattern": WHITESPACE}
            found = matcher.grammar_from_json_schema(structure.text, overrides=options)
        elif structure.kind == "choice":
            found = matcher.grammar_from_regex("|".join(map(re.escape, json.loads(structure.text))))
        elif structure.kind == "regex":
            found = matcher.grammar_from_regex(structure.text)
        else:
            raise ValueError(f"{structure.kind} is no kind of form: json, regex, choice")
    except ValueError as error:
        raise ConfigError(f"{structure.asked}: {_first(str(error))}") from error
    return str(found)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ConfigError("structured output needs llguidance: pip install llguidance") from error
    return llguidance


def _first(message: str) -> str:
    """On one line, without the state of the library that follows."""
    return " ".join(message.partition("<state>")[0].split())[:300]
