"""A folder of results that one process at a time may write."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from seer_ray.results.lock import Lock
from seer_ray.results.store import Store


class HeldFolder:
    """What run folders and sweep folders have in common. Usable as a context manager."""

    def __init__(self, store: Store, held: Lock | None) -> None:
        """``held``: the right to write; None: only to look."""
        self.store = store
        self._lock = held

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def uri(self) -> str:
        """The folder in messages: no secrets in it."""
        return self.store.uri

    @property
    def path(self) -> Path | None:
        """The folder on the local disk, if it is there."""
        return self.store.path
