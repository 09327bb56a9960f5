"""What files hold, as digests: small ones whole, of large ones a sample. Never by their times."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import BinaryIO

WHOLE = 2**24
"""Files up to this size are read whole."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SAMPLES, SAMPLE = 64, 2**14
"""How many parts of a larger file are read, and the size of each."""


def digest(path: Path) -> str:
    """16 hex digits of a file's size and content: of 16 GB in less than 0.2 s.

    Raises:
        OSError: cannot be read.
    """
    with path.open("rb") as file:
        return digest_of(file, os.fstat(file.fileno()).st_size)


def digest_of(file: BinaryIO, size: int) -> str:
    """The same of an open file."""
    content = hashlib.sha256(str(size).encode())
    if size <= WHOLE:
        content.update(file.read())
    else:
        for part in range(SAMPLES):
            file.seek((size - SAMPLE) * part // (SAMPLES - 1))
            content.update(file.read(SAMPLE))
    return content.hexdigest()[:16]


def parameters(folder: Path) -> int | None:
    """How many numbers a folder's weights have, by the headers of its files; None: they are not here, or not
    whole."""
    total = 0
    try:
        for path in weight_files(folder):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            total += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, MemoryError):
        return None
    return total or None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder's weights are in, as transformers looks for them.

    Raises:
        OSError, ValueError: the index is torn.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [path for path in (folder / WEIGHTS,) if path.is_file()]
    places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(places.values()))]
