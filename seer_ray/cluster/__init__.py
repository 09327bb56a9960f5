"""From requests to completions on a Ray cluster: who decodes what, and what happens when somebody dies."""

from __future__ import annotations


class JobError(RuntimeError):
    """The job cannot go on. The message is one line for a person; the command line exits with 1."""


class Interrupted(JobError):
    """Somebody stopped the job. What was finished and what was begun is on disk."""
