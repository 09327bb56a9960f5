"""Rows out of files and hub datasets, each with where it stands, for errors that name the place."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean

Row = tuple[str, dict[str, Any] | ConfigError]
"""(where, column -> value, or what is wrong with this row alone)"""


class WrittenFloat(float):
    """A float that knows how it stands in the data: 0.10, 1e-05, or with more digits than a float has."""

    text: str

    def __new__(cls, value: float | str, text: str) -> WrittenFloat:
        self = super().__new__(cls, value)
        self.text = text
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return WrittenFloat, (float(self), self.text)


_FILE_TYPE = re.compile(r"\.(jsonl|parquet|csv)(\.(gz|bz2|zst|lz4))?$", re.IGNORECASE)
_OTHER_FILE = re.compile(r"\.(json|txt|tsv|arrow|xlsx|ya?ml|zip)$", re.IGNORECASE)
_NOT_UTF8 = re.compile("[\\udc80-\\udcff]")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_rows(
    data: str, subset: str | None = None, split: str = "test", option: str = "task.data"
) -> Iterator[Row]:
    """All rows of a dataset, files in the order of their names. A malformed one has its error in its place.

    Args:
        data: Path or glob, or id of a dataset on the hub.
        subset, split: For the hub.
        option: What ``data`` is called in errors.

    Raises:
        ConfigError: Missing or unreadable file, unknown dataset.
    """
    if not is_path(data):
        yield from _hub_rows(data, subset, split, option)
        return
    for filesystem, path in find_files(data, option):
        kind = _FILE_TYPE.search(path)
        if kind is None:
            raise ConfigError(f"{option}={path}: unknown file type; must be .jsonl, .parquet or .csv")
        try:
            yield from _READERS[kind[1].lower()](filesystem, path)
        except (OSError, ValueError, csv.Error) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{option}={path}: cannot be read: {_one_line(error)}") from error


def is_path(data: str) -> bool:
    """Whether ``data`` means files and not a hub dataset."""
    return bool(
        "://" in data
        or not _HUB_ID.fullmatch(data)
        or data.startswith(".")
        or _FILE_TYPE.search(data)
        or _OTHER_FILE.search(data)
        or os.path.exists(data)
    )


def find_files(data: str, option: str = "task.data") -> list[tuple[Any, str]]:
    """(pyarrow filesystem, path) of every file that a path, URI or glob names, sorted by path.

    In globs ``*`` stays inside a folder name, ``**`` goes through folders, hidden files are left out.

    Raises:
        ConfigError: Nothing there.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    uri = "://" in data
    location, mark, query = data.partition("?") if uri else (os.path.expanduser(data), "", "")
    wild = re.search(r"[*\[]" if uri else r"[*?\[]", location)
    pattern = ""
    if wild and (uri or not os.path.exists(location)):
        # What comes before the folder level of the first wildcard is the folder to search.
        folder, _, below = location[: wild.start()].rpartition("/")
        pattern = below + location[wild.start() :]
        location = folder or ("/" if location.startswith("/") else ".")
    try:
        if uri:
            filesystem, path = fs.FileSystem.from_uri(location + mark + query)
        else:
            filesystem, path = fs.LocalFileSystem(), location
        if not pattern:
            _check_file(filesystem, path, data, option)
            return [(filesystem, path)]
        filesystem.get_file_info(path)  # fsspec takes a place that cannot be reached for an empty one
        folder = path.rstrip("/")
        found = ArrowFSWrapper(filesystem).glob(f"{folder}/{pattern}", detail=True)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{option}={data}: cannot be reached: {_one_line(error)}") from error
    names = sorted(
        name for name, info in found.items() if info["type"] == "file" and "/." not in name[len(folder) :]
    )
    if not names:
        raise ConfigError(f"{option}={data}: no file matches")
    return [(filesystem, name) for name in names]


def _check_file(filesystem: Any, path: str, data: str, option: str) -> None:
    from pyarrow import fs

    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.Directory:
        raise ConfigError(
            f"{option}={data}: is a folder; name its files, for example {data.rstrip('/')}/*.jsonl"
        )
    if info.type == fs.FileType.NotFound:
        folder, _, name = path.rpartition("/")
        others = filesystem.get_file_info(fs.FileSelector(folder or ".", allow_not_found=True))
        raise ConfigError(f"{option}={data}: no such file{did_you_mean(name, [i.base_name for i in others])}")


def _jsonl_rows(filesystem: Any, path: str) -> Iterator[Row]:
    with filesystem.open_input_stream(path) as stream:
        for number, line in enumerate(io.BufferedReader(stream), 1):
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                where = f"{path}:{number}"
                yield where, _json_row(line, where)


def _json_row(line: bytes, where: str) -> dict[str, Any] | ConfigError:
    try:
        # Files put together may have a byte order mark in their middle.
        row = _DECODER.decode(line.removeprefix(b"\xef\xbb\xbf").decode().strip())
    except UnicodeDecodeError as error:
        return ConfigError(f"{where}: not UTF-8 ({error.reason} at byte {error.start + 1})")
    except json.JSONDecodeError as error:
        return ConfigError(f"{where}: malformed JSON ({error.msg} at column {error.colno})")
    except RecursionError:
        return ConfigError(f"{where}: malformed JSON (nested too deep)")
    except ValueError as error:  # a key twice, a number of more digits than Python converts
        return ConfigError(f"{where}: malformed JSON ({_one_line(error).partition(';')[0]})")
    return (
        row
        if isinstance(row, dict)
        else ConfigError(f"{where}: must be a JSON object, is {type(row).__name__}")
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!a} twice in an object")
    return found


def _csv_rows(filesystem: Any, path: str) -> Iterator[Row]:
    # The default limit of 128 KiB a field is shorter than a long chain.
    csv.field_size_limit(sys.maxsize)
    with filesystem.open_input_stream(path) as stream:
        # What is not UTF-8 stays in its row.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise ConfigError(f"{path}:1: two columns have the same name: {', '.join(header)}")
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):  # a quote that nobody closed: where rows end is not known
                    raise
                yield (
                    f"{path}:{reader.line_num}",
                    ConfigError(f"{path}:{reader.line_num}: malformed ({error})"),
                )
                continue
            where = f"{path}:{reader.line_num}"
            if any(map(_NOT_UTF8.search, fields)):
                yield where, ConfigError(f"{where}: not UTF-8")
            elif fields and len(fields) != len(header):
                yield where, ConfigError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
            elif fields:
                yield where, dict(zip(header, fields, strict=True))


def _parquet_rows(filesystem: Any, path: str) -> Iterator[Row]:
    import numpy as np
    from pyarrow import parquet, types

    number = 0
    with filesystem.open_input_file(path) as stream:
        file = parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise ConfigError(f"{path}: two columns have the same name: {', '.join(names)}")
        # Made longer, 0.1 becomes 0.10000000149011612.
        short = {field.name: np.float32 for field in file.schema_arrow if types.is_float32(field.type)}
        short |= {field.name: np.float16 for field in file.schema_arrow if types.is_float16(field.type)}
        for batch in file.iter_batches(batch_size=1024):
            try:
                rows = batch.to_pylist(maps_as_pydicts="strict")
            except (ValueError, OverflowError, KeyError):
                rows = [
                    _parquet_row(batch.slice(i, 1), f"{path} row {number + i + 1}") for i in range(len(batch))
                ]
            for row in rows:
                number += 1
                for name, kind in short.items() if isinstance(row, dict) else ():
                    if row[name] is not None:
                        row[name] = WrittenFloat(row[name], str(kind(row[name])))
                yield f"{path} row {number}", row


def _parquet_row(batch: Any, where: str) -> dict[str, Any] | ConfigError:
    """A row of a batch in which some value is nothing that Python can hold: a year 300,000, broken UTF-8."""
    row = {}
    for name in batch.schema.names:
        try:
            [row[name]] = batch.column(name).to_pylist(maps_as_pydicts="strict")
        except (ValueError, OverflowError, KeyError) as error:
            return ConfigError(f"{where}: column '{name}' cannot be read: {_one_line(error)}")
    return row


_DECODER = json.JSONDecoder(
    object_pairs_hook=_each_once, parse_float=lambda number: WrittenFloat(number, number)
)
_READERS = {"jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}


def _hub_rows(data: str, subset: str | None, split: str, option: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f'{option}={data}: no such file, and datasets of the hub need: pip install "seer-ray[hub]"'
        ) from error
    try:
        rows = datasets.load_dataset(data, subset, split=split)
    except Exception as error:  # Network, missing dataset, subset or split: whatever the library raises.
        section = option.rpartition(".")[0]
        named = {"subset": subset, "split": split}
        which = "".join(f" {section}{'.' if section else ''}{k}={v}" for k, v in named.items() if v)
        raise ConfigError(
            f"{option}={data}{which}: cannot be loaded from the hub: {_one_line(error)}"
        ) from error
    for number, row in enumerate(rows, 1):
        yield f"{data} row {number}", row


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
