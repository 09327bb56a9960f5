"""A text that every Python has with it: the reference manual of the language, by topic.

For small models where nobody has named a text: half a million characters of prose and code, no network. It
differs from one version of Python to the next, so a job notes its digest as that of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from seer_ray.config.errors import ConfigError
from seer_ray.tasks.sources import Row

REFERENCE = "python:reference"
"""Its name among sources of text."""


def reference_rows(option: str) -> Iterator[Row]:
    """A row with ``id`` and ``text`` for each topic.

    Raises:
        ConfigError: this Python came without it.
    """
    for name, text in sorted(_topics(option).items()):
        yield f"{REFERENCE} {name}", {"id": name, "text": text}


def reference_digest(option: str) -> str:
    """Of the whole text. Raises ConfigError as ``reference_rows``."""
    return hashlib.sha256(repr(sorted(_topics(option).items())).encode()).hexdigest()[:16]


def _topics(option: str) -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError(
            f"{option}={REFERENCE}: this Python came without its reference manual (pydoc_data); name a file"
        ) from None
    return topics
