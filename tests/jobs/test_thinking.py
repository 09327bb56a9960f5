"""A run with a thinking budget, from the command line to the rows: stopped in the middle and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from engines import make_engine
from jobs.here import HereGrader, command, make_inputs
from tiny import tiny_tokenizer

from seer_ray.cluster.assignments import Outcome
from seer_ray.config.errors import Interrupted
from seer_ray.driver import run as run_driver
from seer_ray.driver.rendered import clock_of
from seer_ray.driver.requests import Renderer
from seer_ray.driver.session import Session
from seer_ray.results.chain import Chain
from seer_ray.results.folder import RunFolder

BUDGET = 5
CLOSE = tiny_tokenizer()("</think>", add_special_tokens=False)["input_ids"]
OPTIONS = (
    "engine=exact",
    "engine.block_size=16",
    "sampling.max_new_tokens=24",
    # The template's words before an answer stand for an opening mark.
    "task.thinking_marks=['<|im_start|>assistant','</think>']",
    "tracking.enabled=false",
)


class Decoder:
    """In place of Ray: an engine in this process. Stops after so many steps, its chains logged; 0: never."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def __call__(self, session: Session, build: object, checked: object) -> None:
        clock = clock_of(session.folder)
        renderer = Renderer(session.config, clock)
        queue = session.prepare(session.config, renderer, clock, pool=HereGrader())
        queue.release()
        engine, steps = make_engine(exact=True), 0
        requests = queue.assignments.dispatch("w0", 100, 1)
        log = session._rows._log  # type: ignore[union-attr]
        for request in requests:
            engine.submit(request)
        while engine.busy:
            for delta in engine.step():
                if delta.completion is not None:
                    session.add(Outcome(delta.completion, "w0", 1))
                elif delta.counters is not None:
                    log.chains.setdefault(delta.request_id, Chain()).extend(delta.tokens, delta.counters)
            steps += 1
            if steps == self.steps:
                log.flush()
                session.save()
                raise Interrupted("by the test")
        session.save()


def rows(folder: Path) -> list[dict[str, Any]]:
    table = ds.dataset(folder / "completions", format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["problem_id"], row["sample"]))


def test_a_run_with_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*make_inputs(tmp_path, "ab"), *OPTIONS]
    found = {}
    for name, budget, stops in (
        ("free", "null", [0]),
        ("whole", BUDGET, [0]),
        ("killed", BUDGET, [3, 9, 0]),
    ):
        for steps in stops:
            monkeypatch.setattr(run_driver, "_decode", Decoder(steps))
            given = [f"sampling.thinking_budget={budget}", f"results.folder={tmp_path / name}"]
            result = command("run", *options, *given)
            assert result.exit_code == (130 if steps else 0), result.output
        found[name] = rows(tmp_path / name / "job")
    for free, whole, killed in zip(*found.values(), strict=True):
        chain = whole["token_ids"]
        assert killed["token_ids"] == chain
        assert chain[:BUDGET] == free["token_ids"][:BUDGET]
        assert chain[BUDGET : BUDGET + len(CLOSE)] == CLOSE
        assert (whole["thinking_tokens"], whole["thinking_forced"]) == (BUDGET, True)
        assert (killed["thinking_tokens"], killed["thinking_forced"]) == (BUDGET, True)
        assert (free["thinking_tokens"], free["thinking_forced"]) == (len(free["token_ids"]), None)
        assert free["answer"] is None and whole["answer"] is not None
    metrics = RunFolder.view(str(tmp_path / "whole" / "job")).metrics()
    assert metrics is not None
    assert (metrics["thinking/mean_tokens"], metrics["thinking/forced_rate"]) == (BUDGET, 1.0)


def test_an_end_without_a_budget_is_refused() -> None:
    result = command("run", "sampling.thinking_end=</think>")
    assert result.exit_code == 2 and "sampling.thinking_end='</think>': means nothing" in result.output
