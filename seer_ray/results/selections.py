"""Which blocks recorded chains attended: one Parquet file a chain, beside the completions.

A file is written before its row is committed, under a name made of the row's key, and counts only when the
row is there. A crash between the two leaves a file that the next attempt replaces: a chain is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.entry import Key
from seer_ray.results.store import Store, is_temporary

if TYPE_CHECKING:
    from seer_ray.engine.trace import Trace

FOLDER = "selections"


@dataclass(frozen=True)
class Recording:
    """What a chain's steps attended, and the text of its tokens, one by one."""

    trace: Trace
    prompt: Sequence[str]
    tokens: Sequence[str]
    """Of the completion."""


def file_name(key: Key) -> str:
    """Ids are any text, and no paths."""
    digest = hashlib.blake2b(f"{key[1]}/{key[0]}".encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{digest.hexdigest()}.parquet"


def write(store: Store, key: Key, recording: Recording) -> None:
    """Create or replace a chain's file: a row a token, its ``text`` and ``entry`` (see ``engine.trace``)."""
    trace = recording.trace
    layers, heads, block = trace.shape
    about = {
        "problem_id": _clean(key[0]),
        "sample": str(key[1]),
        "prompt_tokens": str(trace.prompt_tokens),
        "layers": str(layers),
        "kv_heads": str(heads),
        "block_size": str(block),
        "prompt": json.dumps(list(recording.prompt)),
    }
    fields = [pa.field("text", pa.string(), nullable=False), pa.field("entry", pa.binary(), nullable=False)]
    schema = pa.schema(fields, {f"seer_ray.{name}": value for name, value in about.items()})
    texts = pa.array([_clean(text) for text in recording.tokens], pa.string())
    table = pa.table([texts, pa.array(trace.entries, pa.binary())], schema)
    sink = pa.BufferOutputStream()
    # The entries are deflated already.
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
    store.make_folder(FOLDER)
    store.write(f"{FOLDER}/{file_name(key)}", sink.getvalue())


def recorded(store: Store, keys: Iterable[Key]) -> list[Key]:
    """Those of the keys that have a file."""
    names = store.list(FOLDER)
    return [key for key in keys if file_name(key) in names] if names else []


def read(store: Store, key: Key) -> Recording:
    """Raises ConfigError: it is not there, or cannot be read."""
    from seer_ray.engine.trace import Trace

    name = f"{FOLDER}/{file_name(key)}"
    try:
        with store.open(name) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        about = table.schema.metadata
        trace = Trace(int(about[b"seer_ray.prompt_tokens"]), table["entry"].to_pylist())
        return Recording(trace, json.loads(about[b"seer_ray.prompt"]), table["text"].to_pylist())
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{store.locate(name)}: cannot be read ({one_line(error)}); restore it, or delete it: "
            "the row is whole without it"
        ) from error


def clean(store: Store) -> None:
    """Remove what a crash left half written."""
    store.delete(f"{FOLDER}/{name}" for name in store.list(FOLDER) if is_temporary(name))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
