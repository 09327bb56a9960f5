"""The samples of each problem in steps: later ones are held back until the earlier ones have not decided it.

A decision rests on the first so many samples of one problem, all of them, and on nothing else: so it is the
same whatever the pace of the workers and whatever was killed in between, and a resumed run finds it again in
the committed rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from seer_ray.analysis.sequential import Saved, decided
from seer_ray.config.options import SequentialConfig
from seer_ray.engine.request import Request

COLUMNS = ("problem_id", "sample", "extracted_answer", "error", "completion_tokens")
"""That are read of a row."""


class SequentialSamples:
    """Which samples are wanted.

    Args:
        settings: Error rate, and samples between two looks.
        samples: Of a problem, at most.
    """

    def __init__(self, settings: SequentialConfig, samples: int) -> None:
        self._settings, self._samples = settings, samples
        self._answers: dict[str, dict[int, str | None]] = defaultdict(dict)
        self._lengths: dict[str, int] = defaultdict(int)
        self._wanted: dict[str, int] = {}
        """Samples of a problem that are wanted so far, from the first."""
        self._decided: set[str] = set()
        self._held: dict[str, list[Request]] = defaultdict(list)
        self.held = 0
        """Requests that wait for a decision."""
        self.saved = Saved(0, 0, 0)
        """By the decisions so far."""
        self._saves: dict[str, tuple[int, int]] = {}
        self._forgotten: list[tuple[str, int]] = []

    def hold(self, requests: Iterable[Request]) -> list[Request]:
        """Keeps those that may not be needed; the others."""
        now = []
        for request in requests:
            if request.sample < self._looked(request.problem):
                now.append(request)
            elif request.problem not in self._decided:
                self._held[request.problem].append(request)
                self.held += 1
        return now

    def add(self, row: Mapping[str, Any]) -> list[Request]:
        """A row that is graded, now or in an earlier session: what is to be sampled because of it."""
        problem, answers = row["problem_id"], self._answers[row["problem_id"]]
        answers[row["sample"]] = None if row["error"] is not None else row["extracted_answer"]
        self._lengths[problem] += row["completion_tokens"]
        wanted = self._looked(problem)
        while wanted < self._samples and all(number in answers for number in range(wanted)):
            if decided([answers[number] for number in range(wanted)], self._samples, self._settings.error):
                self._decided.add(problem)
                if dropped := self._release(problem):
                    self._forgotten.append((problem, len(dropped)))
                break
            wanted = min(wanted + self._settings.every, self._samples)
        self._wanted[problem] = wanted
        if problem in self._decided:
            self._count(problem)
        return self.hold(self._release(problem))

    def _release(self, problem: str) -> list[Request]:
        """What is held back of a problem."""
        requests = self._held.pop(problem, [])
        self.held -= len(requests)
        return requests

    def _looked(self, problem: str) -> int:
        return self._wanted.get(problem, min(self._settings.every, self._samples))

    def forgotten(self) -> list[tuple[str, int]]:
        """Problems that were decided since the last call, and how many requests of each were held back."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _count(self, problem: str) -> None:
        """What the decision of a problem saves, by the rows that it has by now."""
        there = len(self._answers[problem])
        samples = max(0, self._samples - there)
        before = self._saves.get(problem, (0, 0))
        now = (samples, samples * self._lengths[problem] // there) if samples else (0, 0)
        self._saves[problem] = now
        problems = (now[0] > 0) - (before[0] > 0)
        saved = self.saved
        self.saved = Saved(
            saved.problems + problems,
            saved.samples + now[0] - before[0],
            saved.tokens + now[1] - before[1],
        )
