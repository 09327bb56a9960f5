"""Layers by number and range, as options write them."""

from __future__ import annotations

import re

from seer_ray.config import ConfigError


def parse_layers(text: str | None, count: int, option: str = "gates.layers") -> tuple[int, ...]:
    """``"0-3,7"`` -> ``(0, 1, 2, 3, 7)``; None: all.

    Raises:
        ConfigError: not of this form, or a layer that is not there.
    """
    if text is None:
        return tuple(range(count))
    found: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < count:
            raise ConfigError(f"{option}={text}: must name layers 0 to {count - 1}, such as '0-3,7'")
        found.update(range(first, last + 1))
    return tuple(sorted(found))
