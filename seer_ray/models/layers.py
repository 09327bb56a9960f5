"""Layers as options name them: by index, by range."""

from __future__ import annotations

import re

from seer_ray.config.errors import ConfigError


def layer_range(key: str, layers: int, option: str) -> range:
    """The layers that ``'3'`` or ``'0-2'`` names.

    Raises:
        ConfigError: they are not there; begins with ``option``.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(key))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < layers:
        raise ConfigError(f"{option}: must name layers 0 to {layers - 1}, such as '3' or '0-2'")
    return range(first, last + 1)


def parse_layers(text: str | None, count: int, option: str = "gates.layers") -> tuple[int, ...]:
    """``"0-3,7"`` -> ``(0, 1, 2, 3, 7)``; None: all.

    Raises:
        ConfigError: not of this form, or a layer that is not there.
    """
    if text is None:
        return tuple(range(count))
    found: set[int] = set()
    for part in str(text).split(","):
        found.update(layer_range(part.strip(), count, f"{option}={text}"))
    return tuple(sorted(found))
