"""What is asked, as every other room sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One dataset row."""

    id: str
    """Unique in the dataset. Any text: never to be used as a file path."""
    messages: tuple[dict[str, str], ...]
    """The whole chat that is sent to the model: system, few-shot examples, user. Keys: role, content."""
    answer: str | None
    """Reference answer; None: there is nothing to grade against."""


@dataclass(frozen=True)
class Prompt:
    """A problem as the model sees it."""

    problem: Problem
    text: str
    tokens: tuple[int, ...]
