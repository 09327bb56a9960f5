"""Tokens of unfinished chains on disk, so that a killed driver goes on in the middle of them.

A log: each flush adds one segment with what is new since the last. A record says where in its chain it
belongs, and the checksum of all tokens before, so a chain is never made of pieces that do not fit together:
where a segment is torn or lost, the chain ends before it, and is decoded again from there.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Container, Iterable
from dataclasses import dataclass

from seer_ray.results.chain import Chain, decode, encode
from seer_ray.results.store import Store, is_temporary

log = logging.getLogger(__name__)

FOLDER = "progress"
NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}\.segment")
MAX_SEGMENTS = 256
FULL_TOKENS = 1 << 23
"""Tokens of a segment of a rewrite, at least, if there are so many: they are in memory once more."""
SLACK_TOKENS = 1 << 20
"""Dead tokens on disk that are never worth a rewrite."""


@dataclass
class Segment:
    """One file of the log."""

    left: int
    """Requests in it that are not forgotten."""
    tokens: int


class ProgressLog:
    """Chains of unfinished requests, in memory and, as of the last flush, on disk. For the lock's holder.

    Loads what is there.

    Args:
        store: the run's folder.
        run_id: of the run; what is another run's is not believed.
        done: requests that are to be left out.
        sealed: all segments say which run they are of: the folder is not from before they did.
    """

    def __init__(self, store: Store, run_id: str, done: Container[str] = (), sealed: bool = True) -> None:
        self.store = store
        self._run_id, self._sealed = run_id, sealed
        self.chains: dict[str, Chain] = {}
        """Of the requests of which something is known, by id. Whoever adds tokens puts new chains in."""
        self._segments: dict[str, Segment] = {}
        self._within: dict[str, list[str]] = {}
        """Segments by request."""
        self._number = 0
        self._load(done)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Requests that are committed. Their tokens leave the disk in time."""
        for request_id in request_ids:
            self.chains.pop(request_id, None)
            for name in self._within.pop(request_id, ()):
                if name in self._segments:
                    self._segments[name].left -= 1

    def flush(self) -> None:
        """Bring to disk what is not there yet; tidy up. Raises OSError; the next flush tries again."""
        alive = sum(len(chain.tokens) for chain in self.chains.values())
        stored = sum(segment.tokens for segment in self._segments.values())
        if len(self._segments) >= MAX_SEGMENTS or stored > 2 * alive + SLACK_TOKENS:
            self._rewrite()
            return
        changed = {request_id: chain for request_id, chain in self.chains.items() if chain.changed}
        if changed:
            self._write(changed)
        self._delete([name for name, segment in self._segments.items() if not segment.left])

    def _rewrite(self) -> None:
        """A few segments in place of all."""
        old = list(self._segments)
        self._within.clear()
        part: dict[str, Chain] = {}
        size = 0
        for request_id, chain in self.chains.items():
            chain.saved = chain.crc = 0
            part[request_id] = chain
            size += len(chain.tokens)
            if size >= FULL_TOKENS:
                self._write(part)
                part, size = {}, 0
        if part:
            self._write(part)
        self._delete(old)

    def _write(self, chains: dict[str, Chain]) -> None:
        self._number += 1
        name = f"{self._number:06d}-{uuid.uuid4().hex[:8]}.segment"
        self.store.write(f"{FOLDER}/{name}", encode(chains, self._run_id))
        size = sum(len(chain.tokens) - chain.saved for chain in chains.values())
        self._segments[name] = Segment(len(chains), size)
        for request_id, chain in chains.items():
            chain.mark_saved()
            self._within.setdefault(request_id, []).append(name)

    def _delete(self, names: list[str]) -> None:
        self.store.delete(f"{FOLDER}/{name}" for name in names)
        for name in names:
            self._segments.pop(name, None)

    def _load(self, done: Container[str]) -> None:
        names = self.store.list(FOLDER)
        self.store.delete(f"{FOLDER}/{name}" for name in names if is_temporary(name))
        cut: set[str] = set()
        torn = 0
        for number, name in sorted((int(m[1]), n) for n in names if (m := NAME.fullmatch(n))):
            self._number = number
            segment = self._segments[name] = Segment(0, 0)
            try:
                records = decode(self.store.read(f"{FOLDER}/{name}"), self._run_id, self._sealed)
            except (ValueError, OSError):
                torn += 1
                continue
            for record in records:
                if record.request_id in done:
                    continue
                segment.left += 1
                self._within.setdefault(record.request_id, []).append(name)
                segment.tokens += len(record.tokens)
                fits = self.chains.setdefault(record.request_id, Chain()).apply(record)
                (cut.discard if fits else cut.add)(record.request_id)
        if torn or cut:
            log.warning(
                "%s: %d segments torn or of another run; %d chains go on from their last whole piece",
                self.store.locate(FOLDER),
                torn,
                len(cut),
            )
            self._rewrite()
