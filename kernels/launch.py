"""What all Triton kernels share on the host's side. Imports triton; ``gpu`` does not."""

from __future__ import annotations

import triton.language as tl
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
"""Programs run one after another in numpy (``TRITON_INTERPRET=1``, set before triton is imported)."""
LIFT = tl.constexpr(64.0)
"""Of the scales of V in 8 bits, while they multiply shares: in float16 small values would be lost."""


def power_of_two(number: int) -> int:
    """The smallest that is not below it."""
    return 1 << (number - 1).bit_length()
