"""Reaching MLflow, quietly, and its errors in a few words."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import warnings
from typing import Any

from seer_ray.config.errors import one_line
from seer_ray.config.secrets import hidden, redacted
from seer_ray.results.store import shown
from seer_ray.tracking.address import sqlite_file
from seer_ray.tracking.database import make, remedy

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The spool tries again, so MLflow itself (120 s, seven times) need not.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}

_loading = threading.Lock()


def fingerprint(uri: str) -> str:
    """What an address is called on disk; the same with another password."""
    return hashlib.sha256(redacted(uri).encode()).hexdigest()[:16]


def reason(error: Exception, uri: str) -> str:
    """An error of MLflow's in a few words, without a password that it may quote."""
    text = hidden(str(error).replace(uri, shown(uri)))
    then = remedy(text, path) if (path := sqlite_file(uri)) else ""
    if cause := re.search(r"\(Caused by \w+\([\"'](.*)[\"']\)\)", text, re.DOTALL):
        text = cause[1].rpartition(": ")[2]
    return one_line(Exception(text or type(error).__name__), 160) + then


def load() -> Any:
    """The package, which takes seconds to import. Two threads that do that at once wait for each other's
    modules: one does, and the other waits for it."""
    with _loading:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import mlflow

        # Its troubles are ours to report, in one line; its migrations and hints are nobody's.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
        return mlflow


def connect(uri: str) -> Any:
    """A client of MLflow; an SQLite file is made whole before."""
    mlflow = load()
    if path := sqlite_file(uri):
        make(path)
    return mlflow.MlflowClient(uri)
