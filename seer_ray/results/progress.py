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
SLACK_TOKENS = 1 << 20
"""Dead tokens on disk that are never worth a rewrite."""


@dataclass
class Segment:
    """One file of the log."""

    requests: set[str]
    """In it, and not forgotten."""
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
        self._number = 0
        self._load(done)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Requests that are committed. Their tokens leave the disk in time."""
        gone = set(request_ids)
        for request_id in gone:
            self.chains.pop(request_id, None)
        for segment in self._segments.values():
            segment.requests -= gone

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
        self._delete([name for name, segment in self._segments.items() if not segment.requests])

    def _rewrite(self) -> None:
        """One segment in place of all."""
        old = list(self._segments)
        for chain in self.chains.values():
            chain.saved = chain.crc = 0
        if self.chains:
            self._write(self.chains)
        self._delete(old)

    def _write(self, chains: dict[str, Chain]) -> None:
        self._number += 1
        name = f"{self._number:06d}-{uuid.uuid4().hex[:8]}.segment"
        self.store.write(f"{FOLDER}/{name}", encode(chains, self._run_id))
        size = sum(len(chain.tokens) - chain.saved for chain in chains.values())
        self._segments[name] = Segment(set(chains), size)
        for chain in chains.values():
            chain.mark_saved()

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
            segment = self._segments[name] = Segment(set(), 0)
            try:
                records = decode(self.store.read(f"{FOLDER}/{name}"), self._run_id, self._sealed)
            except (ValueError, OSError):
                torn += 1
                continue
            for record in records:
                if record.request_id in done:
                    continue
                segment.requests.add(record.request_id)
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
