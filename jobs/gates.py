"""What is done with gates beside training and decoding."""

from __future__ import annotations

import torch

from seer_ray.models.gates import convert_gates


def convert(source: str, folder: str, pth: bool, dtype: str | None = None) -> str:
    """Gates in the other format; one line that says what was written.

    Args:
        source: Folder, file or hub id.
        folder: Where to write.
        pth: The released format; else ours.
        dtype: ``float32`` or ``bfloat16``; None: as stored.

    Raises:
        ConfigError: They cannot be read, or there are gates already.
    """
    count = convert_gates(source, folder, pth, None if dtype is None else getattr(torch, dtype))
    return f"{folder}: {count:,} weights, {'.pth' if pth else '.safetensors'}"
