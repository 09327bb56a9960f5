"""Keys by the million."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from seer_ray.results.keys import KEYS, Key, KeyColumns, KeySet, RequestIds

ONE = st.tuples(st.sampled_from(["a", "b", "a/1", ""]), st.integers(0, 70))


@given(st.lists(st.tuples(st.booleans(), ONE)))
def test_a_set_of_keys_is_a_set(changes: list[tuple[bool, Key]]) -> None:
    plain: set[Key] = set()
    keys = KeySet()
    for adds, key in changes:
        if adds:
            assert keys.add(key) is (key not in plain)
            plain.add(key)
        else:
            keys.discard(key)
            plain.discard(key)
        assert len(keys) == len(plain)
    assert keys == plain and set(keys) == plain and bool(keys) is bool(plain)
    assert {("a", 3), ("b", 1)} & keys == {("a", 3), ("b", 1)} & plain
    kept = keys.copy()
    keys.add(("new", 0))
    assert kept == plain and ("new", 0) not in kept
    ids = RequestIds(kept)
    assert all(f"{problem}/{sample}" in ids for problem, sample in plain)
    assert "a" not in ids and "a/x" not in ids and "new/0" not in ids and None not in kept


def test_columns_of_keys_keep_their_order() -> None:
    keys = [(f"p{n % 7}", n) for n in range(9000)]
    table = pa.table(
        [[problem for problem, _ in keys], [sample for _, sample in keys], [0] * 9000], [*KEYS, "other"]
    )
    found = KeyColumns([table.slice(0, 10), table.slice(10, 0), table.slice(10)])
    assert list(found) == keys and list(found) == keys and len(found) == 9000
    assert ("p1", 1) in found and ("p1", 2) not in found
