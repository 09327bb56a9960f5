"""Drafts without a model: what followed the last tokens where they stood before, in the prompt or in the
chain itself (prompt lookup decoding; Saxena, 2023).

Earlier places are found as LZ77 compressors find them: by chains through a table of hashes, of ``LEAST``
tokens each. A token costs the same however long the chain is, and twelve to sixteen bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

LEAST = 3
"""Tokens that must match."""
PLACES = 32
"""Earlier places that are looked at, the latest first."""
LONGEST = 64
"""Tokens back to which matches are told apart."""
_FACTORS = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_MASK = 0xFFFFFFFF
_NUMPY = 256
"""So many new tokens are hashed at once."""


class NGrams:
    """An index over the tokens of one sequence, which only grows: drafts are no part of it."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens: array[int] = array("i")
        self._before: array[int] = array("i")
        """Of each token, the last one before it at which the same hash ended; -1: none."""
        self._bits = 10
        self._last: array[int] = array("i", [-1]) * (1 << self._bits)
        """Where a hash ended last."""
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """The next tokens of the sequence."""
        self._tokens.extend(tokens)
        if len(self._tokens) > len(self._last):
            while len(self._tokens) > 1 << self._bits:
                self._bits += 1
            self._rebuild()
        elif len(tokens) > _NUMPY:
            self._rebuild()
        else:
            self._add()

    def propose(self, most: int) -> list[int]:
        """What followed the longest earlier match of the last tokens, the latest of equals; a match that runs
        into the end goes on with what it proposes.

        Args:
            most: tokens.
        """
        tokens, length = self._tokens, len(self._tokens)
        if most < 1 or length <= LEAST:
            return []
        end, best, found = length - 1, LEAST - 1, -1
        place = self._before[end]
        for _ in range(PLACES):
            if place < 0:
                break
            # Longer than the best one only if it has the token behind that, too.
            if place >= best and tokens[place - best] == tokens[end - best]:
                match = 0
                while match <= place and match < LONGEST and tokens[place - match] == tokens[end - match]:
                    match += 1
                if match > best:
                    best, found = match, place
                    if match == LONGEST:
                        break
            place = self._before[place]
        if found < 0:
            return []
        drafts: list[int] = []
        for at in range(found + 1, found + 1 + most):
            drafts.append(tokens[at] if at < length else drafts[at - length])
        return drafts

    def _add(self) -> None:
        tokens, before, last, shift = self._tokens, self._before, self._last, 32 - self._bits
        one, two, three = _FACTORS
        for end in range(len(before), len(tokens)):
            if end < LEAST - 1:
                before.append(-1)
                continue
            mixed = tokens[end] * one + tokens[end - 1] * two + tokens[end - 2] * three
            hash = ((mixed & _MASK) * one & _MASK) >> shift
            before.append(last[hash])
            last[hash] = end

    def _rebuild(self) -> None:
        tokens = np.frombuffer(self._tokens, np.int32).astype(np.uint32)
        one, two, three = (np.uint32(factor) for factor in _FACTORS)
        mixed = tokens[2:] * one + tokens[1:-1] * two + tokens[:-2] * three
        hashes = (mixed * one) >> np.uint32(32 - self._bits)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        same = hashes[order[1:]] == hashes[order[:-1]]
        before = np.full(len(tokens), -1, np.int32)
        before[order[1:][same] + LEAST - 1] = order[:-1][same] + LEAST - 1
        last = np.full(1 << self._bits, -1, np.int32)
        last[hashes[order]] = order + LEAST - 1  # the latest of each, which comes last
        self._before, self._last = array("i", before.tobytes()), array("i", last.tobytes())
