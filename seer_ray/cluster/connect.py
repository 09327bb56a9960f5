"""To a Ray cluster, or to one of our own on this machine."""

from __future__ import annotations

import contextlib
import http.client
import logging
import math
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seer_ray.config import ClusterConfig, ConfigError

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


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a job."""

    workers: int
    num_cpus: float
    """Of each rank of a worker."""
    num_gpus: float
    """Likewise."""
    ranks: int = 1
    """Processes of a worker, which share one model on one node."""


def plan_workers(
    nodes: Sequence[Mapping[str, float]], config: ClusterConfig, requests: int, ranks: int = 1
) -> WorkerPlan:
    """As many workers as fit, or as told; never more than there are requests.

    Args:
        nodes: Resources of each node, as Ray names them.
        config: What the user wants.
        requests: How many requests there are.
        ranks: Of each worker, ``engine.tensor_parallel``.

    Raises:
        ConfigError: more is asked for than the nodes have.
    """
    nodes = [node for node in nodes if node.get("CPU", 0) > 0 or node.get("GPU", 0) > 0]
    gpus = config.num_gpus if config.num_gpus is not None else float(any(n.get("GPU", 0) for n in nodes))
    cpus = config.num_cpus
    if cpus is None:
        if gpus:
            cpus = 1.0
        else:
            smallest = min((node.get("CPU", 0.0) for node in nodes), default=0.0)
            neighbours = ranks * math.ceil((config.workers or 1) / max(1, len(nodes)))
            cpus = max(1.0, smallest // neighbours)
    each = f"cluster.num_cpus={cpus:g}, cluster.num_gpus={gpus:g}"
    if ranks > 1:
        each += f", engine.tensor_parallel={ranks}"
        if gpus not in (0, 1) or not gpus + cpus:
            raise ConfigError(f"{each}: every rank takes one GPU, or without GPUs some CPU")
    fit = sum(_fit(node, ranks * cpus, ranks * gpus) for node in nodes)
    if fit < (config.workers or 1):
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        asked = f"cluster.workers={config.workers}" if config.workers else each
        raise ConfigError(f"{asked}: {fit} workers fit with {each}; the nodes have {have or 'nothing'}")
    return WorkerPlan(min(config.workers or fit, max(1, requests)), cpus, gpus, ranks)


def cluster_nodes() -> list[dict[str, float]]:
    """Resources of the nodes that are alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def first_line(error: object) -> str:
    """An error as one line of a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fit(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    per_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-6) if cpus else None
    per_gpu = math.floor(node.get("GPU", 0) / gpus + 1e-6) if gpus else None
    limits = [limit for limit in (per_cpu, per_gpu) if limit is not None]
    return min(limits) if limits else 1
