"""Streams, exits and JSON: what the command line owes to shells and scripts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn, TextIO

import typer

from seer_ray.config.secrets import hidden

JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, progress on stderr")]

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""


@contextlib.contextmanager
def kept_free(stream: TextIO | None) -> Iterator[TextIO | None]:
    """Send all that anybody prints to stdout, also from C and child processes, to stderr instead.

    Yields what still writes to ``stream``. None: everything stays as it is.
    """
    if stream is None:
        yield None
        return
    try:
        number = stream.fileno()
    except (OSError, AttributeError):
        with contextlib.redirect_stdout(sys.stderr):
            yield stream
        return
    stream.flush()
    saved = os.dup(number)
    try:
        os.dup2(sys.stderr.fileno(), number)
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as out:
            yield out
    finally:
        stream.flush()
        os.dup2(saved, number)
        os.close(saved)


def print_json(value: dict[str, Any], out: TextIO | None = None) -> None:
    """One line of JSON proper: what is not a number is null."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): clean(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    print(json.dumps(clean(hidden(value)), ensure_ascii=False), file=out or sys.stdout, flush=True)


class WithoutSecrets(logging.Filter):
    """Takes secrets out of what is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hidden(record.getMessage()), ()
        return True


def fail(message: str, code: int) -> NoReturn:
    """Say in one line what is wrong, and exit."""
    stop(f"error: {message}", code)


def stop(message: str, code: int) -> NoReturn:
    print(" ".join(hidden(message).split()), file=sys.stderr, flush=True)
    sys.exit(code)
