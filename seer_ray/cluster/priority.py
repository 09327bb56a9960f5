"""The priority of workers as processes."""

from __future__ import annotations

import os

NICENESS, RAY_ADDS = "RAY_worker_niceness", 15
"""Ray's variable for what it adds to the niceness of its workers, and what that is if it is not set."""


def normal_priority() -> int:
    """Takes back what Ray adds to the niceness of its workers where nobody has said how much that shall be.

    Returns:
        What is left of it: without privileges a process cannot become less nice.
    """
    if NICENESS in os.environ or os.nice(0) < RAY_ADDS:
        return 0
    try:
        os.nice(-RAY_ADDS)
    except PermissionError:
        return RAY_ADDS
    return 0
