"""Folders of jobs by name, and what they are."""

from __future__ import annotations

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.results.job import ABOUT
from seer_ray.results.store import open_store
from seer_ray.results.sweep import INDEX


def find_run(run: str, folder: str = "runs") -> str:
    """The folder of a run, a sweep or a training job that a path, or a name under ``folder``, means.

    Raises:
        ConfigError: there is none; names those there are.
    """
    from seer_ray.results.folder import RUN
    from seer_ray.results.job import ABOUT
    from seer_ray.results.store import join, open_store
    from seer_ray.results.sweep import INDEX

    marks = (RUN, INDEX, ABOUT)
    places = [run.rstrip("/")] if run.strip("./") else []
    if not run.startswith(("/", ".")) and "://" not in run:
        places.insert(0 if "/" not in run else 1, join(folder, run.rstrip("/")))
    for place in places:
        if set(marks) & set(open_store(place).list()):
            return place
    root = open_store(folder).path
    known = sorted(path.parent.name for mark in marks for path in (root.glob(f"*/{mark}") if root else ()))
    there = f"; it has {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}" if known else ""
    raise ConfigError(f"{run}: no such run in {folder}{did_you_mean(run, known)}{there}")


def split(folder: str) -> tuple[str, str]:
    """A run folder as (where run folders are made, name); the options of a URI stay with the first."""
    base, mark, query = folder.partition("?") if "://" in folder else (folder, "", "")
    parent, slash, name = base.rstrip("/").rpartition("/")
    return (parent or slash or ".") + mark + query, name


def is_sweep(uri: str) -> bool:
    """Whether a folder is a sweep's."""
    return INDEX in open_store(uri).list()


def is_training(uri: str) -> bool:
    """Whether a folder is that of a training job."""
    return ABOUT in open_store(uri).list()
