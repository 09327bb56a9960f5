"""Workers, then the driver, are killed with SIGKILL at random moments, many times in a run of a small job."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from families import make_family
from tiny import save_tiny, tiny_tokenizer

from seer_ray.config.compose import from_yaml, to_yaml
from seer_ray.config.options import RunConfig
from seer_ray.results.folder import RunFolder

PROBLEMS, SAMPLES, LONGEST = 12, 2, 500
WORKER_KILLS = (5, 0, 6, 5)
"""In each session, before its driver is killed; 0: that one is killed while it starts."""
PACE = 0.1
"""Seconds that an engine rests after a step, while there are processes to be killed."""
MOST_LOST = 50
"""Tokens that a death may cost a chain. They are reported every 0.1 s, the time of one: this is generous."""
PATIENCE = 240.0
"""Seconds after which something that should have happened has not."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path: Path) -> None:
    """Few of them, in a model with states as well, are in the next test."""
    model = save_tiny(tmp_path / "model", "qwen3", max_position_embeddings=2048)
    survive(tmp_path, model, WORKER_KILLS, LONGEST)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_of_a_hybrid(tmp_path: Path, long: bool) -> None:
    """Gated DeltaNet and gated attention by turns: its states are computed anew. Without experts, of which
    exact mode computes each row alone."""
    model = make_family("qwen3_next", max_position_embeddings=2048, num_experts=0)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    survive(tmp_path, tmp_path / "model", (2, 0, 1) if long else (1,), 120)


def survive(tmp_path: Path, model: Path, worker_kills: Sequence[int], longest: int) -> None:
    """That a job which is killed has the rows of one that nobody disturbed."""
    data = tmp_path / "data.jsonl"
    rows = (
        {"id": f"p{n}", "question": f"What is {n} + {n * n}?", "answer": str(n + n * n)}
        for n in range(PROBLEMS)
    )
    data.write_text("\n".join(map(json.dumps, rows)))

    calm = Run(tmp_path, "calm", model, data, 0.0, longest)
    calm.start()
    calm.wait_for(lambda: calm.process.poll() is not None, "the end")
    assert calm.process.returncode == 0, calm.output()
    expected = calm.rows()
    assert len(expected) == PROBLEMS * SAMPLES
    assert expected["finish_reason"].to_pylist().count("error") == 0

    run, chance = Run(tmp_path, "killed", model, data, PACE, longest), random.Random(20)
    for kills in worker_kills:
        known = run.known_tokens()
        begun = run.start()
        for _ in range(kills):
            # When both are at work, or when one of them may only have begun to load its model.
            run.wait_for_workers(chance.choice((1, 2)))
            run.wait_for_progress()
            time.sleep(chance.uniform(0.0, 1.0))
            os.kill(chance.choice(run.descendants("ray::Worker")), signal.SIGKILL)
        if kills:
            run.wait_for_progress()
        time.sleep(chance.uniform(0.0, 2.0 if kills else 8.0))
        assert run.process.poll() is None, f"too short for all kills, or failed: {run.output()}"
        family = run.descendants("ray::Worker", "raylet", "gcs_server")
        run.process.kill()
        run.process.wait()
        run.wait_for(partial(all_gone, family), "the end of what a driver leaves")
        for id, tokens in known.items():
            for resumed in run.begun(begun).get(id, []):
                assert resumed >= tokens > 0, f"{id} had {tokens} tokens and began again with {resumed}"
    known = run.known_tokens()
    assert known, "nothing was begun when the last driver died: the job was too short for this test"
    run.pace = 0.0
    begun = run.start()
    run.wait_for(lambda: run.process.poll() is not None, "the end")
    assert run.process.returncode == 0, run.output()
    for id, tokens in known.items():
        assert min(run.begun(begun)[id]) >= tokens

    rows_now = run.rows()
    keys = list(zip(rows_now["problem_id"].to_pylist(), rows_now["sample"].to_pylist(), strict=True))
    assert sorted(keys) == [(f"p{n}", s) for n in sorted(range(PROBLEMS), key=str) for s in range(SAMPLES)]
    for column in SAME:
        assert rows_now[column].to_pylist() == expected[column].to_pylist(), column
    assert max(rows_now["attempts"].to_pylist()) > min(2, len(worker_kills)), "nobody noticed the kills"
    assert run.most_lost() <= MOST_LOST
    assert calm.most_lost() == 0


SAME = (
    "problem_id",
    "sample",
    "token_ids",
    "completion",
    "finish_reason",
    "extracted_answer",
    "correct",
    "completion_tokens",
    "attended_kv",
    "available_kv",
    "error",
)


class Run:
    """A run folder and the processes that come and go on it."""

    patience = PATIENCE

    def __init__(self, tmp_path: Path, name: str, model: Path, data: Path, pace: float, longest: int) -> None:
        config = RunConfig(name=name, samples=SAMPLES)
        config.model.name, config.task.data = str(model), str(data)
        config.sampling.max_new_tokens, config.sampling.temperature = longest, 1.0
        config.selector.name, config.selector.budget = "quest", 64
        config.engine.exact, config.engine.max_batch, config.engine.block_size = True, 4, 16
        cluster, results = config.cluster, config.results
        cluster.address, cluster.workers, cluster.num_cpus = "local", 2, 1
        cluster.report_interval, cluster.max_attempts = 0.1, 20
        cluster.max_deaths = 100  # it is not the workers' fault that they are killed while they start
        results.folder = str(tmp_path / "runs")
        results.part_interval = results.progress_interval = 0.2
        config.tracking.enabled = False
        self.text = to_yaml(config)
        self.config, self.journal, self.log = (
            tmp_path / f"{name}.{end}" for end in ("yaml", "journal", "log")
        )
        self.config.write_text(self.text)
        self.folder = tmp_path / "runs" / name
        self.pace = pace
        self.process: subprocess.Popen[bytes]

    def start(self) -> int:
        """Gives the command (again); where in the journal it begins."""
        offset = self.journal.stat().st_size if self.journal.exists() else 0
        with self.log.open("ab") as log:
            driver = Path(__file__).with_name("faults_driver.py")
            self.process = subprocess.Popen(
                [sys.executable, str(driver), str(self.config), str(self.journal), str(self.pace)],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return offset

    def wait_for(self, what: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + self.patience
        while not what():
            assert time.monotonic() < deadline, f"waited for {name}: {self.output()}"
            time.sleep(0.05)

    def wait_for_progress(self) -> None:
        """Until tokens have come to the disk since now."""
        folder = self.folder / "progress"
        before = set(os.listdir(folder)) if folder.exists() else set()

        def moved() -> bool:
            assert self.process.poll() is None, f"too short for all kills, or failed: {self.output()}"
            return folder.exists() and bool(set(os.listdir(folder)) - before)

        self.wait_for(moved, "progress")

    def wait_for_workers(self, count: int) -> None:
        """Until so many decode."""
        self.wait_for(lambda: len(self.descendants("ray::Worker.work")) >= count, f"{count} workers")

    def descendants(self, *names: str) -> list[int]:
        """Processes below the driver whose command line has one of these names."""
        parents, commands = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                    commands[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
        found = []
        for pid, command in commands.items():
            if any(name in command for name in names):
                above = pid
                while above and above != self.process.pid:
                    above = parents.get(above, 0)
                if above:
                    found.append(pid)
        return found

    def known_tokens(self) -> dict[str, int]:
        """Tokens on disk of the chains that are not done, by request."""
        with RunFolder.open(str(self.folder), from_yaml(self.text)) as folder:
            return {id: len(c.tokens) for id, c in folder.progress().chains.items() if c.tokens}

    def begun(self, offset: int) -> dict[str, list[int]]:
        """Tokens that each request had when a worker got it, from a place in the journal on."""
        found = defaultdict(list)
        for line in self.journal.read_bytes()[offset:].decode().splitlines():
            word, id, tokens = line.split()
            if word == "begin":
                found[id].append(int(tokens))
        return found

    def most_lost(self) -> int:
        """Most tokens of one chain that an engine had made and the next one had to make again."""
        lengths: dict[str, int] = defaultdict(int)
        lost = 0
        for line in self.journal.read_text().splitlines():
            word, id, tokens = line.split()
            if word == "begin":
                lost = max(lost, lengths[id] - int(tokens))
                lengths[id] = int(tokens)
            else:
                lengths[id] += int(tokens)
        return lost

    def rows(self) -> pa.Table:
        return (
            RunFolder.view(str(self.folder))
            .read()
            .sort_by([("problem_id", "ascending"), ("sample", "ascending")])
        )

    def output(self) -> str:
        return self.log.read_text()[-3000:]


def all_gone(pids: list[int]) -> bool:
    """Whether none of these processes runs; zombies do not."""
    states = []
    for pid in pids:
        with contextlib.suppress(OSError):
            states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return set(states) <= {"Z"}
