from __future__ import annotations

from pathlib import Path

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.tracking import address


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_default_is_a_database_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address.resolve(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://far:5000")
    assert address.resolve(None) == "http://far:5000"
    assert address.resolve("sqlite:///x/y.db?timeout=3") == f"sqlite:///{tmp_path}/x/y.db?timeout=3"


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:5000",
        "https://user:secret@far/mlflow",
        "postgresql+psycopg://u:p@host/db",
        "mysql://h/d",
        "databricks",
        "databricks://profile",
        "sqlite:////abs/x.db",
        "sqlite:///file:/abs/x.db?mode=ro&uri=true",
    ],
)
def test_addresses_are_taken_as_they_are(uri: str) -> None:
    assert address.resolve(uri) == uri


@pytest.mark.parametrize(
    "uri, remedy",
    [
        ("htp://localhost:5000", "must be http"),
        ("http://", "http://localhost:5000"),
        ("http://host:99999", "http://localhost:5000"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("./mlruns", "sqlite:///FOLDER/mlflow.db"),
        ("file:///mlruns", "sqlite:///FOLDER/mlflow.db"),
        ("localhost:5000", "sqlite:///FOLDER/mlflow.db"),
        ("", "sqlite:///FOLDER/mlflow.db"),
        ("ftp://user:secret@host/", "must be http"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=r"^tracking\.uri=") as caught:
        address.resolve(uri)
    assert remedy in str(caught.value)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI=nonsense://x"):
        address.resolve(None)


def test_folders_where_mlflow_is_told_to_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert address.resolve("file:///mlruns") == "file:///mlruns"
