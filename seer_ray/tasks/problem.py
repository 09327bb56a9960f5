"""What is asked, as every other room sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from seer_ray.tasks.asked import Asked
from seer_ray.tasks.documents import Document
from seer_ray.tasks.forms import asked_form


@dataclass(frozen=True)
class Problem:
    """One dataset row."""

    id: str
    """Unique in the dataset. Any text: never to be used as a file path."""
    messages: tuple[dict[str, str], ...]
    """The whole chat that is sent to the model: system, few-shot examples, user. Keys: role, content."""
    answer: str | None
    """Reference answer; None: there is nothing to grade against."""
    error: str | None = None
    """Why the row cannot be asked, with its file and line; None: it can."""
    inputs: str | None = None
    """Columns of the row that the results keep (``task.columns.keep``), as a JSON object; None: none."""
    asked: Asked = field(default_factory=Asked)
    """Settings of its own."""
    raw: str | tuple[int, ...] | None = None
    """In place of a chat: text, or token ids, that goes to the model as it is."""

    document: Document | None = None
    """The part of a message that may be read sparsely; None: all of the prompt."""
    where: str = field(default="", compare=False)
    """Its file and line, for errors."""

    def at(self, error: str) -> str:
        """An error that says where the row stands."""
        return error if not self.where or self.where in error else f"{self.where}: {error}"

    def samples(self, usual: int) -> int:
        """Completions of it."""
        return self.asked.samples or usual


@dataclass(frozen=True)
class Prompt:
    """A problem as the model sees it."""

    problem: Problem
    text: str
    tokens: Sequence[int]
    opening: str = ""
    """The end of ``text`` that the chat template puts behind the chat: the completion goes on with it."""
    error: str | None = None
    """Why there is none; None: there is one."""
    document: tuple[int, int] | None = None
    """The tokens of the problem's document: index of the first, and past the last. None: it has none."""

    @cached_property
    def form(self) -> str | None:
        """In which it asks for the answer, see ``forms.asked_form``."""
        return asked_form(self.problem.messages)

    @cached_property
    def digest(self) -> str:
        """Of what the model sees, 16 hex digits."""
        place = [] if self.document is None else [self.document]
        content = json.dumps([self.text, list(self.tokens), *place]).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()
