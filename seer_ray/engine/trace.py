"""Which blocks a chain's decode steps attended, compactly: what changed from one step to the next.

A trace is a list with one entry per generated token. An entry is empty (that step was not recorded) or a
kind and a deflated bitmap. Bit ``(block * layers + layer) * kv_heads + head`` of a bitmap says whether that
KV head of that layer read that block, so a new block adds bits at the end. The first entry of an engine holds
the bitmap itself, after the shape; later ones hold the bits that flipped since the entry before.

Its size depends on how much changes: for 36 layers of 8 heads that read 32 of 128 blocks, 1.4 KB a token if a
twentieth of them changes at a step, 2.7 KB for a fifth, 3.9 KB for a half; for 30 layers of 3 heads that read
4 of 16 blocks, 84 to 192 bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WHOLE, _FLIPS = 1, 0
_SHAPE = struct.Struct("<BHHI")


class TraceEncoder:
    """The trace of one chain in one engine. Keeps one bitmap: ``layers * kv_heads * blocks / 8`` bytes."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._last: np.ndarray | None = None

    def add(self, attended: np.ndarray) -> bytes:
        """The entry of the next step.

        Args:
            attended: bool ``[blocks, layers, kv_heads]``; never fewer blocks than before.
        """
        bits = np.packbits(attended.reshape(-1))
        flips, head = bits, _SHAPE.pack(_WHOLE, *attended.shape[1:], self._block)
        if self._last is not None:
            flips, head = bits.copy(), bytes([_FLIPS])
            flips[: len(self._last)] ^= self._last
        self._last = bits
        return head + zlib.compress(flips.tobytes(), 1)


@dataclass(frozen=True)
class Trace:
    """A recorded chain.

    Raises:
        ValueError: nothing is recorded in it, or an entry is torn.
    """

    prompt_tokens: int
    entries: Sequence[bytes]

    def __post_init__(self) -> None:
        first = next((entry for entry in self.entries if entry), b"")
        if len(first) < _SHAPE.size or first[0] != _WHOLE:
            raise ValueError("a trace without its first entry")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(layers, KV heads, tokens a block)."""
        _, layers, heads, block = _SHAPE.unpack_from(next(entry for entry in self.entries if entry))
        return layers, heads, block

    @property
    def recorded(self) -> int:
        """Steps that are there."""
        return sum(map(bool, self.entries))

    def blocks(self, step: int) -> int:
        """Blocks that there were at a step, the open one included."""
        return (self.prompt_tokens - 1 + step) // self.shape[2] + 1

    def steps(self) -> Iterator[np.ndarray | None]:
        """Per step bool ``[blocks, layers, kv_heads]``; None: not recorded."""
        layers, heads, _ = self.shape
        bits = np.zeros(0, np.uint8)
        for step, entry in enumerate(self.entries):
            if not entry:
                yield None
                continue
            whole = entry[0] == _WHOLE
            try:
                flips = np.frombuffer(zlib.decompress(entry[_SHAPE.size if whole else 1 :]), np.uint8).copy()
            except zlib.error as error:
                raise ValueError(f"step {step} of a trace is torn") from error
            if not whole:
                flips[: len(bits)] ^= bits
            bits = flips
            blocks = self.blocks(step)
            yield (
                np.unpackbits(bits, count=blocks * layers * heads).astype(bool).reshape(blocks, layers, heads)
            )
