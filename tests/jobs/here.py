"""Runs by the command line, decoded in this process without Ray: ``from jobs.here import decode_here``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_engine import expected_tokens, trace_at
from tiny import save_tiny
from typer.testing import CliRunner, Result

from seer_ray.cli.app import app
from seer_ray.cluster.assignments import Outcome
from seer_ray.config.errors import Interrupted
from seer_ray.driver.rendered import clock_of
from seer_ray.driver.requests import Renderer
from seer_ray.driver.session import Session
from seer_ray.engine.request import Completion, Counters, Progress, Request
from seer_ray.results.chain import Chain
from seer_ray.tasks.grading import Grade


def command(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def make_inputs(folder: Path, problems: str) -> list[str]:
    """A model and problems, and the options of a run of two samples of each."""
    save_tiny(folder / "model", "qwen3")
    data = [{"id": id, "question": f"{id}?", "answer": "4"} for id in problems]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, data)))
    options = ["name=job", f"model.name={folder}/model", f"task.data={folder}/data.jsonl", "selector=dense"]
    return [
        *options,
        "samples=2",
        "sampling.max_new_tokens=12",
        "results.part_interval=0",
        "results.report=false",
    ]


class HereGrader:
    """Grades at once, in this process: the last word is the answer."""

    def __init__(self) -> None:
        self._grades: list[tuple[Any, Grade]] = []

    def submit(self, key: Any, text: str, answer: str | None) -> None:
        self._grades.append((key, Grade(text[-1:] in "02468", text[-1:])))

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]:
        found, self._grades = self._grades, []
        return found

    def close(self) -> None: ...


def counters(tokens: int) -> Counters:
    return Counters(attended_kv=10 * tokens, available_kv=20 * tokens)


def decode_here(stop: int | None, prompts: dict[str, Any]) -> Callable[..., None]:
    """In place of Ray and its workers: a chain goes on from what is known of it, whatever that is.

    Args:
        stop: requests that are done when somebody stops the job, in the middle of the others; None: all.
        prompts: filled by the first that needs them.
    """

    def decode(session: Session, build: object, checked: object) -> None:
        clock = clock_of(session.folder)
        if not prompts:
            prompts["made"] = Renderer(session.config)
        queue = session.prepare(session.config, prompts["made"], clock, pool=HereGrader())
        queue.plan = "2L:dense"
        requests: list[Request] = [request for requests in queue._rounds for request in requests if request]
        for number, request in enumerate(requests):
            known, whole = list(request.progress.tokens), expected_tokens(request)
            if number == stop:
                break
            tokens = known + whole[len(known) :]
            cost = request.progress.counters.attended_kv // 10 + len(tokens) - len(known)
            trace = [trace_at(request, at) for at in range(len(tokens))] if request.record else []
            completion = Completion(
                request, tokens, " ".join(map(str, tokens)), "length", counters=counters(cost)
            )
            session.add(Outcome(completion, "w0", 1, trace))
            session.tick()
        else:
            session.save()
            return
        log = session._rows._log  # type: ignore[union-attr]
        for step in (3, 7):
            for request in requests[stop:]:
                log.chains[request.id] = chain = log.chains.get(request.id) or Chain.of(Progress())
                chain.extend(expected_tokens(request)[len(chain.tokens) : step], counters(step))
            log.flush()
        session.save()
        raise Interrupted("by the test")

    return decode
