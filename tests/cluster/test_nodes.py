"""Several Ray nodes on this machine: they are killed, join and leave in one run, and the head dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.test_faults import SAME, Run
from tiny import save_tiny

from seer_ray.config.compose import from_yaml, to_yaml

STORE = 80_000_000
"""Bytes: of the least that Ray takes for objects."""
PREEMPTION = 2
"""Ray's reason to drain a node whatever runs there."""
SOON = 20.0
"""Seconds after which a driver whose cluster is gone has said so."""


class Nodes:
    """A cluster of raylets with ports of their own. The head has no CPU."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> None:
        """As a spot notice does."""
        from ray._raylet import GcsClient

        deadline = int((time.time() + seconds) * 1000)
        done, why = GcsClient(address=self.address).drain_node(node.node_id, PREEMPTION, "spot", deadline)
        assert done, why

    def kill_head(self) -> None:
        self.cluster.head_node.kill_gcs_server()

    def close(self) -> None:
        self.cluster.shutdown()


@pytest.fixture
def make_nodes() -> Iterator[Callable[[], Nodes]]:
    made: list[Nodes] = []

    def make() -> Nodes:
        made.append(Nodes())
        return made[-1]

    yield make
    for nodes in made:
        nodes.close()


class ClusterRun(Run):
    """A run on a cluster that is there already."""

    def at(self, address: str, **options: Any) -> None:
        config = from_yaml(self.text)
        config.cluster.address, config.cluster.workers = address, None
        config.cluster.num_gpus, config.cluster.max_deaths = 0, 3
        for name, value in options.items():
            setattr(config.cluster, name, value)
        self.text = to_yaml(config)
        self.config.write_text(self.text)

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def wait_for_ready(self, workers: int) -> None:
        def there() -> bool:
            assert self.process.poll() is None, f"ended too soon: {self.output()}"
            return self.status().get("workers_ready") == workers

        self.wait_for(there, f"{workers} workers")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_nodes_come_and_go_and_the_head_dies(tmp_path: Path, make_nodes: Callable[[], Nodes]) -> None:
    model, data = (
        save_tiny(tmp_path / "model", "qwen3", max_position_embeddings=2048),
        tmp_path / "data.jsonl",
    )
    rows = ({"id": f"p{n}", "question": f"What is {n} + {n}?", "answer": str(n + n)} for n in range(12))
    data.write_text("\n".join(map(json.dumps, rows)))
    calm = Run(tmp_path, "calm", model, data, 0.0, 240)
    calm.start()
    calm.wait_for(lambda: calm.process.poll() is not None, "the end")
    expected = calm.rows()

    nodes = make_nodes()
    run = ClusterRun(tmp_path, "moved", model, data, 0.15, 240)
    run.at(nodes.address)
    run.start()
    run.wait_for(lambda: "no place for 1 of 1" in str(run.status().get("phase")), "what is missing")
    first = nodes.add()
    run.wait_for_ready(1)
    second = nodes.add()
    run.wait_for_ready(2)  # more than there were at the start
    nodes.kill(first)
    run.wait_for_ready(1)
    nodes.add()
    run.wait_for_ready(2)
    nodes.drain(second, seconds=30.0)
    run.wait_for_ready(1)
    run.wait_for(lambda: "is let go: its node leaves" in run.output(), "the notice")
    nodes.kill(second)
    run.wait_for_progress()
    assert run.process.poll() is None, f"too short: {run.output()}"
    nodes.kill_head()
    began = time.monotonic()
    run.wait_for(lambda: run.process.poll() is not None, "the end of the driver")
    assert time.monotonic() - began < SOON
    assert run.process.returncode == 1 and "the head of the Ray cluster" in run.output()
    status = run.status()
    assert status["state"] == "failed" and "the head of the Ray cluster" in status["error"]
    known = run.known_tokens()
    nodes.close()

    again = make_nodes()
    again.add()
    run.at(again.address)
    run.pace = 0.0
    begun = run.start()
    run.wait_for(lambda: run.process.poll() is not None, "the end")
    assert run.process.returncode == 0, run.output()
    for id, tokens in known.items():
        assert min(run.begun(begun)[id]) >= tokens, "a chain began anew"
    found = run.rows()
    for column in SAME:
        assert found[column].to_pylist() == expected[column].to_pylist(), column
