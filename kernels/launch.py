"""What all Triton kernels share on the host's side. Imports triton; ``gpu`` does not."""

from __future__ import annotations

from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
"""Programs run one after another in numpy (``TRITON_INTERPRET=1``, set before triton is imported)."""


def power_of_two(number: int) -> int:
    """The smallest that is not below it."""
    return 1 << (number - 1).bit_length()
