"""The page of whatever kind of job a folder is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.report.html import Report, make_report
from seer_ray.report.job import JobReport, make_job_report
from seer_ray.results.job import ABOUT, JobFolder
from seer_ray.results.store import open_store


def make_page(uris: Sequence[str], title: str | None = None, **how: Any) -> Report | JobReport:
    """Of runs and sweeps together, or of one job that trains or measures.

    Args:
        uris: of their folders
        title: of the page; None: the folders' names
        how: see ``make_report``

    Raises:
        ConfigError: a folder cannot be read or holds nothing, or they cannot be on one page.
    """
    jobs = [uri for uri in uris if ABOUT in open_store(uri).list()]
    if not jobs:
        return make_report(uris, title, **how)
    if len(uris) > 1:
        raise ConfigError(f"{jobs[0]}: no run of problems, so its page stands alone; name it alone")
    return make_job_report(JobFolder.view(jobs[0]), title)
