"""The benchmark of the driver, small: the real driver, workers that die, a stop in the middle."""

from __future__ import annotations

import json

import pytest

from seer_ray.bench.simulation import Fleet
from seer_ray.jobs import bench

SMALL = ["driver", "--workers", "3", "--slots", "4", "--rows", "120", "--median", "40", "--sigma", "0.8"]


def test_nothing_is_lost_or_doubled_when_workers_die_and_the_driver_stops(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = ["--death-every", "12", "--restart", "3", "--spot", "0.4", "--spot-every", "20", "--stop", "0.5"]
    assert bench.main([*SMALL, *faults, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["driver"]
    (row,) = found["rows"]
    assert (row["lost"], row["doubled"], row["requests"]) == (0, 0, 120)
    assert row["deaths"] > 0 and row["resumed_first_s"] > 0
    assert row["core"] > 0 and 0 < row["core_all"] < 1 and 0 <= row["waited"] < 1 and 0 < row["tail_idle"] < 1
    assert row["of_undisturbed"] > 0 and row["ms_per_request"] > 0 and row["peak_mib"] > 0
    assert found["settings"]["median"] == 40
    assert "ms each" in err and "doubled" in err


def test_options_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["driver", "--rows", "3", "--samples", "4"]) == 2
    assert "--rows 3: must be 4 (--samples) at least" in capsys.readouterr().err


def test_lengths_follow_the_distribution() -> None:
    """They are a request's own, whoever decodes it."""
    from fake_engine import make_request

    fleet = Fleet(1, median=1000.0, sigma=1.0, most_tokens=4000)
    requests = [make_request(f"p{n}", length=1 << 20) for n in range(2000)]
    lengths = sorted(map(fleet.length, requests))
    assert lengths == sorted(map(fleet.length, reversed(requests)))
    assert 900 < lengths[1000] < 1100 and lengths[-1] == 4000 > lengths[1600] > 2000
