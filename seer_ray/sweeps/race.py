"""Racing in a sweep: after every round, points about which the answer is known are stopped.

A decision rests on whole rounds, in their order, of the point and of its baseline: problems that happen to
end early say nothing before the others of their round. So it is the same whatever the pace of the workers,
and whatever was killed and resumed in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from seer_ray.analysis.outcomes import COLUMNS, align
from seer_ray.analysis.paired import PairedOutcomes, pair
from seer_ray.analysis.racing import Decision, decide
from seer_ray.config.options import RacingConfig
from seer_ray.driver.session import Session
from seer_ray.sweeps.points import Point


class Race:
    """Looks at the committed rows.

    Args:
        settings: Margin and error rates.
        points: All of the sweep, as the error rates are shared by all of them.
        sessions: Of all points that can be run, also those that were finished before.
        size: Problems of a round.
        stopped: Points that were stopped in earlier sessions.
    """

    def __init__(
        self,
        settings: RacingConfig,
        points: Sequence[Point],
        sessions: Sequence[Session],
        size: int,
        stopped: Collection[str] = (),
    ) -> None:
        self._sessions = {session.name: session for session in sessions}
        self._stopped = set(stopped)
        self._rivals: dict[str, list[str]] = {}
        """Baseline -> points that are compared with it."""
        for point in points:
            if point.baseline not in ("", point.slug):
                self._rivals.setdefault(point.baseline, []).append(point.slug)
        # Every point of the sweep has the same part of alpha, whenever it is looked at.
        level = settings.alpha / max(1, sum(map(len, self._rivals.values())))
        self._settings, self._size = replace(settings, alpha=level), size
        self._whole = dict.fromkeys(self._sessions, 0)
        """Problems, from the first, of which all rows are committed, up to the end of a round."""
        self._judged = dict.fromkeys(self._sessions, 0)

    def run(self) -> dict[str, Decision | None]:
        """Called often. The points that it stops now; a baseline with None, when nothing else goes on."""
        for session in self._sessions.values():
            self._whole[session.name] = self._count(session)
        found: dict[str, Decision | None] = {}
        for baseline, rivals in self._rivals.items():
            if baseline not in self._sessions:
                continue
            for slug in rivals:
                if slug in self._sessions and (decision := self._look(baseline, slug)):
                    found[slug] = decision
            over = self._stopped.intersection(rivals) and not any(map(self._goes_on, rivals))
            if over and self._stop(baseline):
                found[baseline] = None
        return found

    def _look(self, baseline: str, slug: str) -> Decision | None:
        """At the rounds that have ended since the last look."""
        whole = min(self._whole[baseline], self._whole[slug])
        if whole == self._judged[slug] or not self._open(slug):
            return None
        problems = [problem.id for problem in self._sessions[slug].problems]
        both = align({name: self._sessions[name].folder.read(COLUMNS) for name in (baseline, slug)})
        pairs = pair(both[baseline], both[slug])
        while self._judged[slug] < whole:
            self._judged[slug] = min(whole, self._judged[slug] + self._size)
            seen = _only(pairs, problems[: self._judged[slug]])
            decision = decide({slug: seen}, self._settings)[slug]
            if decision.stop and self._stop(slug):
                return decision
        return None

    def _count(self, session: Session) -> int:
        """Where the last round ends that is whole."""
        committed, count = session.folder.committed(), self._whole[session.name]
        while round := session.problems[count : count + self._size]:
            samples = session.config.samples
            if not all((p.id, number) in committed for p in round for number in range(p.samples(samples))):
                break
            count += len(round)
        return count

    def _goes_on(self, slug: str) -> bool:
        """Whether a point may need all of its baseline: it is not stopped, and has not failed."""
        session = self._sessions.get(slug)
        failed = session is None or (session.queue is not None and session.queue.failure is not None)
        return slug not in self._stopped and not failed

    def _open(self, slug: str) -> bool:
        queue = self._sessions[slug].queue
        return slug not in self._stopped and queue is not None and bool(queue.queued)

    def _stop(self, slug: str) -> bool:
        """Whether there was something to stop."""
        if not self._open(slug):
            return False
        queue = self._sessions[slug].queue
        assert queue is not None
        queue.stop()
        self._stopped.add(slug)
        return True


def _only(pairs: PairedOutcomes, problems: Collection[str]) -> PairedOutcomes:
    """As if the other problems were not complete yet."""
    wanted = set(problems)
    return replace(
        pairs, complete=pairs.complete & np.array([problem in wanted for problem in pairs.problems], bool)
    )
