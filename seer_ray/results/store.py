"""Files of a run folder: whole or not at all, on a local disk, on S3 or any pyarrow filesystem."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from seer_ray.config.errors import ConfigError, one_line

ABSENT = ""
"""The tag of a file that is not there."""


class Conflict(OSError):
    """A file is not as it was seen: another process writes here, or an earlier write came through."""


class Store:
    """Named blobs under one root. Names are relative, with at most one folder.

    A file has a tag, which another content of it has not. Here it is made of time and size, and ``put`` looks
    before it writes; a store that is shared by machines and can do both at once says so.
    """

    path: Path | None = None
    """The root on the local disk, if it is there."""
    conditional: bool = False
    """Of two processes that ``put`` a file of one tag, one is refused, however they meet."""

    def __init__(self, uri: str, filesystem: pafs.FileSystem, root: str) -> None:
        self.uri = uri
        self.fs = filesystem
        self.root = root.rstrip("/")

    def locate(self, name: str) -> str:
        """What to call a file in a message."""
        return f"{self.uri}/{name}"

    def open(self, name: str) -> pa.NativeFile:
        """A file for random access reads. Raises FileNotFoundError."""
        return self.fs.open_input_file(f"{self.root}/{name}")

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str, remedy: str) -> Any:
        """None if it is not there. Raises ConfigError, with a remedy, if it is torn."""
        try:
            return json.loads(self.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{self.locate(name)}: torn ({one_line(error)}); {remedy}") from error

    def list(self, folder: str = "") -> dict[str, int]:
        """Files of one folder (not of those below it): name without the folder -> bytes."""
        selector = pafs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return {info.base_name: info.size for info in infos if info.type == pafs.FileType.File}

    def folders(self) -> set[str]:
        """Names of the folders under the root."""
        infos = self.fs.get_file_info(pafs.FileSelector(self.root or "/", allow_not_found=True))
        return {info.base_name for info in infos if info.type == pafs.FileType.Directory}

    def tags(self, folder: str = "") -> dict[str, str]:
        """Files of one folder, as ``list`` has them, with their tags."""
        selector = pafs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return {info.base_name: _tag(info) for info in infos if info.type == pafs.FileType.File}

    def tag(self, name: str) -> str:
        """Of one file."""
        return _tag(self.fs.get_file_info(f"{self.root}/{name}"))

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """A small file and its tag, which may be older than the content. Raises FileNotFoundError."""
        tag = self.tag(name)
        return self.read(name), tag

    def put(self, name: str, data: bytes | pa.Buffer, tag: str) -> str:
        """``write``, if the file still has this tag (``ABSENT``: if there is none). Returns its new tag.

        Raises:
            Conflict: it has another one.
            OSError: the disk or the object store; it may have been written.
        """
        if self.tag(name) != tag:
            raise Conflict(f"{self.locate(name)}: another process has written it")
        self.write(name, data)
        return self.tag(name)

    def make_folder(self, folder: str = "") -> None:
        self.fs.create_dir(f"{self.root}/{folder}".rstrip("/"), recursive=True)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Create or replace a file. It appears whole, and when this returns it is there to stay."""
        folder, _, base = f"{self.root}/{name}".rpartition("/")
        temporary = f"{folder}/{temporary_name(base)}"
        with self.fs.open_output_stream(temporary) as file:
            file.write(data)
        self.fs.move(temporary, f"{folder}/{base}")

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are passed by. When this returns they are gone for good."""
        for name in names:
            try:
                self.fs.delete_file(f"{self.root}/{name}")
            except FileNotFoundError:
                continue

    def delete_folder(self, folder: str = "") -> None:
        """Remove a folder and all that is in it; one that is not there is passed by."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.delete_dir(f"{self.root}/{folder}".rstrip("/"))


class LocalStore(Store):
    """A folder on this machine: survives the process and the power."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), pafs.LocalFileSystem(), str(path.absolute()))
        self.path = path.absolute()

    def make_folder(self, folder: str = "") -> None:
        path = Path(self.root, folder)
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            fsync_folder(made.parent)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        write_file(Path(self.root, name), data)

    def tags(self, folder: str = "") -> dict[str, str]:
        found = {name: self.tag(f"{folder}/{name}") for name in self.list(folder)}
        return {name: tag for name, tag in found.items() if tag != ABSENT}

    def tag(self, name: str) -> str:
        # Clocks of disks are coarse: the inode tells two files of one moment and size apart.
        try:
            stat = os.stat(Path(self.root, name))
        except FileNotFoundError:
            return ABSENT
        return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"

    def delete(self, names: Iterable[str]) -> None:
        paths = [Path(self.root, name) for name in names]
        for path in paths:
            path.unlink(missing_ok=True)
        # What is deleted next may be what says that these were dead: it must not go first.
        for folder in sorted({path.parent for path in paths}):
            fsync_folder(folder)


def open_store(uri: str) -> Store:
    """The store at a path or URI, whether or not anything is there.

    Raises:
        ConfigError: no filesystem for this URI.
    """
    if "://" not in uri:
        return LocalStore(Path(uri).expanduser())
    if uri.startswith("s3://"):
        # Brings its client along.
        from seer_ray.results.s3 import S3Store

        return S3Store.at(uri)
    try:
        filesystem, root = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        reason = one_line(error).replace(uri, shown(uri))
        raise ConfigError(f"results.folder={shown(uri)}: cannot be opened: {reason}") from error
    if isinstance(filesystem, pafs.LocalFileSystem):
        return LocalStore(Path(root))
    return Store(shown(uri).rstrip("/"), filesystem, root)


def join(uri: str, name: str) -> str:
    """The address of ``name`` inside a folder; the options of a URI (after ``?``) stay at its end."""
    base, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def shown(uri: str) -> str:
    """A URI without what may be secret: user, password and options."""
    return re.sub(r"://[^/@]*@", "://", uri.partition("?")[0]) if "://" in uri else uri


def _tag(info: pafs.FileInfo) -> str:
    return ABSENT if info.type == pafs.FileType.NotFound else f"{info.mtime_ns}-{info.size}"


def temporary_name(base: str) -> str:
    """For a file being written. Dataset readers pass by what starts with a dot."""
    return f".{base}.{uuid.uuid4().hex[:8]}.tmp"


def is_temporary(name: str) -> bool:
    """Left by a crash. Not those of dot files, such as the lock: another process may be writing them now."""
    return re.fullmatch(r"\.[^.].*\.[0-9a-f]{8}\.tmp", name) is not None


def write_file(path: Path, data: bytes | pa.Buffer) -> None:
    """Create or replace a local file, atomically and durably."""
    with written_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def written_file(path: Path) -> Iterator[BinaryIO]:
    """A local file to write; it is there, in place of what was, when that ends without an exception."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make renames and deletions in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
