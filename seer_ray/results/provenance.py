"""How what is in a job's folder was made: by which commands, with which code, where and when."""

from __future__ import annotations

import contextlib
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import seer_ray
from seer_ray.config.command import training_command
from seer_ray.config.options import JobConfig
from seer_ray.config.secrets import hidden
from seer_ray.results.base import Folder

FILE = "provenance.json"
PACKAGES = ("seer-ray", "torch", "transformers", "ray", "pyarrow")
PROGRAMS = ("seer-ray", "seer_ray")


def note(folder: Folder, config: JobConfig) -> dict[str, Any]:
    """A session more, in the job's folder: see ``session``. Where the folder cannot be written, what comes
    next says so."""
    now = session(config)
    with contextlib.suppress(OSError):
        folder.write_json(FILE, {"sessions": [*noted(folder), now]})
    return now


def noted(folder: Folder) -> list[dict[str, Any]]:
    """All sessions of a job, in order; none of a folder that was made before they were noted.

    Raises:
        ConfigError: the note is torn.
    """
    return list((folder.read_json(FILE) or {}).get("sessions", ()))


def session(config: JobConfig) -> dict[str, Any]:
    """``command``, ``began`` (ISO, UTC), ``host``, ``system``, ``python``, ``versions`` (package -> version)
    and ``commit`` (of a checkout; None: an installed package). No secrets."""
    return {
        "command": hidden(_command(config)),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


@cache
def versions() -> dict[str, str]:
    """Of the packages that results rest on."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def commit() -> str | None:
    """Of the checkout that this package is run from, with ``-dirty`` where files differ from it; None: there
    is none."""
    root = Path(seer_ray.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None  # a repository further up is somebody else's
    words = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _command(config: JobConfig) -> str:
    """As it was typed, or, for a job that a program started, one that gives the same options."""
    if Path(sys.argv[0]).name in PROGRAMS:
        return shlex.join(["seer-ray", *sys.argv[1:]])
    return training_command(config, config.command)
