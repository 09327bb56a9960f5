"""What an engine has done since its start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy

from seer_ray.engine.flight import Mark
from seer_ray.engine.runner import Runner
from seer_ray.engine.scheduler import Scheduler
from seer_ray.engine.speculation.counts import EngineCounts


class Totals:
    """Counters that go on over runners, each of which counts for itself."""

    def __init__(self) -> None:
        self.counts = {
            "steps": 0,
            "new_tokens": 0,
            "prefill_tokens": 0,
            "prefill_s": 0.0,
            "step_s": 0.0,
            "decode_s": 0.0,
            "decode_bytes": 0,
        }
        self.drafts = EngineCounts()
        self._gone = {
            "preemptions": 0,
            "captured_steps": 0,
            "eager_steps": 0,
            "prefill_attended": 0,
            "prefill_available": 0,
        }
        """Of runners and schedulers that are gone."""
        self._prefills: deque[tuple[Mark, Mark]] = deque()
        """Passes over prompts, from when to when, that are not counted yet."""

    def without(self, work: Callable[[], None]) -> None:
        """Does something of which nothing is counted."""
        counts, drafts = dict(self.counts), copy(self.drafts)
        work()
        self.counts, self.drafts = counts, drafts
        self._prefills.clear()

    def prefilled(self, begun: Mark, ended: Mark) -> None:
        """A pass over prompts that was launched."""
        self._prefills.append((begun, ended))

    def time_prefills(self) -> None:
        """Counts those passes over prompts that the device is done with."""
        while self._prefills and self._prefills[0][1].passed:
            begun, ended = self._prefills.popleft()
            self.counts["prefill_s"] += ended.since(begun)

    def leave(self, runner: Runner, scheduler: Scheduler) -> None:
        """They are to go."""
        self._gone = self._kept(runner, scheduler)

    def stats(self, runner: Runner, scheduler: Scheduler, copy_rate: float | None) -> dict[str, float]:
        """Counters since the start, and what is in use now.

        ``decode_s`` is the device's time for decode steps; ``decode_bytes`` what they could not do without
        reading (weights, selected K and V, block summaries; on all ranks); ``decode_floor_s`` the time of
        that at the device's copy rate (all ranks at once), known after a ``warm_up``:
        ``decode_floor_s / decode_s`` says how near the steps are to what the memory can do.
        ``prefill_s`` is its time for passes over prompts. ``prefill_attended`` and ``prefill_available``
        count pairs of a token and a key, in the layers that read prompts sparsely. With speculation what is
        in ``EngineCounts``, too.
        """
        self.time_prefills()
        floor = {"decode_floor_s": self.counts["decode_bytes"] / copy_rate} if copy_rate else {}
        return {
            **self.counts,
            **floor,
            **self._kept(runner, scheduler),
            **self.drafts.stats(),
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "pages_used": sum(pool.used for pool in scheduler.pools),
            "pages": sum(pool.capacity for pool in scheduler.pools),
        }

    def _kept(self, runner: Runner, scheduler: Scheduler) -> dict[str, int]:
        now = {
            "preemptions": scheduler.preemptions,
            "captured_steps": runner.steps["captured"],
            "eager_steps": runner.steps["eager"],
            "prefill_attended": runner.prompt_reads.attended,
            "prefill_available": runner.prompt_reads.available,
        }
        return {name: before + now[name] for name, before in self._gone.items()}
