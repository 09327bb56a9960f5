"""Committed rows as arrays, problems x samples, the same problems and samples for every setting.

A sample that is not there (not run yet, lost) is NaN in every array. It is in no numerator and no
denominator.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seer_ray.analysis.columns import Names, floats
from seer_ray.results.schema import TOKENS

Array = NDArray[np.float64]
COLUMNS = (
    "problem_id",
    "sample",
    "seed",
    "reference",
    "correct",
    "error",
    "finish_reason",
    "completion_tokens",
    "attended_kv",
    "available_kv",
)
"""What is read of a table of completions."""

CHAIN = "chain"
"""A column beside them, see ``digested``."""


def digested(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with a digest of their tokens in place of these."""
    lists, tokens = batch[TOKENS], np.asarray(batch[TOKENS].flatten(), np.int32)
    ends = np.cumsum([0, *lists.value_lengths().fill_null(0).to_pylist()]).tolist()
    digests = [
        int.from_bytes(blake2b(tokens[start:end].tobytes(), digest_size=8).digest(), "little", signed=True)
        for start, end in itertools.pairwise(ends)
    ]
    return batch.drop_columns([TOKENS]).append_column(CHAIN, pa.array(digests, pa.int64()))


class MisalignedError(ValueError):
    """Tables that cannot be put beside each other. The message is one line."""


@dataclass(frozen=True)
class Outcomes:
    """What one setting came to. Arrays are [problems, samples]; NaN or False where there is no sample."""

    name: str
    problems: tuple[str, ...]
    numbers: tuple[int, ...]
    """The sample number of each column."""
    present: NDArray[np.bool_]
    """There is a row."""
    error: NDArray[np.bool_]
    """The row has an error in place of a completion."""
    correct: Array
    """1 or 0; NaN: missing or not graded. A row with an error counts as wrong."""
    truncated: Array
    """1 or 0: cut off at the limit; NaN: no completion."""
    tokens: Array
    """Length of the completion; NaN: none."""
    attended: Array
    """KV read, in tokens, over steps, layers and heads; NaN: no completion."""
    available: Array
    """KV that dense attention would have read for the same completion."""
    seed: int | None
    """Of the noise; None: no rows."""
    chains: NDArray[np.int64] | None = None
    """A digest of each completion's tokens; None: not read."""
    decided: bool = False
    """Dense attention decided every token, whatever drafted it."""

    def of(self, problems: NDArray[np.bool_]) -> Outcomes:
        """Those of some problems, [problems]."""
        arrays: dict[str, Any] = {
            name: value[problems] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        kept = tuple(name for name, wanted in zip(self.problems, problems, strict=True) if wanted)
        return replace(self, problems=kept, **arrays)

    @property
    def missing(self) -> int:
        """Samples that other settings, or other problems of this one, have and this one has not."""
        return int((~self.present).sum())

    @property
    def errors(self) -> int:
        return int(self.error.sum())

    @property
    def ungraded(self) -> int:
        """Completions whose grade is not known."""
        return int((self.present & ~self.error & np.isnan(self.correct)).sum())

    @property
    def attended_share(self) -> float | None:
        """Attended over available KV; None: nothing was decoded."""
        available = np.nansum(self.available)
        return float(np.nansum(self.attended) / available) if available else None


def align(tables: Mapping[str, pa.Table]) -> dict[str, Outcomes]:
    """One ``Outcomes`` a table, all over the union of their problems and samples, both sorted.

    The order in which rows were committed decides nothing, not even a rounding.

    Args:
        tables: of the results schema, ``COLUMNS`` suffice, by the setting's name

    Raises:
        MisalignedError: a (problem, sample) is there twice in a table, a table mixes seeds, or two tables
            have other reference answers for one problem id, so are not about the same problems.
    """
    references: dict[str, str | None] = {}
    numbers: set[int] = set()
    for name, table in tables.items():
        for problem, reference in _references(table):
            if references.setdefault(problem, reference) != reference:
                raise MisalignedError(
                    f"{name}: problem {problem!r} has the reference {reference!r}, elsewhere "
                    f"{references[problem]!r}: not the same problems"
                )
        numbers.update(pc.unique(table["sample"]).to_pylist())
    problems = {problem: place for place, problem in enumerate(sorted(references))}
    return {name: _fill(name, table, problems, sorted(numbers)) for name, table in tables.items()}


def _references(table: pa.Table) -> list[tuple[str, str | None]]:
    """The different pairs of a problem and its reference answer, in order."""
    ids, answers = Names(whole=True), Names(whole=True)
    problems, given = (
        names.numbers(table[name].combine_chunks())
        for names, name in ((ids, "problem_id"), (answers, "reference"))
    )
    first = np.unique(np.stack([problems, given]), axis=1, return_index=True)[1]
    problem_texts, answer_texts = ids.texts, [*answers.texts, None]
    return [(problem_texts[problems[row]], answer_texts[given[row]]) for row in np.sort(first).tolist()]


def _fill(name: str, table: pa.Table, problems: dict[str, int], numbers: list[int]) -> Outcomes:
    shape, ids = (len(problems), len(numbers)), Names(whole=True)
    own = ids.numbers(table["problem_id"].combine_chunks())
    rows = np.array([problems[problem] for problem in ids.texts], int)[own]
    places = np.searchsorted(numbers, table["sample"].to_numpy())
    cells = rows * shape[1] + places
    if len(np.unique(cells)) < len(cells):
        double = int(np.flatnonzero(np.bincount(cells) > 1)[0])
        problem, number = list(problems)[double // shape[1]], numbers[double % shape[1]]
        raise MisalignedError(f"{name}: sample {number} of problem {problem!r} is there more than once")
    seeds = pc.unique(table["seed"]).to_pylist()
    if len(seeds) > 1:
        raise MisalignedError(f"{name}: rows of several seeds ({', '.join(map(str, sorted(seeds)))})")
    error = table["error"].is_valid().to_numpy()

    def spread(values: Any, blank: Any = np.nan, kind: Any = float) -> NDArray[Any]:
        array = np.full(shape, blank, kind)
        array[rows, places] = values
        return array

    def numeric(values: Any) -> NDArray[Any]:
        """Of rows that have a completion."""
        return spread(np.where(error, np.nan, np.asarray(values, float)))

    correct = floats(table["correct"])
    return Outcomes(
        name=name,
        problems=tuple(problems),
        numbers=tuple(numbers),
        present=spread(True, False, bool),
        error=spread(error, False, bool),
        correct=spread(np.where(error, 0.0, correct)),
        truncated=numeric(pc.equal(table["finish_reason"], "length").to_numpy()),
        tokens=numeric(table["completion_tokens"].to_numpy()),
        attended=numeric(table["attended_kv"].to_numpy()),
        available=numeric(table["available_kv"].to_numpy()),
        seed=seeds[0] if seeds else None,
        chains=spread(table[CHAIN].to_numpy(), 0, np.int64) if CHAIN in table.column_names else None,
    )
