"""The benchmark of the driver, small: the real driver, workers that die, a stop in the middle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from seer_ray.bench.driver import _session, write_dataset
from seer_ray.bench.simulation import Fleet, SimulatedPool, VirtualClock
from seer_ray.config.errors import JobError
from seer_ray.config.options import RunConfig
from seer_ray.jobs import bench
from seer_ray.results import lock
from seer_ray.results.folder import RunFolder
from seer_ray.status.live import NullReporter

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


def job(tmp_path: Path, folder: str) -> RunConfig:
    """Ten problems, twice."""
    config = RunConfig(name="bench", samples=2)
    config.model.name, config.task.data = "reasoner", str(tmp_path / "data.jsonl")
    config.task.grader, config.tracking.enabled, config.results.folder = "none", False, folder
    config.sampling.max_new_tokens = 4000
    write_dataset(tmp_path / "data.jsonl", 10)
    return config


def rows(folder: str) -> Counter[tuple[str, int]]:
    """How often each is there, of those that are no errors."""
    found = RunFolder.view(f"{folder}/bench").read(["problem_id", "sample", "error"]).to_pylist()
    return Counter((row["problem_id"], row["sample"]) for row in found if row["error"] is None)


EVERY = Counter((f"p{problem}", sample) for problem in range(10) for sample in range(2))


def test_a_run_that_the_breaker_ended_goes_on_when_its_workers_are_mended(tmp_path: Path) -> None:
    config, clock = job(tmp_path, str(tmp_path)), VirtualClock()
    sick = SimulatedPool(Fleet(3, slots=4, median=40.0, poison=1.0, restart=1.0), clock, 1.0)
    with pytest.raises(JobError, match=r"3 workers in a row died .* \(cluster.max_deaths=3\): simulated"):
        _session(config, sick, None)
    assert RunFolder.view(f"{tmp_path}/bench").read().num_rows == 0, "no row is made of it"
    _session(config, SimulatedPool(Fleet(3, slots=4, median=40.0), clock, 1.0), None)
    assert rows(str(tmp_path)) == EVERY


def test_storage_that_says_503_for_ten_minutes_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the simulation's clock. Rows wait on this machine, and go there when it is back."""
    for name, value in (("SETTLE", 0.0), ("BEAT", 1000.0)):
        monkeypatch.setattr(lock, name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    clock, refused, notes = VirtualClock(), Counter[str](), list[str]()
    monkeypatch.setattr(NullReporter, "note", lambda self, message: notes.append(message))
    for name in ("open_output_stream", "move"):
        real = getattr(pafs.FSSpecHandler, name)

        def ask(handler: object, *arguments: object, real: object = real, name: str = name) -> object:
            if 20.0 <= clock.now < 620.0:
                refused[name] += 1
                raise OSError("the store says 503 (Slow Down)")
            return real(handler, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(pafs.FSSpecHandler, name, ask)
    folder = f"fsspec+memory://{tmp_path.name}"
    config = job(tmp_path, folder)
    config.results.part_rows, config.results.part_interval = 2, 5.0
    _session(config, SimulatedPool(Fleet(1, slots=1, median=2000.0, sigma=0.3), clock, 1.0), None)
    assert clock.now > 620.0 and refused and rows(folder) == EVERY
    away = [note for note in notes if "503 (Slow Down)" in note]
    assert len(away) == 1 and "can be written again, after" in notes[notes.index(away[0]) + 1]
    assert not list((tmp_path / "state").rglob("*.arrow"))
