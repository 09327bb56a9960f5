"""A disk that fails at a chosen operation, and, if wished, forgets what was not synced."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seer_ray.results import store


class Crash(BaseException):
    """The process is gone: nothing may catch this and go on."""


class Disk:
    """Counts the operations of ``store`` that change the disk; number ``fail_at`` and all later ones do not
    happen and raise Crash, or it alone raises OSError.

    A write that fails has written half.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int | None = None, dies: bool = True) -> None:
        self.count = 0
        self.fail_at, self.dies = fail_at, dies
        self.failed = False
        self._names: dict[int, Path] = {}
        self._unsynced: dict[Path, list[Callable[[], Any]]] = {}
        """Folder -> how to undo what was done to its names since it was synced."""
        self._torn: set[Path] = set()
        self._real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "unlink")}
        for name in self._real:
            patch.setattr(os, name, getattr(self, f"_{name}"))
        patch.setattr(store, "open", self._create, raising=False)

    def lose(self, which: str) -> None:
        """The power goes: of what was not synced, ``all``, the ``first`` or the ``last`` is lost."""
        for path in self._torn:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        for undos in self._unsynced.values():
            chosen = {"all": undos[::-1], "first": undos[:1], "last": undos[-1:]}[which]
            for undo in chosen:
                undo()

    def _step(self) -> None:
        if self.fail_at is not None and (self.count == self.fail_at or (self.failed and self.dies)):
            self.failed, self.count = True, self.count + 1
            raise Crash if self.dies else OSError(28, "No space left on device")
        self.count += 1

    def _create(self, path: Any, mode: str = "r") -> Any:
        if "x" not in mode:
            return builtins.open(path, mode)
        self._step()
        file = builtins.open(path, mode)  # noqa: SIM115
        self._torn.add(Path(path))
        self._names[file.fileno()] = Path(path)
        disk, write = self, file.write

        class File:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: Any) -> None:
                data = bytes(data)
                write(data[: len(data) // 2])
                file.flush()
                disk._step()
                write(data[len(data) // 2 :])

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return File()

    def _open(self, path: Any, flags: int, *more: Any, **options: Any) -> int:
        descriptor = self._real["open"](path, flags, *more, **options)
        if isinstance(path, (str, os.PathLike)):
            self._names[descriptor] = Path(path)
        return descriptor

    def _fsync(self, descriptor: int) -> None:
        self._step()
        self._real["fsync"](descriptor)
        path = self._names[descriptor]
        self._torn.discard(path)
        self._unsynced.pop(path, None)

    def _replace(self, source: Any, target: Any) -> None:
        self._step()
        source, target = Path(source), Path(target)
        old, new = target.read_bytes() if target.exists() else None, source.read_bytes()
        self._real["replace"](source, target)
        if source in self._torn:
            self._torn = {*self._torn - {source}, target}

        def undo() -> None:
            source.write_bytes(new)
            target.write_bytes(old) if old is not None else target.unlink(missing_ok=True)

        self._unsynced.setdefault(target.parent, []).append(undo)

    def _unlink(self, path: Any, **options: Any) -> None:
        path = Path(path)
        if path.exists():
            self._step()
            content = path.read_bytes()
            self._unsynced.setdefault(path.parent, []).append(lambda: path.write_bytes(content))
        self._real["unlink"](path, **options)
