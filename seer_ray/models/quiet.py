"""No progress bars and advice from transformers while something is loaded."""

from __future__ import annotations

import contextlib
import io
import logging as standard
import re
import warnings
from collections.abc import Iterator

from transformers.utils import logging


class Said(standard.Handler):
    """What was not shown, for the error that it may explain."""

    def __init__(self) -> None:
        super().__init__(standard.WARNING)
        self.lines: list[str] = []

    def emit(self, record: standard.LogRecord) -> None:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())
        self.lines += [" ".join(line.split()) for line in plain.splitlines() if re.search(r"\w", line)]

    def first(self, limit: int = 400) -> str:
        """The first lines as words behind a message; empty if nothing was said."""
        text = "; ".join(self.lines)
        return f" (transformers: {text if len(text) <= limit else text[: limit - 1] + '…'})" if text else ""


@contextlib.contextmanager
def quiet() -> Iterator[Said]:
    """Errors still come as exceptions; all settings are put back. Gives what would have been shown."""
    verbosity, bars, said = logging.get_verbosity(), logging.is_progress_bar_enabled(), Said()
    library = standard.getLogger("transformers")
    handlers, propagates = library.handlers[:], library.propagate
    logging.set_verbosity_warning()
    logging.disable_progress_bar()
    library.handlers, library.propagate = [said], False
    try:
        # GGUF conversion has a progress bar that no setting reaches: it writes to stderr.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield said
    finally:
        library.handlers, library.propagate = handlers, propagates
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
