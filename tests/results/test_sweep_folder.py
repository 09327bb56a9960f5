"""A sweep's folder: its index has a checksum, and its options stand in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SweepConfig
from seer_ray.results.sweep import SweepFolder

POINTS = [{"slug": "dense", "overrides": {"task.data": "https://h/x?token=hunter2"}, "state": "done"}]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    config = SweepConfig(name="sw")
    with SweepFolder.open(str(tmp_path / "sw"), config) as folder:
        config.sweep.points = [{"selector.name": "dense"}]
        folder.write_config(config)
        folder.write_points(POINTS)
    return tmp_path / "sw"


def test_what_is_written_comes_back_without_secrets(sweep: Path) -> None:
    view = SweepFolder.view(str(sweep))
    assert view.config["sweep"]["points"] == [{"selector.name": "dense"}]
    assert view.points[0]["overrides"] == {"task.data": "https://h/x?token=***"}
    assert view.config_yaml == (sweep / "config.yaml").read_text()


@pytest.mark.parametrize("file", ["sweep.json", "config.yaml"])
def test_a_flipped_bit_is_named(sweep: Path, file: str) -> None:
    before, whole = SweepFolder.view(str(sweep)), (sweep / file).read_bytes()
    for at in range(3, len(whole) * 8, 61 if file == "sweep.json" else 611):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        (sweep / file).write_bytes(changed)
        try:
            view = SweepFolder.view(str(sweep))
            assert view.config_yaml and view.config == before.config and view.points == before.points
        except ConfigError as error:
            assert f"/{file}: " in str(error) and "\n" not in str(error)


def test_one_from_before_there_were_checksums_goes_on(sweep: Path) -> None:
    about = json.loads((sweep / "sweep.json").read_text())
    old = {name: about[name] for name in ("version", "sweep_id", "points")}
    (sweep / "sweep.json").write_text(json.dumps(old))
    (sweep / "status.json").write_text('{"state": "done"}')
    with SweepFolder.open(str(sweep), SweepConfig(name="sw")) as folder:
        assert folder.config["sweep"]["points"] == [{"selector.name": "dense"}]
        folder.write_points([])
        assert folder.read_json("status.json") == {"state": "done"}
