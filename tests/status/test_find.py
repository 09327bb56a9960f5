from __future__ import annotations

import uuid

import pytest
from results.sample import CONFIG

from seer_ray.config.errors import ConfigError
from seer_ray.results.folder import RunFolder
from seer_ray.status.find import find_run


def test_runs_of_an_object_store_are_found_by_name() -> None:
    runs = f"fsspec+memory://{uuid.uuid4().hex}"
    for name in ("first", "second"):
        RunFolder.open(f"{runs}/{name}", CONFIG).close()
    assert find_run("first", runs) == f"{runs}/first"
    with pytest.raises(
        ConfigError, match=r"frist: no such run in .* \(did you mean 'first'\?\); it has first, s"
    ):
        find_run("frist", runs)
