"""Where a completion's text ends."""

from __future__ import annotations

from collections.abc import Iterable


def find_stop(text: str, stop: Iterable[str], least: int = 0) -> int | None:
    """Where the first of some stop strings begins that ends behind the first ``least`` characters.

    None: there is none.
    """
    places = (text.find(string, max(0, least - len(string) + 1)) for string in stop if string)
    return min((at for at in places if at >= 0), default=None)
