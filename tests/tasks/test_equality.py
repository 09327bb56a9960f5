"""Right and wrong answers by kind; what cannot be read is never right."""

import json
from pathlib import Path

import pytest

from seer_ray.config.options import TaskConfig
from seer_ray.tasks.equality import same_answer
from seer_ray.tasks.grading import grade

FIXTURES = Path(__file__).parents[1] / "fixtures"


def table(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]


PAIRS = table("grading_pairs.jsonl")


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["case"] for pair in PAIRS])
def test_pairs_that_a_careful_person_graded(pair):
    assert grade(TaskConfig(), pair["completion"], pair["reference"]).correct is pair["correct"]


@pytest.mark.parametrize(
    "row", table("answers.jsonl"), ids=lambda row: f"{row['kind']}: {row['reference']} | {row['answer']}"
)
def test_an_answer(row):
    assert same_answer(row["reference"], row["answer"]) is row["correct"]


@pytest.mark.parametrize(
    "row", table("statements.jsonl"), ids=lambda row: f"{row['completion']} | {row['reference']}"
)
def test_an_answer_without_a_box(row):
    assert grade(TaskConfig(), row["completion"], row["reference"]).correct is row["correct"]


@pytest.mark.parametrize(
    "answer",
    [
        "5 " + "apples " * 100 + "7",
        "5 apples " * 100,
        r"\pm 1" * 14,
        "7" * 20_000,
        "0." + "37" * 5000 + "...",
        "√" * 500,
    ],
    ids=["words", "units", "signs", "digits", "decimals", "roots"],
)
def test_an_answer_that_goes_on_and_on_is_wrong_and_no_burden(answer):
    assert same_answer("5", answer) is False
