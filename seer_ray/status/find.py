"""Folders of jobs by name."""

from __future__ import annotations

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.results.base import MARKS
from seer_ray.results.store import join, open_store


def find_run(run: str, folder: str = "runs") -> str:
    """The folder of a job that a path, or a name under ``folder``, means.

    Raises:
        ConfigError: there is none; names those there are.
    """
    places = [run.rstrip("/")] if run.strip("./") else []
    if not run.startswith(("/", ".")) and "://" not in run:
        places.insert(0 if "/" not in run else 1, join(folder, run.rstrip("/")))
    for place in places:
        if MARKS.keys() & open_store(place).list().keys():
            return place
    known = jobs_in(folder)
    there = f"; it has {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}" if known else ""
    raise ConfigError(f"{run}: no such run in {folder}{did_you_mean(run, known)}{there}")


def jobs_in(folder: str) -> list[str]:
    """Names of the jobs whose folders lie there."""
    store = open_store(folder)
    return sorted(name for name in store.folders() if MARKS.keys() & store.list(name).keys())


def split(folder: str) -> tuple[str, str]:
    """A run folder as (where run folders are made, name); the options of a URI stay with the first."""
    base, mark, query = folder.partition("?") if "://" in folder else (folder, "", "")
    parent, slash, name = base.rstrip("/").rpartition("/")
    return (parent or slash or ".") + mark + query, name
