"""To a Ray cluster, or to one of our own on this machine."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seer_ray.cluster.priority import NICENESS
from seer_ray.cluster.watch import REACH_TIMEOUT, ClusterWatch, ask_cluster, watch_of_this_process
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.options import ClusterConfig

LOCAL_OBJECT_STORE = 200_000_000
"""Bytes. Only reports and requests pass through it."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STAY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable that, set to 0, keeps its servers on the loopback interface."""
SLOW = 10.0
"""Seconds after which it is told that Ray is not up; doubles."""


@contextlib.contextmanager
def connected(
    config: ClusterConfig, note: Callable[[str], None] = lambda message: None
) -> Iterator[ClusterWatch]:
    """Ray, for as long as the context lasts. A Ray that the process is connected to already is used and left.

    Args:
        config: Where it is.
        note: Told, in a line each, what a person should know.

    Yields:
        What knows whether it is still there.

    Raises:
        ConfigError: the address does not answer.
        JobError: Ray cannot be started on this machine.
    """
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        watch = watch_of_this_process(local)
        with watch.watching():
            yield watch
        return
    option = "cluster.address" if config.address else "RAY_ADDRESS"
    if not local:
        require_reachable(address, option)
    _prepare(local)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    where = "Ray on this machine" if local else f"the Ray cluster at {address}"
    with _told_if_slow(f"{where} is not up yet", note):
        if local:
            _start_local(ray, quiet)
        else:
            try:
                ray.init(address, **quiet)
            except Exception as error:
                raise ConfigError(f"{option}={address}: Ray refused: {first_line(error)}") from error
    try:
        watch = watch_of_this_process(local)
        with watch.watching():
            yield watch
    finally:
        # With a call that hangs Ray would crash; it is left when this process ends, all said and done.
        if not watch.stuck:
            ray.shutdown()


def _start_local(ray: Any, quiet: dict[str, Any]) -> None:
    try:
        ray.init("local", include_dashboard=False, object_store_memory=LOCAL_OBJECT_STORE, **quiet)
    except (Exception, SystemExit) as error:
        raise JobError(
            f"Ray does not start on this machine: {first_line(error)} (logs: {logs_folder()}); try again if "
            f"the machine was busy; if {temporary_folder()} is full or cannot be written, set RAY_TMPDIR to "
            "another folder, with a short path"
        ) from error


@contextlib.contextmanager
def _told_if_slow(what: str, note: Callable[[str], None]) -> Iterator[None]:
    """Notes, now and then, that the body is not done."""
    done, began = threading.Event(), time.monotonic()

    def run() -> None:
        wait = SLOW
        while not done.wait(wait):
            note(f"{what} after {time.monotonic() - began:.0f} s; its logs are in {logs_folder()}")
            wait *= 2

    thread = threading.Thread(target=run, name="slow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def temporary_folder() -> Path:
    """Where a Ray of this machine keeps its files."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray")


def logs_folder() -> Path:
    """Where the Ray of this process, else that which was started last here, writes what workers print."""
    ray = sys.modules.get("ray")
    node = ray._private.worker._global_node if ray is not None and ray.is_initialized() else None
    return Path(node.get_logs_dir_path()) if node else temporary_folder() / "session_latest" / "logs"


def _prepare(local: bool) -> None:
    """What Ray reads from the environment when it is imported, unless somebody has set it."""
    if local:
        # There is no option for it. Elsewhere than on Windows and macOS this is not the default.
        os.environ.setdefault(STAY_HERE, "0")
    if local:
        # Ray's own is 15: on a machine that others use, too, decoding would starve.
        os.environ.setdefault(NICENESS, "0")
        if not _token_can_be_kept():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
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
    ask = _ask_dashboard if address.startswith("http") else ask_cluster
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
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or os.access(_token_file(), os.R_OK)


def _token_can_be_kept() -> bool:
    """Whether Ray, which wants a token, finds one here or can write it."""
    if _token_is_here():
        return True
    there = next(folder for folder in _token_file().absolute().parents if folder.exists())
    return not _token_file().exists() and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token"))
