"""What can go wrong for a user, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from seer_ray.config.secrets import hidden


class JobError(RuntimeError):
    """The job cannot go on. The message is one line for a person, without secrets; the command line exits
    with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(hidden(message))

    kept: str | None = "what is finished is kept"
    """What is true of the job's folder then; None: it is not there to go on in."""


class NotWritten(JobError):
    """The job's folder does not take what is to be written."""

    kept = "what was committed before is kept"


class FolderGone(JobError):
    """The job's folder is not there any more."""

    kept = None


class Interrupted(KeyboardInterrupt):
    """Somebody stopped the job. What was finished and what was begun is on disk.

    As Ctrl-C is it, no ``Exception``: a signal comes anywhere, also where a library takes whatever goes wrong
    for a failure of its own.
    """


def first_line(error: object) -> str:
    """An error as one line of a message, without secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return hidden(lines[0]) if lines else type(error).__name__


class ConfigError(ValueError):
    """A bad option. The message is one line, without secrets: option, value, what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(hidden(message))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, to put behind a name that is not among the known ones; else empty."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def one_line(error: BaseException, limit: int | None = 200) -> str:
    """An error's message on one line, without secrets."""
    text = " ".join(hidden(str(error)).split()) or type(error).__name__
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
