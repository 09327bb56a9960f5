"""The nodes of a cluster as they are now: those that are alive, and those that will soon be gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seer_ray.config.options import ClusterConfig

if TYPE_CHECKING:
    from seer_ray.cluster.watch import ClusterWatch

PAUSE = 1.0
"""Seconds between two looks for a first node."""


@dataclass(frozen=True)
class Node:
    """One that is alive."""

    id: str
    address: str
    resources: Mapping[str, float]
    """As Ray names them."""
    leaving: bool = False
    """It is being drained: a spot notice, or somebody scales the cluster down. It takes nothing new."""


def alive_nodes() -> list[Node]:
    """Of the cluster that this process is connected to."""
    import ray
    from ray._private.state import state
    from ray.util.client import ray as client

    nodes = [node for node in ray.nodes() if node["Alive"]]
    leaving: Mapping[str, int] = {}
    if not client.is_connected():  # Ray Client does not say
        with contextlib.suppress(Exception):  # private: as Ray Serve asks for it
            leaving = state.get_draining_nodes()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], node["NodeID"] in leaving)
        for node in nodes
    ]


def resources_of(nodes: Sequence[Node]) -> list[Mapping[str, float]]:
    """Of each node that takes something new."""
    return [node.resources for node in nodes if not node.leaving]


def first_nodes(
    watch: ClusterWatch, config: ClusterConfig, say: Callable[[str], None]
) -> list[Mapping[str, float]]:
    """Resources of the nodes, as soon as they say what a worker takes. A cluster may begin with none.

    Args:
        watch: Of the cluster.
        config: What the user wants.
        say: Told what is waited for, again and again.

    Raises:
        ClusterLost: The cluster is gone.
    """
    while True:
        watch.check()
        found = resources_of(alive_nodes())
        known = config.num_gpus is not None or any(n.get("CPU") or n.get("GPU") for n in found)
        if known or watch.local:
            return found
        say(
            "waiting for nodes: none has a CPU or a GPU yet (cluster.num_gpus says what a worker needs, "
            "for a cluster that grows when it is asked)"
        )
        time.sleep(PAUSE)
