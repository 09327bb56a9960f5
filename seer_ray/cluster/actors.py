"""The Ray actors of one worker."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from seer_ray.cluster.placement import Placement
from seer_ray.cluster.worker import Builder, Worker
from seer_ray.config.options import RunConfig


class WorkerActors:
    """Rank 0, which is spoken to, and those that do what it does, on the same node. They end together.

    Args:
        config: The job's.
        placement: What each of them takes.
        build: What makes an engine in them.
    """

    def __init__(self, config: RunConfig, placement: Placement, build: Builder) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {
            "num_cpus": placement.num_cpus,
            "num_gpus": placement.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._place = None
        if placement.ranks > 1:
            needs = {"CPU": placement.num_cpus, "GPU": placement.num_gpus}
            bundle = {name: count for name, count in needs.items() if count}
            self._place = placement_group([bundle] * placement.ranks, strategy="STRICT_PACK")
        self._actors = []
        for rank in range(placement.ranks):
            if self._place is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._place, rank)
            actor: Any = ray.remote(Worker).options(**options)
            self._actors.append(actor.remote(config, placement.num_cpus, placement.num_gpus, build, rank))
        self.first, *others = self._actors
        self.placed = [actor.__ray_ready__.remote() for actor in self._actors]
        """Calls that end when their processes are there."""
        self.following: list[Any] = []
        """Calls of the other ranks, which end only if something is wrong."""
        if others:
            port = self.first.listen.remote()
            self.following = [other.follow.remote(port) for other in others]
        self.started = self.first.start.remote()
        """Call of rank 0."""

    def kill(self) -> threading.Thread:
        """Ends them. In a thread, as Ray waits for a head that is gone; it ends when that is done."""
        thread = threading.Thread(target=self._kill, name="kill", daemon=True)
        thread.start()
        return thread

    def _kill(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        with contextlib.suppress(Exception):  # of a cluster that is gone: so are they
            # With the head gone, ray.kill hangs where leaving Ray makes it crash; this hangs in its place.
            ray.nodes()
            if not ray.is_initialized():  # it was left, and ray.kill would start another
                return
            for actor in self._actors:
                ray.kill(actor, no_restart=True)
            if self._place is not None:
                remove_placement_group(self._place)
