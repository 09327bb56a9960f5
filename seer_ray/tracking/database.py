"""An MLflow database in a file: made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from seer_ray.results.store import temporary_name

TORN = re.compile(
    "already exists|no such (table|column)|out-of-date database|locate revision|malformed|not a database"
)
"""What is said of a database whose making or migration was cut short, and of what is none."""


def make(path: Path) -> None:
    """Makes the database, unless something is there. MLflow itself makes it table by table: a disk that is
    full, or a process that is killed, would leave half of one, which nobody takes.

    Raises:
        Exception: what MLflow or SQLite raises. Nothing is left then.
    """
    if path.exists():
        return
    import mlflow

    scratch = path.with_name(temporary_name(path.name))
    whole = path.with_name(temporary_name(path.name))
    try:
        mlflow.MlflowClient(f"sqlite:///{scratch}").search_experiments(max_results=1)
        with closing(sqlite3.connect(scratch)) as made, closing(sqlite3.connect(whole)) as copy:
            made.backup(copy)
        # A link is refused where another process was faster.
        with contextlib.suppress(FileExistsError):
            os.link(whole, path)
    finally:
        for name in (scratch, whole):
            for end in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    name.with_name(name.name + end).unlink()


def remedy(error: str, path: Path) -> str:
    """What to do about a database that is not whole, to be put behind the error; empty: nothing is known."""
    if not TORN.search(error):
        return ""
    return f"; {path} is not whole: move it away, and resume: a new one is told everything"
