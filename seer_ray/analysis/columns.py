"""Columns of completions as flat arrays: a few bytes a row, whatever texts they hold."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seer_ray.config.fields import MOST_DRAFTED
from seer_ray.results.schema import TEXT, schema

Array = NDArray[Any]
ERROR = "error"
LONGEST = 40
"""Characters of a text that is kept to tell it from others; of a longer one, a digest."""
SPELLED = ("selector", "finish_reason")
"""Columns with so few texts that they are kept whole."""
_FIELDS = schema()


class Names:
    """Texts as numbers, from 0 in the order of their first appearance.

    Args:
        whole: texts of any length are kept; else long ones are told apart, but not known again.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self._numbers: dict[str | bytes, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, texts: pa.Array) -> NDArray[np.int32]:
        """[rows]; -1: null."""
        encoded, known = texts.dictionary_encode(), self._numbers
        own = [known.setdefault(self._key(text), len(known)) for text in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.array([*own, -1], np.int32)[places]

    def number(self, text: str) -> int:
        """-1: there is no such text."""
        return self._numbers.get(self._key(text), -1)

    @property
    def texts(self) -> list[str]:
        """By number, where they are kept whole."""
        return [str(text) for text in self._numbers]

    def _key(self, text: str) -> str | bytes:
        if self._whole or len(text) <= LONGEST:
            return text
        return blake2b(text.encode(), digest_size=16).digest()


def floats(values: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, or 1 and 0 of truth values, [rows]; NaN: null."""
    found: NDArray[np.float64] = np.asarray(values.cast(pa.float64()), float)
    return found


def exact_sum(values: Array) -> int:
    """Of whole numbers of 64 bits, which may be more than 64 bits hold."""
    wide = values.astype(np.int64, copy=False)
    return (int((wide >> 32).sum()) << 32) + int((wide & 0xFFFFFFFF).sum())


def by_place(values: pa.Array) -> NDArray[np.int64]:
    """Lists of whole numbers summed by place, [MOST_DRAFTED]."""
    flat, sums = np.asarray(values.flatten(), np.int64), np.zeros(MOST_DRAFTED, np.int64)
    counts = np.asarray(values.value_lengths().drop_null())
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    np.add.at(sums, place, flat)
    return sums


class Columns:
    """Columns of rows that come batch by batch, as arrays [rows].

    Numbers that are always there are as they are, others floats with NaN for null, and texts the numbers that
    ``names`` gives them; of ``error`` it is known whether there is one.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._pieces: dict[str, list[Array]] = {name: [] for name in columns}
        self.names = {
            name: Names(name in SPELLED)
            for name in self._pieces
            if name != ERROR and _FIELDS.field(name).type == TEXT
        }

    def add(self, batch: pa.RecordBatch) -> None:
        """Rows of the results schema."""
        for name, pieces in self._pieces.items():
            pieces.append(self._array(name, batch[name]))

    def __getitem__(self, name: str) -> Array:
        """Of all rows."""
        pieces = self._pieces[name]
        if len(pieces) != 1:
            pieces[:] = [np.concatenate(pieces) if pieces else np.zeros(0, bool)]
        return pieces[0]

    def _array(self, name: str, values: pa.Array) -> Array:
        field = _FIELDS.field(name)
        if name == ERROR:
            return values.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
        values = values.cast(field.type)
        if name in self.names:
            return self.names[name].numbers(values)
        return floats(values) if field.nullable else values.to_numpy(zero_copy_only=False)
