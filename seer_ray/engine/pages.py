"""Who owns which page of the KV cache."""

from __future__ import annotations


class OutOfPages(Exception):
    """No free page; the scheduler makes room by preemption."""


class PagePool:
    """Reference-counted pages of one cache group. Every page is free or owned; page 0 is the dummy that
    padding writes to.

    Args:
        num_pages: the dummy included.
        reach: see ``PageGroup``.
    """

    def __init__(self, num_pages: int, reach: int | None = None) -> None:
        if num_pages < 2:
            raise ValueError(f"num_pages={num_pages}: the dummy page and at least one more are needed")
        self.capacity = num_pages - 1
        """Pages that sequences can own."""
        self.reach = reach
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

    def needs(self, tokens: int, block: int) -> int:
        """Pages that a sequence of so many tokens owns at most."""
        return pages_of(tokens, block, self.reach)

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


def pages_of(tokens: int, block: int, reach: int | None) -> int:
    """That hold the last ``reach`` of so many tokens, wherever they begin in a page."""
    whole = -(-tokens // block)
    return whole if reach is None else min(whole, (reach + block - 2) // block + 1)
