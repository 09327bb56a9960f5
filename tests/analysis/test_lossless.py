"""A setting whose tokens are dense decoding's by how they come about: nothing of it is an estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results.sample import row

from seer_ray.analysis.comparison import Comparison, against, compare
from seer_ray.analysis.recommend import Answer, Keeps
from seer_ray.config.options import RunConfig
from seer_ray.report.html import report_of
from seer_ray.results.folder import RunFolder

PROBLEMS = 6


def make(folder: Path, name: str, selector: str, speculate: str = "0", other: int | None = None) -> str:
    """A run of which ``other`` problem's tokens, and the grade of it, are its own."""
    config = RunConfig(name=name)
    config.selector.name, config.engine.speculate = selector, speculate
    config.results.folder, config.tracking.enabled = str(folder), False
    drafts: dict[str, Any] = {}
    if speculate != "0":
        drafts = {"drafted": [3, 3], "accepted": [3, 2], "draft_kv": 10}
    with RunFolder.open(str(folder / name), config) as run:
        run.commit(
            [
                row(
                    f"p{number}", 0, correct=number % 3 > 0 and number != other,
                    token_ids=[number, 7, 8 + (number == other)], completion_tokens=3, seed=0, **drafts,
                )
                for number in range(PROBLEMS)
            ]
        )  # fmt: skip
    return str(folder / name)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("runs")
    return compare(
        [
            make(folder, "dense", "dense"),
            make(folder, "drafted", "seer", "4"),
            make(folder, "sparse", "seer", other=1),
            make(folder, "rounded", "seer", "6", other=4),
        ]
    )


def test_its_difference_is_zero_and_no_estimate(found: Comparison) -> None:
    (recommendation,) = found.recommendations
    ours, *_ = [one for one in recommendation.assessments if "speculate=4" in one.name]
    change = ours.difference
    assert (change.value, change.stderr, change.low, change.high, change.exact) == (0, 0, 0, 0, True)
    assert ours.keeps is Keeps.YES and "the tokens of dense in all 6 pairs" in ours.why
    assert "0.0 points (exactly: the same tokens)" in ours.sentence
    assert not any("only 6 problems" in caution for caution in ours.cautions)
    assert recommendation.answer is Answer.TAKE and recommendation.choice == ours.name


def test_others_are_estimated_as_before(found: Comparison) -> None:
    """One that draws level by chance, and one whose chains rounding made others."""
    (recommendation,) = found.recommendations
    sparse, rounded = (
        next(one for one in recommendation.assessments if ok(one.name))
        for ok in (lambda name: "speculate" not in name, lambda name: "speculate=6" in name)
    )
    for one in (sparse, rounded):
        assert not one.difference.exact and one.difference.high > one.difference.low
    assert any("1 chains of" in caution and "engine.exact=true" in caution for caution in rounded.cautions)
    assert not any("rounding" in caution for caution in sparse.cautions)


def test_the_report_says_so(found: Comparison) -> None:
    page = report_of(found, "lossless").html
    assert "exactly: the same tokens" in page and "Drafts accepted" in page


def test_equal_chains_of_sparse_steps_prove_nothing(tmp_path: Path) -> None:
    """The next ones may differ."""
    found = against([make(tmp_path, "dense", "dense"), make(tmp_path, "sparse", "seer")])
    (one,) = found.assessments
    assert not one.difference.exact and one.difference.high > 0 and np.isfinite(one.difference.high)
