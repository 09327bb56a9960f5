"""One MLflow database for all tests: making one takes seconds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

JOB = """
import sys
from pathlib import Path
from seer_ray.config.options import TrackingConfig
from seer_ray.config.options import RunConfig
from seer_ray.results.folder import RunFolder
from seer_ray.tracking import mlflow_tracker
from seer_ray.tracking.mlflow_tracker import open_tracker
mlflow_tracker.GRACE = 300.0
assert "mlflow" not in sys.modules, "mlflow takes seconds to import"
with RunFolder.open("run", RunConfig(seed=0)) as folder:
    tracker = open_tracker(folder, TrackingConfig())
    tracker.start("quiet", {"seed": 0})
    tracker.log({"done": 1}, step=1)
    tracker.artifact("config.yaml")
    tracker.finish()
"""


@dataclass
class Database:
    folder: Path
    made: subprocess.CompletedProcess[str]
    """The job that made it, with the default address, in an empty working directory."""

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> Any:
        from seer_ray.tracking.connect import connect

        return connect(self.uri)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("mlflow")
    environment = {"PATH": "", "HOME": str(folder), "PYTHONPATH": ":".join(sys.path)}
    made = subprocess.run(
        [sys.executable, "-c", JOB], cwd=folder, env=environment, capture_output=True, text=True
    )
    return Database(folder, made)
