"""Keys of rows, by the million: no Python object a row."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence, Set
from itertools import chain

import pyarrow as pa

Key = tuple[str, int]
"""(problem id, sample number)"""
KEYS = ["problem_id", "sample"]
AT_ONCE = 4096
"""Keys that are Python objects at one time."""


class KeyColumns(Collection[Key]):
    """Keys in their order, as columns.

    Args:
        tables: with the columns ``KEYS``, one after the other.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.tables = [table.select(KEYS) for table in tables]

    def __len__(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def __iter__(self) -> Iterator[Key]:
        return chain.from_iterable(
            zip(*(batch[name].to_pylist() for name in KEYS), strict=True)
            for table in self.tables
            for batch in table.to_batches(AT_ONCE)
        )

    def __contains__(self, key: object) -> bool:
        return any(key == other for other in self)


class KeySet(Set[Key]):
    """Keys in no order: the samples of each problem are the bits of a number."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._samples: dict[str, int] = {}
        self._size = 0
        for key in keys:
            self.add(key)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Key]:
        for problem, bits in self._samples.items():
            while bits:
                lowest = bits & -bits
                yield problem, lowest.bit_length() - 1
                bits ^= lowest

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple) or len(key) != 2:
            return False
        problem, sample = key
        return bool(self._samples.get(problem, 0) >> sample & 1)

    def add(self, key: Key) -> bool:
        """Whether it was not there."""
        before = self._samples.get(key[0], 0)
        after = before | 1 << key[1]
        self._samples[key[0]] = after
        self._size += after != before
        return after != before

    def discard(self, key: Key) -> None:
        """Take it out, if it is there."""
        if key in self:
            self._size -= 1
            self._samples[key[0]] ^= 1 << key[1]
            if not self._samples[key[0]]:
                del self._samples[key[0]]

    def copy(self) -> KeySet:
        """One that does not change with this one."""
        other = KeySet()
        other._samples, other._size = dict(self._samples), self._size
        return other


class RequestIds(Container[str]):
    """Keys under the names that requests have: ``<problem>/<sample>``."""

    def __init__(self, keys: Container[Key]) -> None:
        self._keys = keys

    def __contains__(self, id: object) -> bool:
        problem, _, sample = str(id).rpartition("/")
        return sample.isdecimal() and (problem, int(sample)) in self._keys
