"""Who owns which page of the KV cache."""

from __future__ import annotations

from dataclasses import dataclass


class OutOfPages(Exception):
    """No free page; the scheduler makes room by preemption."""


@dataclass(frozen=True)
class Keeps:
    """Which pages of a sequence layers still need: all, or those of its last tokens and the first ones."""

    reach: int | None = None
    """Tokens that they look back, the current one included; None: all. Pages behind are given back."""
    first: int = 0
    """Pages at the front that stay."""
    whole_prompts: bool = False
    """Only decode steps look no further back: while a sequence is prefilled, all its pages stay."""

    def pages(self, tokens: int, block: int, decodes: bool = False) -> int:
        """That a sequence of so many tokens holds at most, wherever its last ones begin in a page."""
        whole = -(-tokens // block)
        if self.reach is None or (self.whole_prompts and not decodes):
            return whole
        return min(whole, self.first + (self.reach + block - 2) // block + 1)

    def behind(self, cached: int, block: int, decodes: bool) -> range:
        """Pages that no token from number ``cached`` on looks back to."""
        if self.reach is None or (self.whole_prompts and not decodes):
            return range(0)
        return range(self.first, max(self.first, (cached - self.reach + 1) // block))


class PagePool:
    """Reference-counted pages of one cache group. Every page is free or owned; page 0 is the dummy that
    padding writes to.

    Args:
        num_pages: the dummy included.
        keeps: what is needed of each sequence.
    """

    def __init__(self, num_pages: int, keeps: Keeps = Keeps()) -> None:
        if num_pages < 2:
            raise ValueError(f"num_pages={num_pages}: the dummy page and at least one more are needed")
        self.capacity = num_pages - 1
        """Pages that sequences can own."""
        self.keeps = keeps
        self._free = list(range(num_pages - 1, 0, -1))
        self._owners = [0] * num_pages

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.capacity - len(self._free)

    def allocate(self) -> int:
        """A page with one owner.

        Raises:
            OutOfPages: none is free.
        """
        if not self._free:
            raise OutOfPages
        page = self._free.pop()
        self._owners[page] = 1
        return page

    def share(self, page: int) -> int:
        """One more owner of an owned page."""
        if self._owners[page] < 1:
            raise ValueError(f"page {page} is free and cannot be shared")
        self._owners[page] += 1
        return page

    def release(self, page: int) -> None:
        """One owner less; the last one frees the page."""
        if self._owners[page] < 1:
            raise ValueError(f"page {page} is free and cannot be released")
        self._owners[page] -= 1
        if self._owners[page] == 0:
            self._free.append(page)

    def is_shared(self, page: int) -> bool:
        return self._owners[page] > 1

    def check(self, owned: list[int]) -> None:
        """Every page is free or owned, and each ownership in ``owned`` is counted once.

        Raises:
            RuntimeError: the counts do not balance: a bug in the scheduler.
        """
        counts = [0] * len(self._owners)
        for page in owned:
            counts[page] += 1
        free = sorted(self._free)
        if counts != self._owners or free != [p for p in range(1, len(counts)) if counts[p] == 0]:
            raise RuntimeError("page reference counts do not balance")
