"""Chains of tokens as files of the progress log."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa

from seer_ray.engine.request import Counters, Progress
from seer_ray.results.schema import lists
from seer_ray.results.seal import framed, unframed

MAGIC = b"seer-ray progress 1\n"
RUN_ID = b"run_id"
"""In a segment's metadata."""
LISTS = pa.list_(pa.int64())
COUNTERS: dict[str, pa.DataType] = {
    "attended_kv": pa.int64(),
    "available_kv": pa.int64(),
    "queued_s": pa.float64(),
    "prefill_s": pa.float64(),
    "decode_s": pa.float64(),
    "attended_layers": LISTS,
    "first_token_s": pa.float64(),
    "drafted": LISTS,
    "accepted": LISTS,
    "draft_kv": pa.int64(),
}
"""Columns of ``Counters``."""
EACH = ("trace", "logprobs")
"""Columns with an entry a token, where there are any."""


@dataclass(frozen=True)
class Record:
    """What one segment says of one request."""

    request_id: str
    offset: int
    crc: int
    """Of the tokens before the offset."""
    tokens: array[int]
    counters: Counters
    attempts: int
    trace: list[bytes]
    """Of these tokens, as far as it is recorded."""
    logprobs: list[bytes]
    """Likewise."""


@dataclass
class Chain:
    """What is known of an unfinished request. ``cluster`` adds to it, the progress log brings it to disk."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    trace: list[bytes] = field(default_factory=list)
    """What the step of each token attended; ends with the last that is recorded."""
    logprobs: list[bytes] = field(default_factory=list)
    """Of each token, where they are asked for."""
    counters: Counters = field(default_factory=Counters)
    attempts: int = 0
    """Workers that had the request."""
    saved: int = 0
    """Tokens that are on disk."""
    crc: int = 0
    """Of those."""
    changed: bool = False

    @classmethod
    def of(cls, progress: Progress) -> Self:
        return cls(array("i", progress.tokens), logprobs=list(progress.logprobs), counters=progress.counters)

    @property
    def progress(self) -> Progress:
        """The same for an engine."""
        return Progress(tuple(self.tokens), self.counters, tuple(self.logprobs))

    def extend(
        self,
        tokens: Sequence[int],
        counters: Counters,
        trace: Sequence[bytes] = (),
        logprobs: Sequence[bytes] = (),
    ) -> None:
        """New tokens, the counters after them, and what their steps attended and their log-probabilities if
        that is wanted."""
        if trace:
            self.trace = self.traced(trace)
        if logprobs:
            self.logprobs.extend(logprobs)
        self.tokens.extend(tokens)
        self.counters, self.changed = counters, True

    def traced(self, new: Sequence[bytes] = ()) -> list[bytes]:
        """The trace with that of the tokens to come; empty if none is recorded."""
        if not new:
            return self.trace
        return [*self.trace, *[b""] * (len(self.tokens) - len(self.trace)), *new]

    def cut(self, length: int) -> None:
        """Forget all tokens but the first."""
        if length < self.saved:
            self.saved, self.crc = length, self._crc(length)
        del self.tokens[length:]
        del self.trace[length:]
        del self.logprobs[length:]

    def apply(self, record: Record) -> bool:
        """Take a record from disk, if it continues what is known."""
        if record.offset > len(self.tokens) or self._crc(record.offset) != record.crc:
            self.attempts = max(self.attempts, record.attempts)
            return False
        self.cut(record.offset)
        self.extend(record.tokens, record.counters, record.trace, record.logprobs)
        self.attempts = record.attempts
        self.mark_saved()
        return True

    def mark_saved(self) -> None:
        self.crc = zlib.crc32(self.tokens[self.saved :].tobytes(), self.crc)
        self.saved, self.changed = len(self.tokens), False

    def _crc(self, length: int) -> int:
        return self.crc if length == self.saved else zlib.crc32(self.tokens[:length].tobytes())


def encode(chains: dict[str, Chain], run_id: str) -> bytes:
    """What of these chains is not on disk, as a segment of a run's log."""
    pieces = [chain.tokens[chain.saved :] for chain in chains.values()]
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
    tokens = np.frombuffer(b"".join(piece.tobytes() for piece in pieces), dtype=np.int32)
    columns = {
        "request_id": pa.array([i.encode("utf-8", "surrogatepass") for i in chains], pa.binary()),
        "offset": pa.array([chain.saved for chain in chains.values()], pa.int64()),
        "crc": pa.array([chain.crc for chain in chains.values()], pa.uint32()),
        "tokens": pa.ListArray.from_arrays(pa.array(ends), pa.array(tokens)),
        "attempts": pa.array([chain.attempts for chain in chains.values()], pa.int32()),
    }
    for name in EACH:
        some = any(getattr(chain, name) for chain in chains.values())
        pieces_of = [getattr(chain, name)[chain.saved :] if some else [] for chain in chains.values()]
        columns[name] = pa.array(pieces_of, pa.list_(pa.binary()))
    for name, kind in COUNTERS.items():
        values = [getattr(chain.counters, name) for chain in chains.values()]
        columns[name] = lists(values, "q") if kind == LISTS else pa.array(values, kind)
    batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({RUN_ID: run_id.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return framed(MAGIC, sink.getvalue().to_pybytes())


def decode(data: bytes, run_id: str, sealed: bool = True) -> list[Record]:
    """The records of a segment.

    Args:
        run_id: of the run that it must be of.
        sealed: it must say so; those of before there were seals do not.

    Raises:
        ValueError: not a whole segment of this run.
    """
    table = pa.ipc.open_stream(unframed(MAGIC, data)).read_all()
    theirs = (table.schema.metadata or {}).get(RUN_ID)
    if theirs != run_id.encode() and (sealed or theirs is not None):
        raise ValueError("segment of another run")
    fields = {name: table[name].to_pylist() for name in table.column_names if name != "tokens"}
    # Logs of earlier versions have none of them.
    for name in EACH:
        fields.setdefault(name, [[]] * table.num_rows)
    for name, kind in COUNTERS.items():
        if kind == LISTS:
            fields[name] = [tuple(values) for values in fields.get(name, [()] * table.num_rows)]
        else:
            fields.setdefault(name, [0] * table.num_rows)
    records = []
    for row, tokens in enumerate(table["tokens"]):
        records.append(
            Record(
                fields["request_id"][row].decode("utf-8", "surrogatepass"),
                fields["offset"][row],
                fields["crc"][row],
                array("i", tokens.values.to_numpy().tobytes()),
                Counters(**{name: fields[name][row] for name in COUNTERS}),
                fields["attempts"][row],
                *(fields[name][row] for name in EACH),
            )
        )
    return records
