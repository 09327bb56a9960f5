"""Racing in a sweep: between rounds, points about which the answer is known are stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seer_ray.analysis.outcomes import COLUMNS, align
from seer_ray.analysis.paired import pair
from seer_ray.analysis.racing import Decision, decide
from seer_ray.config import RacingConfig
from seer_ray.jobs.session import Session
from seer_ray.points import Point


class Race:
    """Looks at the committed rows after each round.

    Args:
        settings: Margin and error rates.
        points: All of the sweep, as the error rates are shared by all of them.
        sessions: Those that are decoded now.
    """

    def __init__(self, settings: RacingConfig, points: Sequence[Point], sessions: Sequence[Session]) -> None:
        self._sessions = {session.name: session for session in sessions}
        self._baselines = {point.slug: point.baseline for point in points}
        self._settings = settings
        self._rivals = sum(baseline not in ("", slug) for slug, baseline in self._baselines.items())
        self._rounds = self._left()

    def run(self) -> dict[str, Decision | None]:
        """Called often. The points that it stops now; a baseline with None, when nothing else goes on."""
        left = self._left()
        if left >= self._rounds:
            return {}
        self._rounds = left
        stopped: dict[str, Decision | None] = {}
        for baseline in set(self._baselines.values()) & set(self._sessions):
            stopped |= self._race(baseline)
        return stopped

    def _race(self, baseline: str) -> dict[str, Decision | None]:
        rivals = [
            slug for slug in self._sessions if slug != baseline and self._baselines.get(slug) == baseline
        ]
        tables = {
            slug: self._sessions[slug].folder.read(COLUMNS)
            for slug in [baseline, *rivals]
            if self._sessions[slug].monitor.live.done
        }
        if baseline not in tables or len(tables) < 2:
            return {}
        outcomes = align(tables)
        pairs = {slug: pair(outcomes[baseline], outcomes[slug]) for slug in tables if slug != baseline}
        # Every point of the sweep has the same share of alpha, also those that are not looked at here.
        settings = replace(self._settings, alpha=self._settings.alpha * len(pairs) / self._rivals)
        stopped: dict[str, Decision | None] = {}
        for slug, decision in decide(pairs, settings).items():
            if decision.stop and self._stop(slug):
                stopped[slug] = decision
        if stopped and not any(self._open(slug) for slug in rivals) and self._stop(baseline):
            stopped[baseline] = None
        return stopped

    def _left(self) -> int:
        """Rounds that some point has not begun: one less means that a round has ended for all."""
        return max((s.lane.rounds_left for s in self._sessions.values() if s.lane), default=0)

    def _open(self, slug: str) -> bool:
        lane = self._sessions[slug].lane
        return lane is not None and bool(lane.queued)

    def _stop(self, slug: str) -> bool:
        """Whether there was something to stop."""
        if not self._open(slug):
            return False
        lane = self._sessions[slug].lane
        assert lane is not None
        lane.stop()
        return True
