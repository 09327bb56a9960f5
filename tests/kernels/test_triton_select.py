"""The Triton kernels of ``select``, for tables that fit in registers and wider ones, in the interpreter."""

from __future__ import annotations

import pytest
from interpreter import need_interpreter

need_interpreter()

import triton_checks as checks  # noqa: E402

from seer_ray.kernels import triton_select  # noqa: E402


@pytest.fixture(params=["narrow", "wide"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with both kernels; the wide one in pieces of 32 blocks."""
    if request.param == "wide":
        monkeypatch.setattr(triton_select, "NARROW", 32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy: -inf minus -inf, which is masked
@pytest.mark.parametrize(("seed", "width"), [(0, 5), (1, 33), (2, 100)])
def test_definition(seed: int, width: int) -> None:
    checks.select_is_its_definition("cpu", seed, width)


def test_forced_blocks_against_infinite_scores() -> None:
    checks.select_forces_against_infinite_scores("cpu", 70)


def test_odd_scores_share_nothing() -> None:
    checks.select_shares_nothing_where_scores_are_odd("cpu", 40)


def test_a_row_does_not_depend_on_its_mates() -> None:
    checks.select_rows_stand_alone("cpu", 50, rows=2)
