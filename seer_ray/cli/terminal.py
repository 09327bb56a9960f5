"""Streams, exits and JSON: what the command line owes to shells and scripts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from seer_ray.cli.streams import failure_of, text_output
from seer_ray.config.secrets import hidden

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, progress on stderr")]

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""
NARROWEST = 40
"""Columns."""
SENT_TO = "SEER_RAY_SENT_TO"
"""Variable with the node where a submitted job runs (``cluster/start/start.py``)."""


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
        out = text_output(saved)
        yield out
        require_written(out)
    finally:
        stream.flush()
        os.dup2(saved, number)
        os.close(saved)


def require_written(stream: TextIO) -> None:
    """Exits with a line about it where not everything could be written to a stream of results."""
    stream.flush()
    if failure := failure_of(stream):
        fail(f"stdout cannot be written ({failure.strerror}): send it elsewhere, or free some room", FAILED)


def console(stderr: bool = False) -> Console:
    """What tables and panels are printed on: as wide as the terminal, if that is not too narrow for words."""
    from rich.console import Console

    found = Console(stderr=stderr)
    found.width = max(found.width, NARROWEST)
    return found


def print_json(value: dict[str, Any], out: TextIO | None = None) -> None:
    """One line of JSON proper: what is not a number is null."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): clean(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    stream = out or sys.stdout
    narrow = not (stream.encoding or "utf-8").lower().startswith("utf")
    print(json.dumps(clean(hidden(value)), ensure_ascii=narrow), file=stream, flush=True)


class WithoutSecrets(logging.Filter):
    """Takes secrets out of what is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hidden(record.getMessage()), ()
        return True


def fail(message: str, code: int) -> NoReturn:
    """Say in one line what is wrong, and exit; of a job that was sent somewhere, where that is."""
    node = os.environ.get(SENT_TO)
    stop(f"error: {f'node {node}: ' if node else ''}{message}", code)


def stop(message: str, code: int) -> NoReturn:
    print(" ".join(hidden(message).split()), file=sys.stderr, flush=True)
    sys.exit(code)
