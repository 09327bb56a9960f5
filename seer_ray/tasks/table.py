"""The problems of a task on disk: as many as there are, in little memory."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import IO, Any, overload

import numpy as np

from seer_ray.tasks.asked import USUAL
from seer_ray.tasks.problem import Problem

BLOCK = 512
"""Problems that are read at once, one after the other."""
_ENCODE = json.JSONEncoder(sort_keys=True).encode


class Survey:
    """What is to be known of all problems, whatever their number."""

    def __init__(self) -> None:
        self.own_samples: tuple[str, int] | None = None
        """The first problem that asks for a number of samples of its own, and that number."""
        self.batch = False
        """There are lines of a batch."""
        self.failed = 0
        """Problems that cannot be asked."""
        self._content = hashlib.sha256()
        self._usual = self._own = 0

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Survey:
        """Of a table, as it knows it; of others by a look at each."""
        if isinstance(problems, ProblemTable):
            return problems.survey
        survey = cls()
        for problem in problems:
            survey.add(problem)
        return survey

    def add(self, problem: Problem) -> None:
        """The next one."""
        said: list[Any] = [problem.id, problem.messages, problem.answer]
        # Folders of before there were any of these go on.
        said += [problem.inputs] if problem.inputs is not None else []
        if (document := problem.document) is not None:
            said.append([document.message, document.start, document.end])
        asked = problem.asked
        if problem.raw is not None or (asked is not USUAL and asked.deciding):
            said += [asked.deciding, problem.raw]
        self._content.update(_ENCODE(said).encode())
        self.failed += problem.error is not None
        self.batch = self.batch or bool(asked.url)
        if asked.samples:
            self._own += asked.samples
            self.own_samples = self.own_samples or (problem.id, asked.samples)
        else:
            self._usual += 1

    @property
    def digest(self) -> str:
        """Of everything that is asked, its answers and what is kept of the rows, 16 hex digits."""
        return self._content.hexdigest()[:16]

    def rows(self, samples: int) -> int:
        """Completions of all of them.

        Args:
            samples: Of those that do not ask for a number of their own.
        """
        return self._own + self._usual * samples


class ProblemTable(Sequence[Problem]):
    """A sequence of problems in a file that is gone with the process: 16 bytes of memory for each."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="seer-ray-problems-")  # noqa: SIM115
        self._ends = array("Q", [0])
        self._keys = array("Q")
        """Hashes of the ids."""
        self._order: Sequence[int] | None = None
        self._survey = Survey()

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ProblemTable:
        """The problems as a table: of a table itself."""
        if isinstance(problems, ProblemTable):
            return problems
        table = cls()
        for problem in problems:
            table.append(problem)
        return table

    def append(self, problem: Problem) -> None:
        """One more, at the end."""
        asked = None if problem.asked is USUAL or problem.asked == USUAL else problem.asked
        said = (
            problem.id,
            problem.messages,
            problem.answer,
            problem.error,
            problem.inputs,
            asked,
            problem.raw,
            problem.document,
            problem.where,
        )
        self._ends.append(self._ends[-1] + self._file.write(pickle.dumps(said, 5)))
        self._keys.append(_key(problem.id))
        self._survey.add(problem)

    @property
    def ambiguous(self) -> bool:
        """Whether the hashes of two ids are equal; different ones are of different ids."""
        return len(np.unique(np.frombuffer(self._keys, np.uint64))) < len(self._keys)

    def places(self, ids: Collection[str]) -> dict[str, int]:
        """Where the problems of some ids stand. What is none of them is left out."""
        if self.ambiguous:
            wanted = set(ids)
            return {problem.id: place for place, problem in enumerate(self) if problem.id in wanted}
        keys = np.frombuffer(self._keys, np.uint64)
        keys = keys if self._order is None else keys[np.asarray(self._order, np.int64)]
        order = np.argsort(keys)
        wanted_keys = np.fromiter(map(_key, ids), np.uint64, len(ids))
        found = np.minimum(np.searchsorted(keys, wanted_keys, sorter=order), len(keys) - 1)
        rows = order[found]
        known = keys[rows] == wanted_keys
        return {id: row for id, row, there in zip(ids, rows.tolist(), known.tolist(), strict=True) if there}

    def chosen(self, order: Sequence[int]) -> ProblemTable:
        """Some of them, by their places, in another order. The file is the same."""
        view = ProblemTable.__new__(ProblemTable)
        view._file, view._ends, view._keys, view._order = self._file, self._ends, self._keys, order
        return view

    @cached_property
    def survey(self) -> Survey:
        """Of those that are in it."""
        if self._order is None:
            return self._survey
        survey = Survey()
        for problem in self:
            survey.add(problem)
        return survey

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._order is None else len(self._order)

    @overload
    def __getitem__(self, place: int) -> Problem: ...

    @overload
    def __getitem__(self, place: slice) -> list[Problem]: ...

    def __getitem__(self, place: int | slice) -> Problem | list[Problem]:
        places = range(len(self))[place]
        if isinstance(places, range):
            return list(self.read(places))
        return next(self.read(range(places, places + 1)))

    def __iter__(self) -> Iterator[Problem]:
        return self.read(range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]

    def read(self, places: Iterable[int]) -> Iterator[Problem]:
        """Those of some places, one after the other."""
        self._file.flush()
        if isinstance(places, range) and places.step == 1 and self._order is None:
            for start in range(places.start, places.stop, BLOCK):
                ends = self._ends[start : min(start + BLOCK, places.stop) + 1]
                data = memoryview(os.pread(self._file.fileno(), ends[-1] - ends[0], ends[0]))
                for begin, end in pairwise(ends):
                    yield _problem(data[begin - ends[0] : end - ends[0]])
            return
        for place in places:
            row = place if self._order is None else self._order[place]
            begin, end = self._ends[row], self._ends[row + 1]
            yield _problem(os.pread(self._file.fileno(), end - begin, begin))


def _key(id: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def _problem(data: bytes | memoryview) -> Problem:
    id, messages, answer, error, inputs, asked, raw, document, where = pickle.loads(data)
    return Problem(id, messages, answer, error, inputs, asked or USUAL, raw, document, where)


def _same(one: Problem, other: object) -> bool:
    return one == other
