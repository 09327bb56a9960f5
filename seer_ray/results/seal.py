"""Why a file of a job's folder is believed: it says whose it is, and a checksum covers what it says.

A flipped bit, a file of another run under the right name, a piece that is gone: each is told from what was
written. Folders of before 0.2 have no seals; theirs are the files of a folder whose mark has none.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

CHECKSUM, RUN_ID, FILE = "checksum", "run_id", "file"
"""Fields of a sealed file: what it says, whose it is, what it is called."""


class ForeignError(ValueError):
    """A file of another run."""


def checksum(content: Any) -> str:
    """SHA-256 of JSON data, whatever its layout in a file; 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON data with its checksum as the last field."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != CHECKSUM}))
    return {**plain, CHECKSUM: checksum(plain)}


def is_sealed(content: Any) -> bool:
    return isinstance(content, dict) and CHECKSUM in content


def check_seal(content: Any, run_id: str | None = None, file: str | None = None) -> None:
    """Raises ValueError: not as it was written, in words; ForeignError: written for another run."""
    if not is_sealed(content):
        raise ValueError("has no checksum")
    if content[CHECKSUM] != checksum({name: value for name, value in content.items() if name != CHECKSUM}):
        raise ValueError("is not as it was written")
    if run_id is not None and content.get(RUN_ID) != run_id:
        raise ForeignError("of another run")
    if file is not None and content.get(FILE) != file:
        raise ValueError(f"is {content.get(FILE)} under another name")


def framed(magic: bytes, body: bytes) -> bytes:
    """A binary file: what it is, a checksum, the body."""
    return magic + zlib.crc32(body).to_bytes(4, "little") + body


def unframed(magic: bytes, data: bytes) -> bytes:
    """The body of such a file. Raises ValueError: not one, or not whole."""
    head, body = len(magic) + 4, data[len(magic) + 4 :]
    if data[:head] != magic + zlib.crc32(body).to_bytes(4, "little"):
        raise ValueError("is torn")
    return body
