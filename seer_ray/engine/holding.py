"""The pages that sequences hold: taken as tokens come, given back when nobody will read them."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from seer_ray.engine.pages import PagePool
from seer_ray.engine.sequence import Sequence


class Holding:
    """Of sequences, in all cache groups.

    Args:
        pools: of each cache group.
        block: tokens a page.
    """

    def __init__(self, pools: Seq[PagePool], block: int) -> None:
        self.pools, self.block = pools, block

    def own(self, sequence: Sequence, end: int, decodes: bool, copies: list[tuple[int, int, int]]) -> bool:
        """Pages that may be written for tokens up to ``end``. Whether any were given back.

        Args:
            sequence: whose.
            end: past the last token.
            decodes: it is not prefilled.
            copies: get those of shared pages: group, from, to.

        Raises:
            OutOfPages: there are none; those that were taken stay.
        """
        index, gave = sequence.cached // self.block, False
        for group, (pool, pages) in enumerate(zip(self.pools, sequence.pages, strict=True)):
            gave |= self._give_back(sequence, pool, pages, decodes)
            if index < len(pages) and pool.is_shared(pages[index]):
                page = pool.allocate()
                copies.append((group, pages[index], page))
                pool.release(pages[index])
                pages[index] = page
                sequence.placed = False
            while len(pages) * self.block < end:
                pages.append(pool.allocate())
                sequence.placed = False
        return gave

    def lengthen(self, sequence: Sequence, tokens: int) -> int:
        """Pages for so many tokens from the next one on, which has one, as far as there are any without
        anybody giving way. For how many there are."""
        end = min(sequence.cached + tokens, sequence.limit)
        for pool, pages in zip(self.pools, sequence.pages, strict=True):
            while len(pages) * self.block < end and pool.free:
                pages.append(pool.allocate())
                sequence.placed = False
            end = min(end, len(pages) * self.block)
        return end - sequence.cached

    def shorten(self, sequence: Sequence) -> bool:
        """Gives back the pages behind the last token that is cached. Whether there were any."""
        keep, gave = self.count(sequence.cached), False
        for pool, pages in zip(self.pools, sequence.pages, strict=True):
            while len(pages) > keep:
                pool.release(pages.pop())
                sequence.placed, gave = False, True
        return gave

    def count(self, tokens: int) -> int:
        """Pages of so many tokens."""
        return -(-tokens // self.block)

    def _give_back(self, sequence: Sequence, pool: PagePool, pages: list[int], decodes: bool) -> bool:
        """Pages that no token from the next one on looks back to."""
        behind, gave = pool.keeps.behind(sequence.cached, self.block, decodes), False
        for index in reversed(behind[: max(0, len(pages) - behind.start)]):
            if not pages[index]:
                break
            pool.release(pages[index])
            pages[index] = 0
            sequence.placed, gave = False, True
        return gave
