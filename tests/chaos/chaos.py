"""Kills at random moments of one run: python tests/chaos/chaos.py --kills 200 --seed 0.

Workers, the grader, the driver, and the raylet and the gcs_server of its local Ray die by SIGKILL. The
command is given again whenever the driver has ended. After each of its ends what was committed before is
still there; at the end every row is there once, with the tokens that its request must have, for the ledger
and for a plain glob alike. The engine needs no model; all else is what every run has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from fake_engine import expected_tokens, make_request  # noqa: E402
from tiny import save_tiny  # noqa: E402

from seer_ray.config.compose import to_yaml  # noqa: E402
from seer_ray.config.options import RunConfig  # noqa: E402
from seer_ray.results.folder import RunFolder  # noqa: E402

TARGETS = {
    # What is killed -> (a part of its command line, its share of the kills).
    "worker": ("ray::Worker.work", 0.54),
    "starting": ("ray::Worker", 0.06),
    "grader": ("grading_process", 0.1),
    "driver": ("", 0.12),
    "raylet": ("raylet/raylet", 0.09),
    "gcs": ("gcs/gcs_server", 0.09),
}
ROWS_A_KILL = 30
"""Enough that rows are left when the last one is due."""
CALM = "calm"
"""File that lets engines run as fast as they can."""
PATIENCE = 240.0
"""Seconds in which a command must get somewhere, or end."""

DRIVER = """
import os, sys, time
from pathlib import Path
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # before ray is imported
import fake_engine
from ray import cloudpickle
from seer_ray.config.compose import from_yaml
from seer_ray.jobs import run
from seer_ray.status.live import NullReporter
cloudpickle.register_pickle_by_value(fake_engine)
config, calm = sys.argv[1:]
class Reporter(NullReporter):
    def note(self, message): print(message, flush=True)
def build(options):
    class Engine(fake_engine.FakeEngine):
        def step(self, tell=True):
            time.sleep(0.0 if os.path.exists(calm) else 0.04)
            return super().step(tell)
    return Engine(options.engine.max_batch)
run.main(from_yaml(Path(config).read_text()), Reporter(), build)
"""


class Chaos:
    """One run, and who dies in it.

    Args:
        place: A folder for all of it.
        kills: How many.
        seed: Of chance.
    """

    def __init__(self, place: Path, kills: int, seed: int) -> None:
        self.place, self.kills, self.chance = place, kills, random.Random(seed)
        self.killed: Counter[str] = Counter()
        config = RunConfig(name="run", samples=2)
        config.model.name, config.task.data = (
            str(save_tiny(place / "model", "qwen3")),
            str(place / "data.jsonl"),
        )
        config.task.grader, config.task.grade_processes = "exact", 1
        config.sampling.max_new_tokens, config.engine.max_batch = 30, 4
        cluster, results = config.cluster, config.results
        cluster.address, cluster.workers, cluster.num_cpus, cluster.report_interval = "local", 2, 0.5, 0.1
        # It is neither the workers' fault nor the requests'.
        cluster.max_deaths = cluster.max_attempts = 1000
        results.folder, results.part_interval, results.progress_interval = str(place / "runs"), 0.3, 0.3
        results.report = config.tracking.enabled = False
        problems = max(20, kills * ROWS_A_KILL // 2)
        self.expected = {(f"p{n}", sample) for n in range(problems) for sample in range(2)}
        (place / "config.yaml").write_text(to_yaml(config))
        lines = ({"id": f"p{n}", "question": f"{n}?", "answer": "4"} for n in range(problems))
        (place / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
        self.folder, self.log = place / "runs" / "run", place / "log"
        self.known: set[tuple[str, int]] = set()

    def run(self) -> None:
        """To the end. Raises AssertionError if anything is lost, doubled or wrong."""
        while self.killed.total() < self.kills:
            self.start()
            self.kill_until_the_driver_ends()
            self.check_committed()
        (self.place / CALM).touch()
        self.start()
        assert self.process.wait(4 * PATIENCE) == 0, self.said()
        self.check_whole()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(self.place / "config.yaml"), str(self.place / CALM)],
                stdout=log,
                stderr=log,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def kill_until_the_driver_ends(self) -> None:
        began = time.monotonic()
        while self.killed.total() < self.kills:
            time.sleep(self.chance.uniform(0.0, 2.0))
            assert self.process.poll() is None, f"ended by itself: {self.said()}"
            target = self.chance.choices(list(TARGETS), [share for _, share in TARGETS.values()])[0]
            # The driver dies at any moment. Ray's own start would take a minute to see that it failed.
            while target != "driver" and not (self.victims(target) and self.victims("starting")):
                assert self.process.poll() is None, f"ended by itself: {self.said()}"
                assert time.monotonic() - began < PATIENCE, f"no {target} comes up: {self.said()}"
                time.sleep(0.1)
            family, victims = self.descendants(""), self.victims(target)
            if not victims:
                continue
            os.kill(self.chance.choice(victims), signal.SIGKILL)
            began = time.monotonic()
            self.killed[target] += 1
            if target in ("driver", "raylet", "gcs"):
                self.wait_for_end(family, killed=target == "driver")
                return
        self.process.kill()
        self.wait_for_end(self.descendants(""), killed=True)

    def wait_for_end(self, family: list[int], killed: bool) -> None:
        """Of the driver, and of what it leaves. One whose Ray has died says so."""
        code = self.process.wait(PATIENCE)
        assert killed or code == 1, f"exit code {code}: {self.said()}"
        deadline = time.monotonic() + PATIENCE
        while any(alive(pid) for pid in family):
            assert time.monotonic() < deadline, "a driver has left processes behind"
            time.sleep(0.1)

    def victims(self, target: str) -> list[int]:
        """Processes of this kind."""
        return [self.process.pid] if target == "driver" else self.descendants(TARGETS[target][0])

    def descendants(self, part: str) -> list[int]:
        """Processes below the driver whose command line has this part."""
        parents, found = {}, []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    parents[int(entry.name)] = (int(stat_of(entry)[1]), command)
                except (OSError, IndexError):
                    continue
        for pid, (_, command) in parents.items():
            above = parents[pid][0]
            while above in parents and above != self.process.pid:
                above = parents[above][0]
            if above == self.process.pid and part in command:
                found.append(pid)
        return found

    def check_committed(self) -> None:
        """What was committed is still there, and no row is there twice."""
        if not (self.folder / "run.json").exists():
            return
        committed = self.keys()
        assert set(committed.values()) <= {1}, "doubled"
        assert committed.keys() >= self.known, f"lost: {self.known - committed.keys()}"
        self.known = set(committed)

    def check_whole(self) -> None:
        """Each row once, with its tokens, for our reader and a plain glob."""
        self.check_committed()
        assert self.known == self.expected
        rows = (
            RunFolder.view(str(self.folder)).read(["problem_id", "sample", "token_ids", "error"]).to_pylist()
        )
        for row in rows:
            wanted = expected_tokens(make_request(row["problem_id"], row["sample"], 30))
            assert (row["token_ids"], row["error"]) == (wanted, None), row
        glob = ds.dataset(sorted(map(str, (self.folder / "completions").glob("*.parquet"))))
        table = glob.to_table(columns=["problem_id", "sample"])
        plain = Counter(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
        assert plain == Counter(self.expected), "a plain glob sees other rows than the ledger"

    def keys(self) -> Counter[tuple[str, int]]:
        table = RunFolder.view(str(self.folder)).read(["problem_id", "sample"])
        return Counter(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))

    def said(self) -> str:
        return self.log.read_text()[-3000:]


def stat_of(entry: Path) -> list[str]:
    """State, parent and so on of a process."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Zombies are not."""
    try:
        return stat_of(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--place", type=Path, help="keep everything here")
    chosen = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        place = chosen.place or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(place, chosen.kills, chosen.seed)
        try:
            chaos.run()
        finally:
            chaos.process.kill()
            print(f"{dict(chaos.killed)} in {time.monotonic() - began:.0f} s", flush=True)
        print(f"{chaos.killed.total()} kills, {len(chaos.expected)} rows: nothing lost, doubled or changed")


if __name__ == "__main__":
    main()
