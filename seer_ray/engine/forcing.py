"""Thinking counted in a chain's tokens, and ended at a budget by tokens that come whatever the model says.

What is to come is a function of the tokens so far alone, so a chain that goes on elsewhere is forced at the
same place. A step computes the forced token's place like any other, and the noise of the tokens behind it is
that of their positions. It knows no tokenizer: whoever makes a request says which tokens marks are made of.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """A text that ends thinking."""

    letters: str
    rests: tuple[tuple[int, ...], ...]
    """Token ids that spell what is left behind its first k letters; none for a k at which it cannot go on."""


@dataclass(frozen=True)
class ThinkingMarks:
    """How one family of models opens and closes its thinking."""

    opens: tuple[str, ...]
    closes: tuple[Ending, ...]
    forced: Ending
    """What comes at the end of the budget, where no closing mark is begun."""


@dataclass(frozen=True)
class Thinking:
    """Where a request's thinking begins and ends, and how long it may be.

    Marks are told by letters and not by tokens, as the same text may be cut into tokens in several ways. What
    is one added token of the vocabulary is one letter, that nothing else can spell.
    """

    letters: Mapping[int, str]
    """By token id, of the tokens that may be part of a mark."""
    marks: tuple[ThinkingMarks, ...]
    opened: int | None
    """Place among ``marks`` of those that the prompt has opened and not closed."""
    budget: int | None = None
    """Thinking tokens, at most, marks not counted; None: any number."""


class ThinkingState:
    """Where a chain stands.

    Args:
        thinking: Of its request.
        tokens: Those that it has generated already.

    Attributes:
        count: Thinking tokens: those between the marks, which may come several times.
        forced: The budget was reached, and the end of thinking put there.
        next: Token that comes next whatever the model says; None: its own.
    """

    def __init__(self, thinking: Thinking, tokens: Iterable[int] = ()) -> None:
        self._thinking = thinking
        endings = [ending for marks in thinking.marks for ending in (*marks.closes, marks.forced)]
        texts = [ending.letters for ending in endings] + [text for m in thinking.marks for text in m.opens]
        self._reach = max(map(len, texts), default=1)
        self._tail: list[str] = []
        """Letters of the last tokens, as far as they may be part of a mark."""
        self._rest: list[int] = []
        """Forced tokens still to come, the last one first."""
        self.count = 0
        self.forced = False
        self.next: int | None = None
        self._inside = thinking.opened
        self._force()
        for token in tokens:
            self.push(token)

    def fork(self) -> ThinkingState:
        """One that goes on from here without this one."""
        other = copy.copy(self)
        other._tail, other._rest = list(self._tail), list(self._rest)
        return other

    def take(self, sampled: int) -> int:
        """The chain's next token, where the model would say ``sampled``."""
        token = sampled if self.next is None else self.next
        self.push(token)
        return token

    def push(self, token: int) -> None:
        """The chain's next token."""
        if self._rest:
            if token == self._rest.pop():
                if self._rest:
                    self.next = self._rest[-1]
                    return
                self._inside = self.next = None
                return
            self._rest, self.next = [], None  # made without a budget, or with another one
        letters = self._thinking.letters.get(token)
        if letters is None:
            self._tail.clear()
            if self._inside is not None:
                self.count += 1
                self._force()
            return
        self._tail.append(letters)
        while sum(map(len, self._tail[1:])) >= self._reach:
            del self._tail[0]
        if self._inside is None:
            self._open()
        else:
            self.count += 1
            self._close(self._inside)
        self._force()

    def _open(self) -> None:
        text = "".join(self._tail)
        found = [
            (at, -len(mark), place)  # the first, and of two at one place the longer one
            for place, marks in enumerate(self._thinking.marks)
            for mark in marks.opens
            if (at := text.find(mark)) >= 0
        ]
        if found:
            at, minus_length, self._inside = min(found)
            self._keep(at - minus_length)

    def _close(self, inside: int) -> None:
        text = "".join(self._tail)
        for ending in self._thinking.marks[inside].closes:
            at = text.find(ending.letters)
            if at >= 0:
                self.count -= self._tokens_from(at)
                self._inside = None
                self._keep(at + len(ending.letters))
                return

    def _force(self) -> None:
        """Ends thinking where the budget is reached; what the model has begun of an end is gone on with."""
        thinking, inside = self._thinking, self._inside
        if inside is None or thinking.budget is None or self.count < thinking.budget:
            return
        marks, text = thinking.marks[inside], "".join(self._tail)
        begun, ending = 0, marks.forced
        for other in (marks.forced, *marks.closes):
            for length in range(min(len(other.rests) - 1, len(text)), begun, -1):
                if other.rests[length] and text.endswith(other.letters[:length]):
                    begun, ending = length, other
                    break
        self.count -= self._tokens_from(len(text) - begun)
        self.forced = True
        self._tail.clear()
        self._rest = list(reversed(ending.rests[begun]))
        self.next = self._rest[-1]

    def _tokens_from(self, at: int) -> int:
        """Tokens of the tail that begin at its letter ``at`` or behind it."""
        starts, place = 0, 0
        for letters in self._tail:
            starts += place >= at
            place += len(letters)
        return starts

    def _keep(self, at: int) -> None:
        """Of the tail, only what stands behind its letter ``at``."""
        text = "".join(self._tail)[at:]
        self._tail = [text] if text else []
