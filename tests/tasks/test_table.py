"""Problems on disk are those that were put there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seer_ray.tasks import table
from seer_ray.tasks.asked import Asked
from seer_ray.tasks.documents import Document
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.sources import WrittenFloat
from seer_ray.tasks.table import BLOCK, ProblemTable, Survey

MANY = 2 * BLOCK + 7


def made(number: int) -> Problem:
    message = {"role": "user", "content": f"\ud800 {number}?"}
    asked = Asked({"temperature": WrittenFloat(0.5, "0.50")}, samples=3) if number % 3 == 0 else Asked()
    document = Document(0, 1, 2) if number % 5 == 0 else None
    return Problem(f"p{number}", (message,), str(number), asked=asked, document=document, raw=None)


def test_a_table_is_a_sequence_of_its_problems() -> None:
    table, problems = ProblemTable(), [made(number) for number in range(MANY)]
    for problem in problems:
        table.append(problem)
    assert list(table) == problems and table == problems and table != problems[1:]
    assert (len(table), table[0], table[-1], table[BLOCK]) == (
        MANY,
        problems[0],
        problems[-1],
        problems[BLOCK],
    )
    assert table[BLOCK - 2 : BLOCK + 3] == problems[BLOCK - 2 : BLOCK + 3] and table[MANY:] == []
    assert str(table[0].asked.body["temperature"].text) == "0.50"
    two = zip(iter(table), iter(table), strict=True)
    assert all(one == other for one, other in two), "several may read at a time"
    table.append(made(MANY))
    assert table[-1].id == f"p{MANY}"


def test_a_choice_of_a_table_is_in_its_own_order() -> None:
    table = ProblemTable()
    for number in range(10):
        table.append(made(number))
    some = table.chosen([7, 0, 5])
    assert [problem.id for problem in some] == ["p7", "p0", "p5"] and some[1:] == [made(0), made(5)]
    assert Survey.of(some).digest == Survey.of([made(7), made(0), made(5)]).digest
    assert Survey.of(table).digest == Survey.of([made(number) for number in range(10)]).digest
    assert (some.survey.rows(2), some.survey.own_samples) == (2 + 3 + 2, ("p0", 3))


def test_problems_are_found_by_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(key: Callable[[str], int]) -> list[dict[str, int]]:
        monkeypatch.setattr(table, "_key", key)
        whole = ProblemTable.of([made(number) for number in range(100)])
        some = whole.chosen([7, 0, 5])
        ids = ["p99", "p5", "no such", "p7"]
        return [whole.places(ids), some.places(ids), whole.places([])]

    right = [{"p99": 99, "p5": 5, "p7": 7}, {"p5": 2, "p7": 0}, {}]
    assert found(table._key) == right
    # Also where two ids have the same hash.
    assert found(len) == right


def test_the_digest_holds_where_the_document_stands() -> None:
    message = {"role": "user", "content": "a a?"}
    one, other, none = (
        Survey.of([Problem("p", (message,), "a", document=place)]).digest
        for place in (Document(0, 0, 1), Document(0, 2, 3), None)
    )
    assert len({one, other, none}) == 3
