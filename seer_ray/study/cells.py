"""The cells of a study: its units of work, which depend on nothing but what they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One unit of work. Its rows are a function of the job's settings and of this.

    Attributes:
        kind: what is done, a word.
        about: with what, as JSON has it.
        label: for a person; decides nothing.
    """

    kind: str
    about: Mapping[str, Any]
    label: str

    @property
    def said(self) -> dict[str, Any]:
        """All that decides its rows."""
        return {"kind": self.kind, **self.about}

    @property
    def id(self) -> str:
        """Its name among all cells and that of its file: readable, and a digest of what it is."""
        texts = [value for value in self.about.values() if isinstance(value, str)]
        words = re.sub(r"[^A-Za-z0-9]+", "-", " ".join([self.kind, *texts])).strip("-")[:60]
        return f"{words}-{self._hash.hex()[:10]}"

    def seed(self, seed: int) -> int:
        """Of what is drawn in it, whatever was drawn before, in 63 bits; ``seed``: the job's."""
        return (int.from_bytes(self._hash[:8], "big") ^ seed) >> 1

    @property
    def _hash(self) -> bytes:
        return hashlib.sha256(json.dumps(self.said, sort_keys=True).encode()).digest()


Stages = Generator[Sequence[Cell], list[list[Row]], T]
"""A study as it unfolds: yields cells that may be done side by side, in any order; is sent the rows of each;
ends with what follows from them. As rows are functions of their cells, so is the whole: gone on with, it asks
for the same cells."""
