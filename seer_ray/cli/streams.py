"""Standard streams that may be closed, full, gone or of few characters: no job ends for what it prints."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from typing import TextIO, cast

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET)
"""Nobody reads any more: ``| head`` has seen enough, the terminal is closed."""
PLAIN = {
    "·": "-",
    "•": "*",
    "±": "+-",
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "←": "<-",
    "≥": ">=",
    "≤": "<=",
    "─": "-",
    "━": "-",
    "│": "|",
    "╭": "+",
    "╮": "+",
    "╰": "+",
    "╯": "+",
}
"""What stands for characters that a stream's encoding does not have."""
ERRORS = "seer_ray.plain"
"""Name of the handler of such characters, see ``codecs``."""


class Output(io.FileIO):
    """A file descriptor to which every write succeeds: what cannot be written is dropped from then on.

    Args:
        descriptor: Stays open.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        """Why not everything was written, unless it is that nobody reads."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in GONE:
                self.failure = error
            # Also what C code and children print there.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(cast(bytes, data)))


def text_output(descriptor: int, like: TextIO | None = None) -> TextIO:
    """A text stream over an ``Output``, with the encoding of another; None: UTF-8."""
    raw = Output(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like is not None else "utf-8",
        errors=ERRORS,
        line_buffering=raw.isatty() or descriptor == 2,
        write_through=False,
    )


def failure_of(stream: object) -> OSError | None:
    """Why not everything was written to a stream that ``text_output`` made."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, Output) else None


def install() -> None:
    """Makes sound streams of this process's standard streams. To be called before any file is opened: one
    that is closed would be taken for it, and what others print would go there."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    codecs.register_error(ERRORS, plain)
    sys.stdout, sys.stderr = text_output(1, sys.stdout), text_output(2, sys.stderr)


def plain(error: UnicodeError) -> tuple[str, int]:
    """Stands in for characters that an encoding does not have. A handler for ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if character in PLAIN:
        return PLAIN[character]
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or "?"
