"""How many workers a cluster has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ClusterConfig


@dataclass(frozen=True)
class Placement:
    """How many workers a job has, and what each takes."""

    workers: int
    num_cpus: float
    """Of each rank of a worker."""
    num_gpus: float
    """Likewise."""
    ranks: int = 1
    """Processes of a worker, which share one model on one node."""

    @property
    def words(self) -> str:
        """What a worker takes."""
        each = resources(self.num_cpus, self.num_gpus)
        return each if self.ranks == 1 else f"{self.ranks} times {each} on one node"


def place_workers(
    nodes: Sequence[Mapping[str, float]],
    config: ClusterConfig,
    requests: int,
    ranks: int = 1,
    grows: bool = False,
) -> Placement:
    """As many workers as fit, or as told; never more than there are requests.

    Args:
        nodes: Resources of each node, as Ray names them.
        config: What the user wants.
        requests: How many requests there are.
        ranks: Of each worker, ``engine.tensor_parallel``.
        grows: More nodes may come: what does not fit waits for them.

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
    placement = Placement(0, cpus, gpus, ranks)
    fit = fitting(nodes, placement)
    if fit < (config.workers or 1) and not grows:
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        asked = f"cluster.workers={config.workers}" if config.workers else each
        raise ConfigError(f"{asked}: {fit} workers fit with {each}; the nodes have {have or 'nothing'}")
    return replace(placement, workers=min(config.workers or max(1, fit), max(1, requests)))


def fitting(nodes: Sequence[Mapping[str, float]], placement: Placement) -> int:
    """Workers that nodes have room for."""
    cpus, gpus = placement.ranks * placement.num_cpus, placement.ranks * placement.num_gpus
    return sum(_fit(node, cpus, gpus) for node in nodes if node.get("CPU", 0) > 0 or node.get("GPU", 0) > 0)


def resources(cpus: float, gpus: float) -> str:
    """``1 CPU``, ``8 CPUs and 1 GPU``."""
    counts = {"CPU": cpus, "GPU": gpus}
    said = [f"{n:g} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n or name == "CPU"]
    return " and ".join(said)


def free_words() -> str:
    """What nobody has taken of the cluster this process is connected to."""
    import ray

    free = ray.available_resources()
    return resources(free.get("CPU", 0.0), free.get("GPU", 0.0))


def cluster_nodes() -> list[dict[str, float]]:
    """Resources of the nodes that are alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fit(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    per_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-6) if cpus else None
    per_gpu = math.floor(node.get("GPU", 0) / gpus + 1e-6) if gpus else None
    limits = [limit for limit in (per_cpu, per_gpu) if limit is not None]
    return min(limits) if limits else 1
