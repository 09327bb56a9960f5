"""How the points of a sweep stand: for its index, its status, its reporter and its tracking."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seer_ray.analysis.racing import Decision
from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.config.options import SweepConfig
from seer_ray.driver.frame import Frame
from seer_ray.driver.monitor import UPDATE
from seer_ray.driver.session import Session
from seer_ray.results.sweep import SweepFolder
from seer_ray.status.live import LiveStats, PointLive, SweepLive
from seer_ray.sweeps.points import Point

if TYPE_CHECKING:
    from seer_ray.sweeps.plans import Plans


class Board:
    """Keeps ``live`` and the index. ``write`` may be called from any thread."""

    def __init__(self, frame: Frame[SweepConfig, SweepFolder], points: Sequence[Point]) -> None:
        self.live = SweepLive()
        self.points = list(points)
        self._frame, self._folder, self._reporter = frame, frame.folder, frame.reporter
        frame.status.say = lambda: dataclasses.asdict(self.live)
        before = {entry["slug"]: entry for entry in frame.folder.points}
        self._entries = {point.slug: self._entry(point, before.get(point.slug, {})) for point in points}
        self._sessions: dict[str, Session] = {}
        self._mutex = threading.Lock()
        self._began = time.monotonic()
        self._shown = self._tracked = 0.0

    @staticmethod
    def _entry(point: Point, before: dict[str, Any]) -> dict[str, Any]:
        kept = before.get("state") in ("done", "stopped early")
        return {
            "slug": point.slug,
            "overrides": point.changes,
            "baseline": point.baseline,
            "plan": before.get("plan"),
            "state": before["state"] if kept else "waiting",
            "error": before.get("error") if kept else None,
            "decision": before.get("decision"),
            "rows": before.get("rows", 0),
            "total": before.get("total", 0),
        }

    def start(self) -> None:
        self._refresh()
        self._reporter.start(self.live)

    def phase(self, phase: str) -> None:
        """What goes on now, in two or three words."""
        self.live.phase = phase
        self._show()

    # -- points --------------------------------------------------------------------------------------

    def resolved(self, plans: Plans) -> None:
        """Which points there are to be run, and what they come to in the model's layers."""
        self.points = [point for point in self.points if point.slug not in plans.same]
        with self._mutex:
            for slug in plans.same:
                del self._entries[slug]
            for slug, code in plans.codes.items():
                self._entries[slug]["plan"] = code
        self._try_to_save()

    def follow(self, session: Session) -> None:
        """A point has its folder."""
        with self._mutex:
            self._sessions[session.name] = session
            entry = self._entries[session.name]
            entry["total"], entry["rows"] = session.monitor.live.total, session.monitor.live.done
            if session.concluded:
                reason = session.failure
                entry["state"], entry["error"] = "failed" if reason else "done", reason

    def stopped(self, slug: str) -> bool:
        """Whether racing has stopped it, now or in an earlier session."""
        return self._entries[slug]["state"] == "stopped early"

    def reopen(self, slug: str) -> None:
        """It goes on, whatever racing has said before."""
        entry = self._entries[slug]
        entry["state"], entry["error"], entry["decision"] = "waiting", None, None

    def stop(self, slug: str, why: str, decision: Decision | None) -> None:
        """Racing stops it."""
        entry = self._entries[slug]
        entry["error"], entry["decision"] = why, dataclasses.asdict(decision) if decision else None

    def failed(self, slug: str, reason: str) -> None:
        self._entries[slug]["state"], self._entries[slug]["error"] = "failed", reason
        self._try_to_save()

    def settled(self, slug: str) -> None:
        """Its last row is committed."""
        session = self._sessions[slug]
        entry = self._entries[slug]
        entry["state"] = session.frame.state
        entry["rows"] = session.monitor.live.done
        if session.frame.state == "done":
            entry["error"] = entry["decision"] = None
        self._try_to_save()

    @property
    def failures(self) -> list[str]:
        return [slug for slug, entry in self._entries.items() if entry["state"] == "failed"]

    # -- to disk -------------------------------------------------------------------------------------

    def save(self) -> None:
        """Brings the index up to date. Raises OSError."""
        with self._mutex:
            for slug, session in self._sessions.items():
                entry, live = self._entries[slug], session.monitor.live
                entry["rows"] = live.done
                if session.frame.state is not None:
                    entry["state"] = session.frame.state
                elif (
                    session.queue is not None and entry["state"] == "waiting" and (live.done or live.running)
                ):
                    entry["state"] = "running"
            self._folder.write_points([dict(entry) for entry in self._entries.values()])

    def _try_to_save(self) -> None:
        """What cannot be written now is written with the next heartbeat."""
        with contextlib.suppress(OSError):
            self.save()

    def write(self) -> None:
        """Brings all ``status.json`` up to date, and the index. Raises OSError."""
        for session in list(self._sessions.values()):
            if session.queue is not None and session.frame.state is None:
                session.frame.status.write()
        self.save()
        self._frame.status.write()

    def save_all(self) -> None:
        """Before the last word."""
        self._refresh()
        self._try_to_save()

    # -- to people -----------------------------------------------------------------------------------

    def tick(self, dispatcher: Dispatcher) -> None:
        """Called often; shows it now and then."""
        now = time.monotonic()
        if now - self._shown < UPDATE:
            return
        self._shown = now
        self.live.workers_ready, self.live.workers_wanted = dispatcher.pool.ready, dispatcher.pool.size
        if dispatcher.pool.ready:
            self.live.phase = "decoding"
        self._show()

    def no_workers(self) -> None:
        """They are gone."""
        self.live.workers_ready = self.live.workers_wanted = 0

    def due(self, interval: float) -> bool:
        """Whether so many seconds have gone by since this was last true."""
        now = time.monotonic()
        if now - self._tracked < interval:
            return False
        self._tracked = now
        return True

    def metrics(self) -> dict[str, float | None]:
        """For MLflow: of the sweep as a whole."""
        states = [entry["state"] for entry in self._entries.values()]
        return {
            "rows/total": self.live.done,
            "live/workers": self.live.workers_ready,
            "sweep/points": len(states),
            "sweep/points_done": states.count("done") + states.count("stopped early"),
            "sweep/points_failed": states.count("failed"),
        }

    def saved(self) -> str | None:
        """What racing saved, in a sentence; None: nothing."""
        rows = tokens = 0
        stopped = [slug for slug, entry in self._entries.items() if entry["state"] == "stopped early"]
        for slug in stopped:
            if session := self._sessions.get(slug):
                left = session.monitor.live.total - session.monitor.live.done
                totals = session.monitor.totals
                rows += left
                tokens += left * totals.tokens // max(1, totals.rows)
        if not rows:
            return None
        points = f"{len(stopped)} point{'' if len(stopped) == 1 else 's'}"
        return f"racing stopped {points} early and saved {rows:,} chains, about {tokens:,} tokens"

    def _show(self) -> None:
        self._refresh()
        self._reporter.update(self.live)

    def _refresh(self) -> None:
        self.live.elapsed_s = time.monotonic() - self._began
        self.live.points = [self._point(slug, entry) for slug, entry in self._entries.items()]
        self.live.eta_s = self._eta()

    def _point(self, slug: str, entry: dict[str, Any]) -> PointLive:
        session = self._sessions.get(slug)
        if session is None:
            live = LiveStats(total=entry["total"], done=entry["rows"])
            return PointLive(slug, entry["state"], live, error=entry["error"])
        state = session.frame.state or ("running" if session.monitor.live.running else entry["state"])
        return PointLive(slug, state, session.monitor.live, session.monitor.rate, entry["error"])

    def _eta(self) -> float | None:
        """Of what is left, at the points' own lengths and rates, or at those of all where they have none."""
        sessions = [s for s in self._sessions.values() if s.queue is not None and s.frame.state is None]
        all_rows = sum(s.monitor.totals.rows for s in self._sessions.values())
        all_tokens = sum(s.monitor.totals.tokens for s in self._sessions.values())
        rates = [rate for s in self._sessions.values() if (rate := s.monitor.rate)]
        if not all_rows or not rates:
            return None
        seconds = 0.0
        for session in sessions:
            assert session.queue is not None
            totals = session.monitor.totals
            length = totals.tokens / totals.rows if totals.rows else all_tokens / all_rows
            left = session.queue.unfinished * length - session.queue.unfinished_tokens
            seconds += max(0.0, left) / (session.monitor.rate or sum(rates) / len(rates))
        return seconds
