"""One driver at a time in a run folder."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import filelock

from seer_ray.config.errors import ConfigError
from seer_ray.results.store import ABSENT, Conflict, Store

NAME = ".lock"
BEAT = 10.0
"""Seconds between two signs of life."""
STALE = 60.0
"""Seconds without one, after which whoever held a lock is gone."""
SETTLE = 0.5
"""Seconds after which the last of two who wrote at once is seen."""

log = logging.getLogger(__name__)

UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock(Protocol):
    taken_over: bool
    """Whether whoever had it may only be asleep."""

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

    taken_over = False

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
    """A file that its owner renews. Whether it does is judged by the file's change, as seen by our own clock:
    those of other machines may be wrong. One that does not change for ``STALE`` seconds, or whose process was
    on this machine and is gone, is taken over.

    Where a store has no conditional writes, two contenders write, wait for ``SETTLE`` seconds, and the one
    whose name stands there has it. Even an owner that was asleep while it was taken over does no harm where
    there are: what it writes is refused (``Store.put``).
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.owner = uuid.uuid4().hex
        self._clock, self._sleep = clock, sleep
        self._tag = ABSENT
        self.taken_over = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Raises ConfigError: another process has it. It takes ``STALE`` seconds to see that one is gone."""
        self._tag = self._wait()
        self.taken_over = self._tag != ABSENT
        try:
            self._write()
        except Conflict:
            self.check()  # ours came through after all, or somebody was faster
        if not self.store.conditional:
            self._sleep(SETTLE)
        self.check()
        self._thread = threading.Thread(target=self._renew, name="run-folder-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        held, self._tag = self._read()
        if not held or held["owner"] != self.owner:
            other = _describe(held) if held else "somebody who deleted its lock"
            raise ConfigError(f"{self.store.uri}: taken over by {other}; stop one of the two")

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # A store that is away: whoever comes next sees that the lock is not renewed.
        with contextlib.suppress(OSError):
            held, _ = self._read()
            if held and held["owner"] == self.owner:
                self.store.delete([NAME])

    def _wait(self) -> str:
        """Until the lock is free: the tag of what is to be replaced."""
        began, first = self._clock(), self._read()
        now = first
        while True:
            held, tag = now
            if not held or (held["machine"] == _machine() and not _alive(held["pid"])):
                return tag
            if now != first:
                raise ConfigError(
                    f"{self.store.uri}: in use by {_describe(held)}; stop it, or wait for its end"
                )
            left = STALE - (self._clock() - began)
            if left <= 0:
                return tag
            if now is first:
                log.warning(
                    "%s: held by %s; seeing for %.0f s whether it is alive",
                    self.store.uri,
                    _describe(held),
                    STALE,
                )
            self._sleep(min(left, BEAT / 2))
            now = self._read()

    def _renew(self) -> None:
        while not self._stop.wait(BEAT):
            # A store that is away for a moment is no reason to stop; a taken lock shows in check().
            with contextlib.suppress(OSError):
                held, tag = self._read()
                if held is None or held.get("owner", self.owner) != self.owner:
                    return
                self._tag = tag
                self._write()

    def _write(self) -> None:
        said = json.dumps({**_me(), "owner": self.owner}).encode()
        self._tag = self.store.put(NAME, said, self._tag)

    def _read(self) -> tuple[dict[str, Any] | None, str]:
        """None: no lock there. Empty: torn. And the tag."""
        try:
            data, tag = self.store.read_tagged(NAME)
            held = json.loads(data)
            return (held if {"owner", "pid", "host", "machine", "time"} <= set(held) else {}), tag
        except FileNotFoundError:
            return None, ABSENT
        except (ValueError, TypeError):
            return {}, tag


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
