"""Computed prompts that further samples wait for, so that each prompt is computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from seer_ray.engine.pages import PagePool
from seer_ray.engine.sequence import Sequence


@dataclass(frozen=True)
class Prompt:
    """All of a prompt but its last token, computed."""

    pages: list[list[int]]
    """By group."""
    slot: int | None
    """Of its state; None: there are none."""


class Prompts:
    """Owns what it keeps, until nobody waits for it or room is needed.

    Args:
        pools: of each cache group.
        block: tokens a page.
        snapshots: state slots for what is kept; None: no layer keeps a state.
    """

    def __init__(self, pools: Seq[PagePool], block: int, snapshots: Seq[int] | None) -> None:
        self._pools, self._block = pools, block
        self._snapshots = None if snapshots is None else list(snapshots)
        self._kept: dict[bytes, Prompt] = {}
        self._wanted: Counter[bytes] = Counter()  # waiting sequences

    @property
    def lasting(self) -> bool:
        """What a sequence has computed of its prompt stays as it was while it decodes."""
        return self._snapshots is None and all(pool.keeps.reach is None for pool in self._pools)

    # -- who waits -----------------------------------------------------------------------------------

    def want(self, sequence: Sequence) -> None:
        """It waits."""
        self._wanted[sequence.prompt_key] += 1

    def unwant(self, sequence: Sequence) -> None:
        """It waits no longer."""
        key = sequence.prompt_key
        self._wanted[key] -= 1
        if not self._wanted[key]:
            del self._wanted[key]
            self._forget(key)

    # -- what is kept --------------------------------------------------------------------------------

    def find(self, sequence: Sequence, running: Iterable[Sequence]) -> Prompt | None:
        """All of the sequence's prompt but the last token, if someone has it. The last page may be partial,
        or go on with another sample's tokens: whoever writes to a shared page copies it first."""
        if sequence.prompt_key in self._kept:
            return self._kept[sequence.prompt_key]
        computed = sequence.prompt_length - 1
        if computed and self.lasting:
            for other in running:
                if other.prompt_key == sequence.prompt_key and other.cached >= computed:
                    return Prompt([pages[: self._pages(computed)] for pages in other.pages], None)
        return None

    def keep(self, sequence: Sequence) -> tuple[int, int] | None:
        """Hold what a sequence has computed of its prompt, if somebody waits for it.

        Returns:
            The state to copy (from, to), where there is one.
        """
        key, computed = sequence.prompt_key, sequence.prompt_length - 1
        there = sequence.cached >= computed if self.lasting else sequence.cached == computed
        if not self._wanted[key] or key in self._kept or not computed or not there or self._snapshots == []:
            return None
        slot = self._snapshots.pop() if self._snapshots is not None else None
        count = self._pages(computed)
        self._kept[key] = Prompt(self.share([pages[:count] for pages in sequence.pages]), slot)
        return None if slot is None else (sequence.slot, slot)

    def share(self, pages: list[list[int]]) -> list[list[int]]:
        """One more owner of each page."""
        return [
            [pool.share(page) if page else 0 for page in own]
            for pool, own in zip(self._pools, pages, strict=True)
        ]

    def release(self, pages: list[list[int]]) -> None:
        """One owner less of each page."""
        for pool, own in zip(self._pools, pages, strict=True):
            for page in own:
                if page:
                    pool.release(page)

    def yield_one(self) -> bool:
        """Give up what is kept longest. False: nothing is."""
        if not self._kept:
            return False
        self._forget(next(iter(self._kept)))
        return True

    def _forget(self, key: bytes) -> None:
        prompt = self._kept.pop(key, None)
        if prompt is not None:
            self.release(prompt.pages)
            if prompt.slot is not None and self._snapshots is not None:
                self._snapshots.append(prompt.slot)

    def owned(self, group: int) -> Iterator[int]:
        """Pages of a group, one by one."""
        for prompt in self._kept.values():
            yield from filter(None, prompt.pages[group])

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._block)
