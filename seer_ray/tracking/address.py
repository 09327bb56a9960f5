"""Which MLflow a run talks to."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from seer_ray.config.errors import ConfigError
from seer_ray.results.store import shown

DEFAULT = "sqlite:///mlflow.db"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def resolve(uri: str | None) -> str:
    """The address that ``tracking.uri`` or the environment names, with paths made absolute.

    Raises:
        ConfigError: no such kind of address. Whether anybody answers there is not looked at.
    """
    if uri is not None:
        where = "tracking.uri"
    else:
        where, uri = "MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT
    scheme = uri.partition(":")[0].partition("+")[0].lower() if ":" in uri else uri
    if scheme == "sqlite":
        return _sqlite(uri, where)
    if scheme in DATABASES:
        return uri
    if scheme in ("http", "https"):
        return _http(uri, where)
    if scheme == "databricks" or scheme in {e.name for e in entry_points(group="mlflow.tracking_store")}:
        return uri
    if (scheme == "file" or "://" not in uri) and os.environ.get("MLFLOW_ALLOW_FILE_STORE") != "true":
        raise ConfigError(
            f"{where}={shown(uri)}: MLflow no longer keeps runs in folders; give sqlite:///FOLDER/mlflow.db"
        )
    if scheme == "file" or "://" not in uri:
        return uri
    raise ConfigError(
        f"{where}={shown(uri)}: must be http(s)://HOST:PORT, sqlite:///FILE, "
        "postgresql://, mysql://, mssql:// or databricks"
    )


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite address, if that is what it is."""
    scheme, _, path = uri.partition("///")
    path = path.partition("?")[0]
    plain = scheme.startswith("sqlite") and path and not path.startswith("file:")
    return Path(path) if plain else None


def _sqlite(uri: str, where: str) -> str:
    scheme, mark, rest = uri.partition(":///")
    if not mark or not rest.partition("?")[0] or rest.startswith(":memory:"):
        raise ConfigError(f"{where}={uri}: must name a file, such as sqlite:///mlflow.db")
    path = sqlite_file(uri)
    if path is None:
        return uri
    query = rest.partition("?")[1] + rest.partition("?")[2]
    return f"{scheme}:///{path.expanduser().absolute()}{query}"


def _http(uri: str, where: str) -> str:
    try:
        parts = urlsplit(uri)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"{where}={shown(uri)}: must be an address such as http://localhost:5000")
    return uri.rstrip("/")
