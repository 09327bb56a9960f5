"""What training makes, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from seer_ray.results.store import Store

T = TypeVar("T")


def write_product(store: Store, name: str, save: Callable[[Path], T]) -> T:
    """The folder ``name`` of a run, as ``save`` fills it; one that is there is replaced.

    Args:
        save: writes files, not folders, to the empty folder that it is given.
    """
    if store.path is not None:
        scratch = store.path / f".{name}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        result = save(scratch)
        shutil.rmtree(store.path / name, ignore_errors=True)
        scratch.rename(store.path / name)
        return result
    with tempfile.TemporaryDirectory() as folder:
        result = save(Path(folder))
        store.make_folder(name)
        for file in sorted(Path(folder).iterdir()):
            store.write(f"{name}/{file.name}", file.read_bytes())
        return result
