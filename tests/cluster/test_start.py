"""A submitted job runs with the Python that Ray has there, or says what that lacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray  # noqa: F401  # this process is one of Ray's

from seer_ray.cluster import submit
from seer_ray.cluster.start import start

START = Path(start.__file__).parent


def run(folder: Path, ray_process: int, path: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(START / "start.sh", folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    command = ["/bin/sh", "start.sh", str(ray_process), "run", "--config", "a b.yaml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere:/usr/bin:/bin"])
def test_the_python_is_that_of_ray(tmp_path: Path, path: str) -> None:
    (tmp_path / "start.py").write_text("import sys; print(sys.prefix); print(sys.argv[1:])")
    done = run(tmp_path, os.getpid(), path)
    assert done.stdout.splitlines() == [sys.prefix, "['run', '--config', 'a b.yaml']"], done.stderr


def test_no_python_with_ray_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    nobody = 2**22 + 1
    done = run(tmp_path, nobody, "/usr/bin:/bin")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Python with Ray is found on ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"requirements": {"pytest": ">=1"}}, None),
        ({"requirements": {"no-such-package": ">=3,<4", "pytest": ">=1"}}, "'no-such-package>=3,<4'"),
        ({"requirements": {"pytest": ">=999"}}, "-m pip install 'pytest>=999'"),
        ({"requirements": {"pytest": ">=999", "another": ""}}, "-m pip install 'another' 'pytest>=999'"),
        ({"python": [3, 99]}, "which needs Python 3.99: start Ray from an environment that has it"),
    ],
)
def test_what_a_python_lacks(changes: dict[str, Any], said: str | None) -> None:
    reason = start.refusal({"version": "9.9", "python": [3, 8], "requirements": {}} | changes)
    assert (reason is None) == (said is None)
    if said is not None:
        assert reason is not None and said in reason and sys.executable in reason
        assert "cannot run seer-ray 9.9" in reason


def test_what_this_package_needs_is_here() -> None:
    needs = submit.needs()
    assert needs["python"] == [3, 11] and {"torch", "ray", "mlflow"} <= needs["requirements"].keys()
    assert "pytest" not in needs["requirements"]
    assert start.refusal(json.loads(json.dumps(needs))) is None
