"""What there is to tell MLflow, on disk until it is told."""

from __future__ import annotations

import json
import os
import threading
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seer_ray.results.lock import UNSUPPORTED, FileLock
from seer_ray.results.seal import FILE, check_seal, seal
from seer_ray.results.store import write_file

Event = dict[str, Any]
CRC = "crc"
"""Of a line; those of before there were any have none."""
SENT = "sent.json"


@dataclass
class Sent:
    """How much of a spool is told, and to whom."""

    target: str = ""
    """Fingerprint of the address."""
    uri: str | None = None
    """The address, unless there is a password in it."""
    run_id: str | None = None
    """MLflow's."""
    offset: int = 0
    """Bytes of the spool."""


class Spool:
    """A file of JSON lines, never rewritten, and another that says how far it is sent.

    One process appends: the holder of the run folder's lock. One sends: the holder of ``lock``. Lines have
    checksums that begin with the run's id: what is not this run's, or not as it was written, is not sent.

    Args:
        folder: where it is.
        run_id: of the run folder.
    """

    def __init__(self, folder: Path, run_id: str = "") -> None:
        self.folder, self._run_id = folder, run_id
        self.path = folder / "spool.jsonl"
        self.lock = FileLock(folder / ".lock")
        self._descriptor: int | None = None
        self._mutex = threading.Lock()
        self._size = 0

    def acquire(self) -> bool:
        """Become the one that sends. Two that do, on a disk without locks, only do some work twice."""
        try:
            return self.lock.acquire()
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return True
            raise

    def open_to_append(self) -> None:
        """Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        # A process that died while it appended has left half a line.
        content = self.path.read_bytes()
        self._size = content.rfind(b"\n") + 1
        os.ftruncate(self._descriptor, self._size)

    def append(self, event: Event) -> None:
        """Survives this process when it returns. Raises OSError."""
        text = json.dumps(event, default=str)
        line = json.dumps({**json.loads(text), CRC: self._crc(json.loads(text))}).encode() + b"\n"
        with self._mutex:
            if self._descriptor is None:
                raise OSError("the spool is not open")
            try:
                if os.write(self._descriptor, line) != len(line):
                    raise OSError("the disk is full")
                self._size += len(line)
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise

    def read(self, offset: int, limit: int) -> list[tuple[Event | None, int]]:
        """At most ``limit`` events from an offset on, each with the offset after it; None: a torn line."""
        found: list[tuple[Event | None, int]] = []
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                while len(found) < limit and (line := file.readline()).endswith(b"\n"):
                    offset += len(line)
                    found.append((self._parse(line), offset))
        except FileNotFoundError:
            pass
        return found

    def unsent(self) -> int:
        """Events that MLflow has not been told."""
        return len(self.read(self.sent().offset, 1 << 62))

    def sync(self) -> None:
        """Let what was appended survive the power, too."""
        with self._mutex:
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def close(self) -> None:
        with self._mutex:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def sent(self) -> Sent:
        try:
            raw = json.loads((self.folder / SENT).read_bytes())
            if raw.keys() != asdict(Sent()).keys():  # else of before it had a checksum
                check_seal(raw, file=self._run_id)
            found = Sent(**{name: raw[name] for name in asdict(Sent())})
            return found if found.offset <= self.path.stat().st_size else replace(found, offset=0)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return Sent()

    def save(self, sent: Sent) -> None:
        sealed = seal({**asdict(sent), FILE: self._run_id})
        write_file(self.folder / SENT, json.dumps(sealed).encode())

    def _parse(self, line: bytes) -> Event | None:
        try:
            event = json.loads(line)
        except ValueError:
            return None
        if not isinstance(event, dict):
            return None
        crc = event.pop(CRC, None)
        return event if crc in (None, self._crc(event)) else None

    def _crc(self, event: Event) -> int:
        return zlib.crc32(json.dumps(event, sort_keys=True).encode(), zlib.crc32(self._run_id.encode()))
