"""Reference counts of pages balance after any sequence of operations."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seer_ray.engine.pages import OutOfPages, PagePool

CAPACITY = 5


class Pool(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(CAPACITY + 1)
        self.owned: list[int] = []

    @rule()
    def allocate(self) -> None:
        if len(set(self.owned)) == CAPACITY:
            with pytest.raises(OutOfPages):
                self.pool.allocate()
        else:
            page = self.pool.allocate()
            assert page not in self.owned and 1 <= page <= CAPACITY
            self.owned.append(page)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(self.owned))
        assert self.pool.share(page) == page
        self.owned.append(page)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(self.owned))
        self.pool.release(page)
        self.owned.remove(page)

    @rule(page=st.integers(1, CAPACITY))
    def free_pages_are_nobodys(self, page: int) -> None:
        if page not in self.owned:
            with pytest.raises(ValueError, match="is free"):
                self.pool.share(page)
            with pytest.raises(ValueError, match="is free"):
                self.pool.release(page)

    @invariant()
    def balances(self) -> None:
        self.pool.check(self.owned)
        counts = Counter(self.owned)
        assert self.pool.used == len(counts) and self.pool.free == CAPACITY - len(counts)
        assert all(self.pool.is_shared(page) == (counts[page] > 1) for page in range(1, CAPACITY + 1))


TestPool = Pool.TestCase


def test_check_sees_a_leak_and_a_double_owner() -> None:
    pool = PagePool(4)
    page = pool.allocate()
    for owned in ([], [page, page], [page, 3]):
        with pytest.raises(RuntimeError, match="balance"):
            pool.check(owned)


def test_a_pool_has_the_dummy_page_and_one_more() -> None:
    with pytest.raises(ValueError, match="num_pages=1"):
        PagePool(1)
