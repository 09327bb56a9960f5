"""The user's cache folder, and files in it that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

SAMPLES, SAMPLE = 64, 1 << 14

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Ours in the user's cache, which ``XDG_CACHE_HOME`` may move; where that cannot be written, or there is
    no home, a private folder for temporary files, which is said once."""
    return _writable(os.environ.get("XDG_CACHE_HOME") or None, os.environ.get("HOME"), tempfile.gettempdir())


@cache
def _writable(named: str | None, home: str | None, temporary: str) -> Path:
    try:
        folder = Path(named or Path.home() / ".cache") / "seer-ray"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        reason = getattr(error, "strerror", None) or error
    folder = _private(Path(temporary) / f"seer-ray-{os.getuid()}")
    named = named or (f"{home}/.cache" if home else "HOME")
    log.warning("%s: no place for a cache (%s); %s is used, or set XDG_CACHE_HOME", named, reason, folder)
    return folder


def _private(folder: Path) -> Path:
    """Only this user's: code is loaded from there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="seer-ray-"))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_digests(folder: Path, name: str, files: Iterable[str] | None = None) -> None:
    """Files of a folder (None: all of them) to the disk, and then what they are into a file of this name."""
    names = sorted(files if files is not None else (path.name for path in folder.iterdir()))
    sync(folder / file for file in names)
    noted = folder / f".{name}.{os.getpid()}"
    noted.write_text(json.dumps({file: _sample(folder / file) for file in names}))
    sync([noted])
    noted.replace(folder / name)
    sync([folder])


def is_whole(folder: Path, name: str) -> bool:
    """Whether the files of a folder are what ``note_digests`` noted under this name."""
    try:
        noted = json.loads((folder / name).read_bytes())
        return bool(noted) and all(_sample(folder / file) == digest for file, digest in noted.items())
    except (OSError, ValueError, AttributeError):
        return False


def set_aside(folder: Path) -> None:
    """A folder that is not whole gives way to a new one."""
    if folder.exists():
        log.warning("%s: not as it was written; made again", folder)
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _sample(path: Path) -> str:
    """Size and content of a file; of a large one 64 samples of 16 KiB, as it is compared at every start."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE:
            digest.update(file.read())
        else:
            for part in range(SAMPLES):
                file.seek((size - SAMPLE) * part // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def sync(paths: Iterable[Path]) -> None:
    """Files and folders to the disk, so that a rename after it never shows half of them."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
