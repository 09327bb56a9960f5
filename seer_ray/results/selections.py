"""Which blocks recorded chains attended: one Parquet file a chain, beside the completions.

A file is written before its row is committed, under a name made of the row's key, and counts only when the
row is there. A crash between the two leaves a file that the next attempt replaces: a chain is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.keys import Key
from seer_ray.results.schema import clean
from seer_ray.results.seal import checksum
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


def write(store: Store, run_id: str, key: Key, recording: Recording) -> None:
    """Create or replace a chain's file: a row a token, its ``text`` and ``entry`` (see ``engine.trace``)."""
    trace = recording.trace
    layers, heads, block = trace.shape
    about = {
        "run_id": run_id,
        "problem_id": clean(key[0]),
        "sample": str(key[1]),
        "prompt_tokens": str(trace.prompt_tokens),
        "layers": str(layers),
        "kv_heads": str(heads),
        "block_size": str(block),
        "prompt": json.dumps(list(recording.prompt)),
    }
    fields = [pa.field("text", pa.string(), nullable=False), pa.field("entry", pa.binary(), nullable=False)]
    texts = [clean(text) for text in recording.tokens]
    about["checksum"] = _checksum(about, texts, trace.entries)
    schema = pa.schema(fields, {f"seer_ray.{name}": value for name, value in about.items()})
    table = pa.table([pa.array(texts, pa.string()), pa.array(trace.entries, pa.binary())], schema)
    sink = pa.BufferOutputStream()
    # The entries are deflated already.
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
    store.make_folder(FOLDER)
    store.write(f"{FOLDER}/{file_name(key)}", sink.getvalue())


def recorded(store: Store, keys: Iterable[Key]) -> list[Key]:
    """Those of the keys that have a file."""
    names = store.list(FOLDER)
    return [key for key in keys if file_name(key) in names] if names else []


def read(store: Store, run_id: str, key: Key, sealed: bool = True) -> Recording:
    """A chain's recording.

    Args:
        sealed: it must have a checksum; those of before there were seals have none.

    Raises:
        ConfigError: it is not there, cannot be read, or is not what was written of this chain.
    """
    from seer_ray.engine.trace import Trace

    name = f"{FOLDER}/{file_name(key)}"
    try:
        with store.open(name) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        about = {
            name.decode().removeprefix("seer_ray."): value.decode()
            for name, value in (table.schema.metadata or {}).items()
            if name.startswith(b"seer_ray.")
        }
        texts, entries = table["text"].to_pylist(), table["entry"].to_pylist()
        noted = about.pop("checksum", None)
        if (sealed or noted is not None) and noted != _checksum(about, texts, entries):
            raise ValueError("it is not as it was written")
        if (about["problem_id"], about["sample"]) != (clean(key[0]), str(key[1])):
            raise ValueError("it is of another chain")
        if about.get("run_id", None if sealed else run_id) != run_id:
            raise ValueError("it is of another run")
        return Recording(Trace(int(about["prompt_tokens"]), entries), json.loads(about["prompt"]), texts)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{store.locate(name)}: cannot be read ({one_line(error)}); restore it, or delete it: "
            "the row is whole without it"
        ) from error


def remove_torn(store: Store) -> None:
    """Remove what a crash left half written."""
    store.delete(f"{FOLDER}/{name}" for name in store.list(FOLDER) if is_temporary(name))


def _checksum(about: Mapping[str, str], texts: Sequence[str], entries: Sequence[bytes]) -> str:
    """Of all that a file says: a Parquet footer has none of its own."""
    bodies = [hashlib.sha256(entry or b"").hexdigest()[:16] for entry in entries]
    return checksum([dict(about), list(texts), bodies])
