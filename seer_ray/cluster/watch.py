"""Whether the cluster that a job is connected to is still there.

Ray itself waits a minute for a head that is gone, and then ends the process where it stands; for a raylet
that died alone it waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from seer_ray.config.errors import JobError

INTERVAL = 1.0
"""Seconds between two looks."""
GONE, SILENT = 6.0, 30.0
"""Seconds after which who refuses connections is gone, and who does not answer: a head may be restarted."""
REACH_TIMEOUT = 5.0
"""Seconds in which a cluster's port must answer."""

Ask = Callable[[], bool]
"""Whether somebody is alive. Raises if nobody answers, and ConnectionRefusedError if nobody is there."""


class ClusterLost(JobError):
    """The cluster is gone, or the part of it that this process needs."""


class ClusterWatch:
    """Asks, from a thread of its own, whether those that a job needs are alive.

    Args:
        needed: Who it is, in words, and how to ask; asking one may need those before it.
    """

    def __init__(self, needed: dict[str, Ask]) -> None:
        self.lost: str | None = None
        """What is gone, in words."""
        self._needed = needed

    def check(self) -> None:
        """Raises ClusterLost if it is."""
        if self.lost is not None:
            raise ClusterLost(self.lost)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Looks for as long as the context lasts."""
        stop = threading.Event()
        # A daemon: who is asked may hang.
        thread = threading.Thread(target=self._run, args=(stop,), name="cluster-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            # Whoever asks Ray after it was left would start another.
            thread.join(REACH_TIMEOUT)

    def _run(self, stop: threading.Event) -> None:
        answered = dict.fromkeys(self._needed, time.monotonic())
        while not stop.wait(INTERVAL) and self.lost is None:
            for who, ask in self._needed.items():
                gone = False
                try:
                    if ask():
                        answered[who] = time.monotonic()
                        continue
                    gone = True
                except Exception as error:  # also Ray's own
                    gone = isinstance(error, ConnectionRefusedError)
                    if time.monotonic() - answered[who] < (GONE if gone else SILENT):
                        break  # those that come after it cannot be asked without it
                self.lost = f"{who} {'is gone' if gone else f'has not answered for {SILENT:.0f} s'}"
                return


def ask_cluster(address: str) -> bool:
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


def listens(host: str, port: int) -> Ask:
    """Asks whether somebody takes connections there."""

    def ask() -> bool:
        socket.create_connection((host, port), REACH_TIMEOUT).close()
        return True

    return ask


def watch_of_this_process() -> ClusterWatch:
    """Of the cluster that this process is connected to: its head, and the raylet of this machine."""
    import ray
    from ray.util.client import ray as client

    if client.is_connected():
        return ClusterWatch({"the connection to the Ray cluster": client.is_connected})
    head = ray.get_runtime_context().gcs_address
    mine = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == mine)
    raylet = listens(node["NodeManagerAddress"], node["NodeManagerPort"])

    def alive() -> bool:
        return raylet() and any(node["Alive"] for node in ray.nodes() if node["NodeID"] == mine)

    return ClusterWatch(
        {
            f"the head of the Ray cluster (gcs_server, {head})": _head(head),
            f"Ray's raylet on this machine ({node['NodeManagerAddress']})": alive,
        }
    )


def _head(address: str) -> Ask:
    if os.environ.get("RAY_USE_TLS"):
        host, _, port = address.rpartition(":")
        return listens(host.strip("[]"), int(port))

    def ask() -> bool:
        ask_cluster(address)
        return True

    return ask
