"""Who is gone is told within seconds, who is slow is waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from seer_ray.cluster import watch
from seer_ray.cluster.nodes import Node
from seer_ray.cluster.watch import ClusterLost, ClusterWatch, ask_cluster, listens


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"INTERVAL": 0.01, "GONE": 0.05, "SILENT": 0.5, "REACH_TIMEOUT": 0.1}.items():
        monkeypatch.setattr(watch, name, seconds)


def raising(error: Exception, times: int = 10**9) -> Callable[[], bool]:
    left = [times]

    def ask() -> bool:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return True

    return ask


def lost(needed: dict[str, Callable[[], bool]], seconds: float = 5.0) -> str | None:
    """What a watch says of them, as soon as it says something."""
    found = ClusterWatch(needed)
    with found.watching():
        deadline = time.monotonic() + seconds
        while found.lost is None and time.monotonic() < deadline:
            time.sleep(0.01)
    return found.lost


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (listens("127.0.0.1", dead_port()), "the head is gone"),
        (lambda: ask_cluster(f"127.0.0.1:{dead_port()}"), "the head is gone"),
        (lambda: False, "the head is gone"),
        (raising(TimeoutError()), "the head has not answered for 0 s"),
        (raising(ConnectionError("somebody else listens on this port")), "the head has not answered for 0 s"),
    ],
    ids=["port", "gcs", "dead node", "no answer", "somebody else"],
)
def test_what_is_gone(ask: Callable[[], bool], said: str) -> None:
    assert lost({"the head": ask}) == said


def test_one_that_hangs_takes_connections_and_does_not_answer() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def ask() -> bool:
            return not ask_cluster(address)

        assert lost({"the head": ask}, 20.0) == "the head has not answered for 0 s"


def test_who_comes_back_is_there() -> None:
    assert lost({"the head": raising(ConnectionRefusedError(), times=2)}, 0.3) is None


def test_nobody_is_asked_through_a_head_that_is_gone() -> None:
    asked = []
    refused = {"the head": raising(ConnectionRefusedError()), "the raylet": lambda: bool(asked.append(1))}
    assert lost(refused) == "the head is gone" and not asked


def test_a_loss_is_an_error_with_its_name() -> None:
    found = ClusterWatch({})
    found.check()
    found.lost = "the head is gone"
    with pytest.raises(ClusterLost, match=r"^the head is gone$"):
        found.check()


def test_a_question_that_hangs_ends_with_the_cluster() -> None:
    found = ClusterWatch({"the head": raising(ConnectionRefusedError())})
    with found.watching(), pytest.raises(ClusterLost, match="the head is gone"):
        found.ask(lambda: time.sleep(3600))
    assert ClusterWatch({}).ask(lambda: 7) == 7
    with pytest.raises(OSError, match="torn"):
        ClusterWatch({}).ask(raising(OSError("torn")))


def test_the_nodes_are_looked_at_beside() -> None:
    found = ClusterWatch({}, lambda: [Node("a", "", {})])
    with found.watching():
        while not found.nodes:
            time.sleep(0.01)
    assert [node.id for node in found.nodes] == ["a"]
