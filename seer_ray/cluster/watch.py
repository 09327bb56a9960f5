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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from seer_ray.cluster.nodes import Node, alive_nodes
from seer_ray.config.errors import JobError

INTERVAL = 1.0
"""Seconds between two looks."""
NODES = 3.0
"""Seconds between two looks at the nodes: a spot notice comes half a minute before the end."""
GONE, SILENT = 6.0, 30.0
"""Seconds after which who refuses connections is gone, and who does not answer: a head may be restarted."""
ANSWER = 0.2
"""Seconds between two looks while Ray's head is asked something."""
REACH_TIMEOUT = 5.0
"""Seconds in which a cluster's port must answer."""

T = TypeVar("T")
Ask = Callable[[], bool]
"""Whether somebody is alive. Raises if nobody answers, and ConnectionRefusedError if nobody is there."""


class ClusterLost(JobError):
    """The cluster is gone, or the part of it that this process needs."""


class ClusterWatch:
    """Asks, from a thread of its own, whether those that a job needs are alive.

    Args:
        needed: Who it is, in words, and how to ask; asking one may need those before it.
        look: Finds the nodes.
        local: The cluster is this machine's own, and does not grow.
    """

    def __init__(
        self,
        needed: dict[str, Ask],
        look: Callable[[], Sequence[Node]] = tuple,
        local: bool = True,
    ) -> None:
        self.lost: str | None = None
        """What is gone, in words."""
        self.nodes: Sequence[Node] = ()
        """Those that are alive, as they were a moment ago."""
        self.local = local
        self.stuck = False
        """A call of this process to Ray hangs."""
        self._needed, self._look = needed, look

    def check(self) -> None:
        """Raises ClusterLost if it is."""
        if self.lost is not None:
            raise ClusterLost(self.lost)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Looks for as long as the context lasts."""
        stop = threading.Event()
        # Daemons: who is asked may hang, and Ray does for a minute if its head is gone.
        threads = [
            threading.Thread(target=run, args=(stop,), name="cluster-watch", daemon=True)
            for run in (self._run, self._look_on)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            # Whoever asks Ray after it was left would start another.
            for thread in threads if self.lost is None else ():
                thread.join(REACH_TIMEOUT)

    def ask(self, question: Callable[[], T]) -> T:
        """What Ray's head answers. Raises ClusterLost instead if that is gone meanwhile."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=run, name="ask-ray", daemon=True).start()
        while True:
            with contextlib.suppress(FutureTimeout):
                return answer.result(ANSWER)
            self.check()

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

    def _look_on(self, stop: threading.Event) -> None:
        while self.lost is None:
            with contextlib.suppress(Exception):  # who is gone is told of by the others
                self.nodes = self._look()
            if stop.wait(NODES):
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


def watch_of_this_process(local: bool) -> ClusterWatch:
    """Of the cluster that this process is connected to: its head, and the raylet of this machine."""
    import ray
    from ray.util.client import ray as client

    if client.is_connected():
        return ClusterWatch({"the connection to the Ray cluster": client.is_connected}, alive_nodes, local)
    head = ray.get_runtime_context().gcs_address
    mine = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == mine)
    raylet = listens(node["NodeManagerAddress"], node["NodeManagerPort"])

    def alive() -> bool:
        return raylet() and (not watch.nodes or any(node.id == mine for node in watch.nodes))

    watch = ClusterWatch(
        {
            f"the head of the Ray cluster (gcs_server, {head})": _head(head),
            f"Ray's raylet on this machine ({node['NodeManagerAddress']})": alive,
        },
        alive_nodes,
        local,
    )
    return watch


def _head(address: str) -> Ask:
    if os.environ.get("RAY_USE_TLS"):
        host, _, port = address.rpartition(":")
        return listens(host.strip("[]"), int(port))

    def ask() -> bool:
        ask_cluster(address)
        return True

    return ask
