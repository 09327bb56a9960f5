"""What a user names by ``module:name``, as graders and selectors of their own."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean


def import_named(spec: str, option: str, kind: str) -> Any:
    """What ``module:name`` is. A module is looked for in the current folder too.

    Args:
        spec: as the option says it
        option: for errors
        kind: what it should be, in a word: ``function``

    Raises:
        ConfigError: it cannot be imported, or there is nothing of this name in it.
    """
    module_name, _, name = spec.partition(":")
    try:
        with _current_folder_on_path():
            module = importlib.import_module(module_name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            f"{option}={spec}: module '{module_name}' cannot be imported: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        near = did_you_mean(name, dir(module))
        raise ConfigError(f"{option}={spec}: module '{module_name}' has no {kind} '{name}'{near}")
    return found


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """A command, unlike ``python script.py``, does not look for modules where it is run."""
    folder = ""
    with contextlib.suppress(FileNotFoundError):  # It may have been deleted since.
        folder = os.getcwd()
    if {folder, ""} & set(sys.path) or not folder:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
