"""A model's marks of thinking in its own token ids: for the engine's budget, and to count thinking tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.engine.forcing import Ending, Thinking, ThinkingMarks, ThinkingState
from seer_ray.tasks.marks import Marks
from seer_ray.tasks.thinking import ReasoningParser, added_tokens

ADDED = 0xF0000
"""First of the letters that stand for added tokens: Unicode's for private use."""


class ThinkingRules:
    """Where thinking begins and ends in a run's completions.

    Args:
        config: Its marks, its budget and what is forced then.
        parser: Of the run.
        tokenizer: Of the model.

    Raises:
        ConfigError: A budget for a model whose marks are not known, or an end without a closing mark.
    """

    def __init__(self, config: RunConfig, parser: ReasoningParser, tokenizer: Any) -> None:
        self._marks = parser.marks
        sampling = config.sampling
        self.budget = sampling.thinking_budget
        if not self._marks and self.budget is not None:
            raise ConfigError(
                f"sampling.thinking_budget={self.budget}: the marks that this model puts around its thinking "
                "are not known; give them, such as task.thinking_marks=[<think>,</think>]"
            )
        given = sampling.thinking_end
        if given is not None and not any(text in given for marks in self._marks for text in marks.ends):
            ends = " or ".join(dict.fromkeys(text for marks in self._marks for text in marks.ends))
            raise ConfigError(f"sampling.thinking_end={given!r}: must have the model's closing mark, {ends}")
        self._thinking = _spelled(self._marks, tokenizer, given) if self._marks else None
        self.of = cache(self._of)

    def _of(self, opening: str, own: int | None = None) -> Thinking | None:
        """For a request whose prompt ends so behind the chat; None: no marks are known.

        Args:
            opening: See ``tasks.prompts.opening``.
            own: Budget of the request's own.
        """
        if self._thinking is None:
            return None
        budget = self.budget if own is None else own
        return replace(self._thinking, opened=_opened(self._marks, opening), budget=budget)

    def count(
        self, opening: str, tokens: Sequence[int], asked: Thinking | None = None
    ) -> tuple[int | None, bool | None]:
        """(thinking tokens, whether their end was forced) of a completion. None: not known, no budget.

        Args:
            opening, tokens: Of the completion.
            asked: Of its request; None: it had no budget.
        """
        thinking: Thinking | None = asked or self.of(opening)
        if thinking is None:
            return None, None
        state = ThinkingState(thinking, tokens)
        return state.count, None if thinking.budget is None else state.forced


def _opened(marks: Sequence[Marks], opening: str) -> int | None:
    """Place of the marks that the end of a prompt has opened."""
    said = [
        (match.end(), opens, place)
        for place, one in enumerate(marks)
        for opens, pattern in ((True, one.open), (False, one.close))
        for match in pattern.finditer(opening)
    ]
    _, opens, place = max(said, default=(0, False, 0))
    return place if opens else None


def _spelled(marks: Sequence[Marks], tokenizer: Any, given: str | None) -> Thinking:
    """The marks by letters, and the tokens that they can be made of."""
    speller = _Speller(tokenizer)
    found = []
    for one in marks:
        closes = [speller.ending(text) for text in one.ends]
        forced = closes[0]
        if given is not None and any(text in given for text in one.ends):
            # Always the whole of it: its first letters may be those of any word.
            whole = speller.ending(given)
            forced = replace(whole, rests=whole.rests[:1])
        found.append(ThinkingMarks(tuple(map(speller.letters, one.begins)), tuple(closes), forced))
    texts = {text for one in found for text in (*one.opens, *(close.letters for close in one.closes))}
    return Thinking(speller.tokens_of(texts), tuple(found), None)


class _Speller:
    """Texts in the tokenizer's own letters, with a letter for each added token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added, _ = added_tokens(tokenizer)
        self._added = {id: chr(ADDED + place) for place, id in enumerate(sorted(added))}
        self._texts = {text: id for id, text in added.items() if text}

    @cached_property
    def _ids(self) -> dict[str, int]:
        """All other tokens; marks are mostly made without them."""
        return {text: id for text, id in self._tokenizer.get_vocab().items() if id not in self._added}

    def letters(self, text: str) -> str:
        return "".join(letters for _, letters in self._pieces(text))

    def ending(self, text: str) -> Ending:
        pieces = self._pieces(text)
        letters = "".join(piece for _, piece in pieces)
        places = list(accumulate((len(piece) for _, piece in pieces), initial=0))
        rests = []
        for begun in range(len(letters)):
            index = next(index for index, place in enumerate(places) if place >= begun)
            broken = self._cut(letters[begun : places[index]])
            rests.append(() if broken is None else (*broken, *(id for id, _ in pieces[index:])))
        return Ending(letters, tuple(rests))

    def _pieces(self, text: str) -> list[tuple[int, str]]:
        """Tokens and their letters. Some tokenizers read added tokens out of no text, so they are told apart
        here."""
        pieces: list[tuple[int, str]] = []
        for part in self._split(text):
            if (id := self._texts.get(part)) is not None:
                pieces.append((id, self._added[id]))
                continue
            ids = self._tokenizer(part, add_special_tokens=False)["input_ids"]
            names = self._tokenizer.convert_ids_to_tokens(ids)
            if names[0].startswith("▁") and not part.startswith(" "):
                names[0] = names[0][1:]  # some put a space before every text
            pieces += [(id, letters) for id, letters in zip(ids, names, strict=True) if letters]
        return pieces

    def _split(self, text: str) -> list[str]:
        """Its added tokens, and what stands between them."""
        added = sorted((re.escape(token) for token in self._texts), key=len, reverse=True)
        parts = re.split(f"({'|'.join(added)})", text) if added else [text]
        return [part for part in parts if part]

    def _cut(self, letters: str) -> tuple[int, ...] | None:
        """Tokens that spell the rest of a token, the longest first; None: there are none."""
        found: list[int] = []
        while letters:
            fits = [length for length in range(len(letters), 0, -1) if letters[:length] in self._ids]
            if not fits:
                return None
            found.append(self._ids[letters[: fits[0]]])
            letters = letters[fits[0] :]
        return tuple(found)

    def tokens_of(self, texts: Iterable[str]) -> dict[int, str]:
        """Letters of the tokens that may hold a part of a text."""
        texts = tuple(texts)
        there = set("".join(texts))
        found = {id: letter for id, letter in self._added.items() if letter in there}
        if all(ord(letter) >= ADDED for letter in there):
            return found
        for letters, id in self._ids.items():
            if (
                letters
                and (letters[0] in there or letters[-1] in there)
                and any(_overlap(letters, text) for text in texts)
            ):
                found[id] = letters
        return found


def _overlap(letters: str, text: str) -> bool:
    """Whether a token can hold a part of the text: all of it, its beginning, its end, or something within."""
    if letters in text or text in letters:
        return True
    lengths = range(1, min(len(letters), len(text)))
    return any(letters.endswith(text[:n]) or letters.startswith(text[-n:]) for n in lengths)
