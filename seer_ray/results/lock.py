"""One driver at a time in a run folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

import filelock

from seer_ray.config.errors import ConfigError
from seer_ray.results.store import Store

NAME = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock(Protocol):
    def check(self) -> None:
        """Raises ConfigError if somebody else has taken the folder over."""

    def release(self) -> None: ...


def acquire(store: Store) -> Lock:
    """Make this process the one that writes the folder.

    On a disk the kernel holds the lock, and lets go when the process dies, however it dies. Where there is no
    such lock (object stores, some network disks) a heartbeat in the folder stands for it.

    Raises:
        ConfigError: another process has it; says which, and what to do.
    """
    if store.path is not None:
        lock = FileLock(store.path / NAME)
        try:
            if lock.acquire():
                return lock
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            raise ConfigError(f"{store.uri}: in use by {lock.holder()}; wait for it or stop it")
    heartbeat = HeartbeatLock(store)
    heartbeat.acquire()
    return heartbeat


class FileLock:
    """The kernel's lock on a file that stays where it is. Held by a process, not by the children it forks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> bool:
        """False: another has it. Raises OSError where the filesystem has no such locks."""
        try:
            self._lock.acquire()
        except filelock.Timeout:
            return False
        self.path.write_text(json.dumps(_me()))
        return True

    def holder(self) -> str:
        """Who has it, in words."""
        try:
            held = json.loads(self.path.read_text())
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held["time"]))
            return f"{_describe(held)} since {since}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def check(self) -> None:
        """Nobody can take over a lock that the kernel holds."""

    def release(self) -> None:
        self._lock.release()


class HeartbeatLock:
    """A file that its owner renews. Stale: not renewed for ``stale`` seconds, or its process here is dead.

    There is no atomic create on every filesystem, so two contenders write, wait for ``settle`` seconds, and
    the one whose name stands there has it.
    """

    def __init__(self, store: Store, beat: float = 10.0, stale: float = 60.0, settle: float = 0.5) -> None:
        self.store = store
        self.beat, self.stale, self.settle = beat, stale, settle
        self.owner = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        self._refuse_if_held()
        self._write()
        time.sleep(self.settle)
        self.check()
        self._thread = threading.Thread(target=self._renew, name="run-folder-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        held = self._read()
        if not held or held["owner"] != self.owner:
            other = _describe(held) if held else "somebody who deleted its lock"
            raise ConfigError(f"{self.store.uri}: taken over by {other}; stop one of the two")

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        held = self._read()
        if held and held["owner"] == self.owner:
            self.store.delete([NAME])

    def _refuse_if_held(self) -> None:
        held = self._read()
        if not held:
            return
        age = max(0.0, time.time() - held["time"])
        dead = held["machine"] == _machine() and not _alive(held["pid"])
        if age < self.stale and not dead:
            raise ConfigError(
                f"{self.store.uri}: in use by {_describe(held)}, last sign of life {age:.0f} s ago; stop it, "
                f"or, if it is gone, try again in {self.stale - age:.0f} s"
            )

    def _renew(self) -> None:
        while not self._stop.wait(self.beat):
            # A store that is away for a moment is no reason to stop; a taken lock shows in check().
            with contextlib.suppress(OSError):
                held = self._read()
                if held is None or held.get("owner", self.owner) != self.owner:
                    return
                self._write()

    def _write(self) -> None:
        self.store.write(NAME, json.dumps({**_me(), "owner": self.owner}).encode())

    def _read(self) -> dict[str, Any] | None:
        """None: no lock there. Empty: torn."""
        try:
            held = json.loads(self.store.read(NAME))
            return held if {"owner", "pid", "host", "machine", "time"} <= set(held) else {}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return {}


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "time": time.time()}


def _machine() -> str:
    """Where process ids mean the same: containers may share a host name."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _describe(held: dict[str, Any]) -> str:
    return f"process {held['pid']} on {held['host']}"
