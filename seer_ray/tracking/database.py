"""An MLflow database in a file: made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import tempfile
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

    whole = path.with_name(temporary_name(path.name))
    with tempfile.TemporaryDirectory(prefix="seer-ray-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch, path.name)
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        try:
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(whole)) as copy:
                source.backup(copy)
            # A link is refused where another process was faster.
            with contextlib.suppress(FileExistsError):
                os.link(whole, path)
        finally:
            for end in ("", "-journal"):
                with contextlib.suppress(OSError):
                    whole.with_name(whole.name + end).unlink()


def remedy(error: str, path: Path) -> str:
    """What to do about a database that is not whole, to be put behind the error; empty: nothing is known."""
    if not TORN.search(error):
        return ""
    return f"; {path} is not whole: move it away, and resume: a new one is told everything"
