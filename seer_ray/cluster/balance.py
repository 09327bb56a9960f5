"""Chains that move from crowded workers to idle ones, when nothing waits that these could have."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.cluster.assignments import Assignments

PAUSE = 0.5
"""Seconds between two looks at who is idle."""
RELEASE = 30.0
"""Seconds after which an idle worker gives its place back: somebody may die until then."""


def taken_back(
    assignments: Assignments, workers: Sequence[str], idle: int, share: int
) -> dict[str, list[str]]:
    """Requests that workers are to give back, by worker, so that those that are idle get their share.

    The most crowded worker gives most; of its chains those with the fewest tokens, which cost least to begin
    again. A suspect stays where it is.

    Args:
        assignments: Of a run.
        workers: Those that hold requests of it.
        idle: Workers that hold none and could.
        share: Requests that each is to hold.
    """
    excess = {worker: assignments.load(worker) - share for worker in workers}
    wanted, found = idle * share, {}
    for worker in sorted(workers, key=lambda worker: -excess[worker]):
        if wanted <= 0 or excess[worker] <= 0:
            break
        if ids := assignments.movable(worker)[: min(wanted, excess[worker])]:
            found[worker] = ids
            wanted -= len(ids)
    return found
