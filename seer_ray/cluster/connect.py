"""To a Ray cluster, or to one of our own on this machine."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.config.options import ClusterConfig

LOCAL_OBJECT_STORE = 200_000_000
"""Bytes. Only reports and requests pass through it."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STAY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable that, set to 0, keeps its servers on the loopback interface."""
REACH_TIMEOUT = 5.0
"""Seconds in which a cluster's port must answer."""


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray, for as long as the context lasts. A Ray that the process is connected to already is used and left.

    Raises:
        ConfigError: the address does not answer.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    option = "cluster.address" if config.address else "RAY_ADDRESS"
    if not local:
        require_reachable(address, option)
    _prepare(local)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if local:
        ray.init("local", include_dashboard=False, object_store_memory=LOCAL_OBJECT_STORE, **quiet)
    else:
        try:
            ray.init(address, **quiet)
        except Exception as error:
            raise ConfigError(f"{option}={address}: Ray refused: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _prepare(local: bool) -> None:
    """What Ray reads from the environment when it is imported, unless somebody has set it."""
    if local:
        # There is no option for it. Elsewhere than on Windows and macOS this is not the default.
        os.environ.setdefault(STAY_HERE, "0")
    # Ray prints what happens to workers among our own lines. We tell it ourselves.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def require_reachable(address: str, option: str) -> None:
    """Whether a Ray answers there, and takes us: Ray itself would try for minutes before it says so.

    To be called before ray is imported, which is when it decides whether to use tokens.

    Raises:
        ConfigError: nobody does, or it is no address.
    """
    if address == "auto" or os.environ.get("RAY_USE_TLS"):
        return
    host, _, port = address.split("://")[-1].rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{option}={address}: must be HOST:PORT, ray://HOST:PORT or 'auto'")
    ask = _ask_dashboard if address.startswith("http") else _ask_cluster
    try:
        wants_token = ask(address if address.startswith("http") else f"{_as_ray_calls(host)}:{port}")
    except (OSError, ValueError) as error:
        remedy = "start one with 'ray start --head'"
        if not address.startswith("http"):
            remedy += ", or leave the address out for a local one"
        raise ConfigError(f"{option}={address}: no Ray cluster answers there ({error}); {remedy}") from error
    if wants_token and os.environ.get("RAY_AUTH_MODE") != "token":
        # The token that Ray keeps here is this machine's: not to be shown to another one unasked.
        mine = host.strip("[]") in LOOPBACK and _token_is_here()
        if not mine or "ray" in sys.modules:
            raise ConfigError(
                f"{option}={address}: wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            )
        os.environ["RAY_AUTH_MODE"] = "token"


def _as_ray_calls(host: str) -> str:
    """The host whose port Ray will use: for this machine not the loopback interface, but the one that leads
    out, unless it is told to stay on this machine."""
    if host.strip("[]") not in LOOPBACK or os.environ.get(STAY_HERE) == "0":
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # sends nothing; it only finds the way
        except OSError:
            return host
        return str(probe.getsockname()[0])


def _ask_cluster(address: str) -> bool:
    """Whether a cluster wants a token. Raises OSError if it is none."""
    import grpc

    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACH_TIMEOUT).close()
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=REACH_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ConnectionError("somebody else listens on this port") from error
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _ask_dashboard(url: str) -> bool:
    """Whether a dashboard wants a token. Raises OSError if nobody is there."""
    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/api/version", timeout=REACH_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except http.client.HTTPException as error:
        raise ConnectionError("somebody else listens on this port") from error
    return False


def _token_is_here() -> bool:
    """Where Ray looks for the token of its clusters."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().is_file()
