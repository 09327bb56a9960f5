"""Paths of options as a process that works elsewhere must read them."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any, TypeVar

from seer_ray.config.options import options
from seer_ray.config.selecting import AUTO, PACKAGED, UNIFORM

C = TypeVar("C")

NAMED = {"model": PACKAGED, "selector": (AUTO, UNIFORM, *PACKAGED)}
"""By section: what is no path, whatever files of these names are there."""
ENTRIES = (".path", ".data.text", ".architecture.tokenizer")
"""How keys end that name files, of options that are mappings."""


def path_options(config: Any) -> set[str]:
    """Options that may name files of this machine."""
    return {name for name, _, about in options(config) if about["path"]}


def with_absolute_paths(config: C) -> C:
    """A copy of options in which whatever is a file or folder here is named by its absolute path."""
    found: Any = copy.deepcopy(config)
    for place in path_options(config):
        *sections, name = place.split(".")
        section = functools.reduce(getattr, sections, found)
        if (value := getattr(section, name)) is not None:
            setattr(section, name, absolute_value(place, value))
    return found


def absolute_value(option: str, value: Any) -> Any:
    """What an option that names files says, with absolute paths: one, several, ``{path: ...}``, or options of
    other jobs by name."""
    if isinstance(value, (list, tuple)):
        return [absolute_value(option, item) for item in value]
    if isinstance(value, dict):
        return {
            name: absolute_value(option, item)
            if f".{name}".endswith(ENTRIES) or isinstance(item, dict)
            else item
            for name, item in value.items()
        }
    if not isinstance(value, str) or value in NAMED.get(option.partition(".")[0], ()):
        return value
    return absolute(value)


def absolute(path: str, must_exist: bool = True) -> str:
    """A relative path of this machine as an absolute one; URIs, hub ids and the like as they are."""
    if "://" in path or (must_exist and not Path(path).expanduser().exists() and "*" not in path):
        return path
    return str(Path(path).expanduser().absolute())
