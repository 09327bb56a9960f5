"""Texts that stand in files: ``task.prompt=@prompt.jinja``. A job keeps the text, and needs no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import escaped

FROM_FILES = ("task.prompt", "task.system")
JINJA = (".jinja", ".jinja2", ".j2")
"""Endings of files whose text is a template in Jinja."""


def with_texts(settings: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Options as they are set, ``@FILE`` replaced by what stands in the file.

    Raises:
        ConfigError: it cannot be read.
    """
    for name, value in settings:
        if name not in FROM_FILES or not isinstance(value, str) or not value.startswith("@"):
            yield name, value
            continue
        path = Path(value[1:]).expanduser()
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{name}={value}: cannot be read ({reason})") from None
        if text.startswith("@"):
            raise ConfigError(
                f"{name}={value}: its text begins with @, as the name of a file would; change it"
            )
        yield name, escaped(text)
        if name == "task.prompt" and path.suffix in JINJA:
            yield "task.template", "jinja"
