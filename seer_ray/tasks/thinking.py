"""Reasoning told apart from the answer, on token ids: what other systems call a reasoning parser."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from seer_ray.tasks.marks import AROUND_ANSWER, KNOWN, Marks, marks_of, pair


@dataclass(frozen=True)
class Parsed:
    """A completion as text."""

    text: str
    """As decoded: special tokens are left out, but for those that mark reasoning."""
    reasoning: str | None
    """Without its marks; None: there is none."""
    answer: str | None
    """What is not reasoning; None: the reasoning did not end, so there is no answer."""


class _Mark(NamedTuple):
    start: int
    end: int
    closes: bool
    family: Marks


class ReasoningParser:
    """Tells reasoning from the answer in a model's completions.

    A mark that is one token of the vocabulary is that token alone: the same letters, spelled by other tokens,
    are text. Of a prompt only what the chat template puts behind the chat counts, so that no question opens
    or closes anything. Marks of which the model has no sign count where a completion begins with one.

    Args:
        tokenizer: Of the model, with its chat template. None: of text alone, by the marks that are known.
        marks: ``[open, close]`` in place of the model's own; empty: all is answer; None: the model's own.
    """

    def __init__(self, tokenizer: Any = None, marks: Sequence[str] | None = None) -> None:
        self._tokenizer = tokenizer
        added, self._special = added_tokens(tokenizer)
        self.marks: tuple[Marks, ...]
        """That the model has a sign of, or that were given."""
        self._others: tuple[Marks, ...] = ()
        if marks is not None:
            self.marks = (pair(*marks),) if marks else ()
        else:
            template = getattr(tokenizer, "chat_template", None) or ""
            sources = template.values() if isinstance(template, dict) else [template]
            self.marks = KNOWN if tokenizer is None else marks_of("\n".join(sources), added.values())
            self._others = tuple(known for known in KNOWN if known not in self.marks)
        patterns = [p.pattern.replace("\\", "") for m in self.marks for p in (m.open, m.close)]
        self._tokens = {
            id: text for id, text in added.items() if text.strip() and any(text in p for p in patterns)
        }
        """Added tokens that marks are made of."""

    def parse(
        self, tokens: Sequence[int], prompt: str = "", stop: Sequence[str] = (), finished: bool = True
    ) -> Parsed:
        """A completion by its token ids.

        Args:
            tokens: Ids of the completion.
            prompt: What the chat template puts behind the chat, where the completion goes on.
            stop: Strings of which the first one ends the text.
            finished: The model has ended the completion; False: it was cut off.
        """
        text, places = self._spell(tokens)
        text = text[: min((at for at in (text.find(s) for s in stop if s) if at >= 0), default=len(text))]
        return self._parse(text, prompt, places, finished)

    def spell(self, tokens: Sequence[int]) -> str:
        """The text of some token ids, special tokens left out but for those that mark reasoning."""
        return self._spell(tokens)[0]

    def parse_text(self, text: str, finished: bool = True) -> Parsed:
        """A completion of which only the text is known."""
        return self._parse(text, "", {}, finished)

    def _parse(self, text: str, prompt: str, places: dict[int, int], finished: bool) -> Parsed:
        whole, begin = prompt + text, len(prompt)
        pieces: list[tuple[bool, int, int]] = []  # (is reasoning, start, end)
        depth, at = 0, 0
        opened = closed = False
        family: Marks | None = None
        for mark in self._find(whole, begin, sorted(places), places):
            stray = mark.closes and not depth
            if (depth and mark.family is not family) or (stray and opened and mark.family.nests):
                continue  # of others, or a closing mark in the answer: text
            piece, at = (at, mark.start), mark.end
            pieces.append((depth > 0, *piece))
            family, closed = mark.family, mark.closes
            if stray and not opened:
                # Its beginning was not marked: all that came before is reasoning.
                pieces = [(True, start, end) for _, start, end in pieces]
            if mark.closes:
                depth = max(0, depth - 1) if family.nests else 0
                opened = mark.end > begin
            elif not depth:
                depth = 1
            elif family.nests and whole[slice(*piece)].strip():  # else the template has opened it already
                depth += 1
            opened = opened or depth > 0
        # What is closed once and then goes on to its end was not nested, but opened by mistake.
        unfinished = depth > 0 and not (finished and closed)
        pieces.append((unfinished, at, len(whole)))

        def joined(reasoning: bool) -> str:
            return "".join(
                self._plain(whole, max(start, begin), end, begin, places)
                for kind, start, end in pieces
                if kind is reasoning and end > begin
            )

        thoughts = joined(True).strip() or None
        if unfinished:
            return Parsed(text, thoughts, None)
        answer = joined(False)
        if family is not None and (within := AROUND_ANSWER.fullmatch(answer)):
            answer = within["answer"]
        return Parsed(text, thoughts, answer if family is None else answer.strip())

    def _spell(self, tokens: Sequence[int]) -> tuple[str, dict[int, int]]:
        """The text, and the tokens in it that marks are made of, by the place of their first character."""
        kept = [id for id in tokens if id in self._tokens or id not in self._special]
        cuts = [i for i, id in enumerate(kept) if id in self._tokens]
        text, places = "", dict[int, int]()
        # Cut before each mark, not behind it: some tokenizers drop the space of what stands first.
        for start, end in pairwise(dict.fromkeys([0, *cuts, len(kept)])):
            piece = self._decode(kept[start:end])
            if mark := self._tokens.get(kept[start]):
                if (at := piece.find(mark)) < 0:
                    piece, at = mark + self._decode(kept[start + 1 : end]), 0
                places[len(text) + at] = kept[start]
            text += piece
        return text, places

    def _decode(self, tokens: Sequence[int]) -> str:
        # As it was written: some tokenizers would take the space before a comma away.
        return self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _find(self, whole: str, begin: int, starts: list[int], places: dict[int, int]) -> list[_Mark]:
        """The marks, in order, of two at one place the longer one."""
        first = len(whole) - len(whole[begin:].lstrip())
        others = [m for m in self._others if m.open.match(whole, first) or m.open.search(whole, 0, begin)]
        found = [
            _Mark(match.start(), match.end(), closes, family)
            for family in (*self.marks, *others)
            for closes, pattern in ((False, family.open), (True, family.close))
            for match in pattern.finditer(whole)
            if self._is_mark(match, begin, starts, places)
        ]
        marks: list[_Mark] = []
        for mark in sorted(found, key=lambda mark: (mark.start, -mark.end)):
            if not marks or mark.start >= marks[-1].end:
                marks.append(mark)
        return marks

    def _is_mark(self, match: re.Match[str], begin: int, starts: list[int], places: dict[int, int]) -> bool:
        """Whether what is one token of the vocabulary is that token here too."""
        for text in self._tokens.values():
            for part in re.finditer(re.escape(text), match[0]):
                at = match.start() + part.start() - begin
                before = bisect_right(starts, at) - 1
                if at < 0:  # the template's
                    continue
                if before < 0 or at + len(text) > starts[before] + len(self._tokens[places[starts[before]]]):
                    return False
        return True

    def _plain(self, whole: str, start: int, end: int, begin: int, places: dict[int, int]) -> str:
        """A piece of the text without special tokens."""
        starts = sorted(places)
        text, at = "", start
        for place in starts[bisect_left(starts, start - begin) : bisect_left(starts, end - begin)]:
            if places[place] in self._special:
                text += whole[at : place + begin]
                at = place + begin + len(self._tokens[places[place]])
        return text + whole[at:end]


def added_tokens(tokenizer: Any) -> tuple[dict[int, str], frozenset[int]]:
    """The vocabulary's added tokens, and which of them are special."""
    if tokenizer is None:
        return {}, frozenset()
    special = frozenset(tokenizer.all_special_ids)
    try:
        added = tokenizer.added_tokens_decoder
    except NotImplementedError:  # mistral-common's tokenizers: no other tokens are added
        return dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)), special
    return {id: str(token) for id, token in added.items()}, special.union(
        id for id, token in added.items() if token.special
    )
