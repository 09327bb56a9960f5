"""Error rows tried again and rows graded again, by the command line, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import expected_tokens
from jobs.here import HereGrader, command, counters, make_inputs
from results.readers import everywhere

from seer_ray.cluster.assignments import Outcome
from seer_ray.driver import run as run_driver
from seer_ray.driver.rendered import clock_of
from seer_ray.driver.requests import Renderer
from seer_ray.driver.session import Session
from seer_ray.engine.request import Completion
from seer_ray.results import ledger
from seer_ray.results.folder import RunFolder

ENGINE, WORKER = "the prompt has 9 tokens; the cache holds 8", "its worker died 3 times"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a run of problems a to d, two samples each."""
    monkeypatch.chdir(tmp_path)
    return [*make_inputs(tmp_path, "abcd"), "tracking.enabled=false"]


Decode = Callable[[dict[str, str]], None]


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch) -> Decode:
    """Sets what becomes of requests: errors by id; the others are done."""
    prompts: dict[str, Any] = {}

    def set_to(errors: dict[str, str]) -> None:
        def decode_all(session: Session, build: object, checked: object) -> None:
            if not prompts:
                prompts["made"] = Renderer(session.config)
            clock = clock_of(session.folder)
            queue = session.prepare(session.config, prompts["made"], clock, pool=HereGrader())
            queue.plan = "2L:dense"
            for request in [request for requests in queue._rounds for request in requests if request]:
                if error := errors.get(request.id):
                    failure = Completion(request, [], "", "error", error)
                    session.add(Outcome(failure, None if error == WORKER else "w0", 3))
                    continue
                tokens = expected_tokens(request)
                text = " ".join(map(str, tokens))
                session.add(
                    Outcome(Completion(request, tokens, text, "length", counters=counters(9)), "w0", 1)
                )
                session.tick()
            session.save()

        monkeypatch.setattr(run_driver, "_decode", decode_all)

    return set_to


def errors() -> dict[str, str]:
    table = RunFolder.view("runs/job").read(["problem_id", "sample", "error"]).to_pylist()
    return {f"{row['problem_id']}/{row['sample']}": row["error"] for row in table if row["error"]}


def test_error_rows_are_tried_again_by_kind(job: list[str], decode: Decode) -> None:
    decode({"a/0": WORKER, "b/1": ENGINE, "c/0": WORKER})
    result = command("run", *job)
    assert result.exit_code == 0, result.output
    assert "seer-ray resume runs/job --retry-errors" in result.output
    assert f"worker: {WORKER} (2: a/0, c/0)" in " ".join(result.output.split())
    before = everywhere(Path("runs/job"))
    assert command("resume", "job").exit_code == 0 and everywhere(Path("runs/job")) == before

    decode({"c/0": WORKER})
    result = command("resume", "job", "--retry-errors=worker")
    assert result.exit_code == 0 and "2 error rows are tried again" in result.output
    assert set(errors()) == {"b/1", "c/0"}
    assert errors()["b/1"].endswith(f"data.jsonl:2: {ENGINE}"), "what the engine says of a row has its place"

    decode({})
    result = command("resume", "job", "--retry-errors", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["errors"], summary["resumed"]) == (8, 0, 6)
    assert errors() == {} and len(everywhere(Path("runs/job"))) == 8
    assert RunFolder.view("runs/job").metrics()["rows/errors"] == 0  # type: ignore[index]
    assert command("resume", "job", "--retry-errors=workers").exit_code == 2
    again = command("resume", "job", "--retry-errors")
    assert again.exit_code == 0 and "no error row is of a kind to try again (all)" in again.output


def answers() -> dict[tuple[str, int], tuple[str | None, bool | None]]:
    names = ["problem_id", "sample", "extracted_answer", "correct"]
    return {(p, s): (answer, right) for p, s, answer, right in map(dict.values, read(names))}


def read(names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = RunFolder.view("runs/job").read(names).to_pylist()
    return rows


def test_a_run_is_graded_again(
    job: list[str], decode: Decode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "judge.py").write_text("def all_right(completion, answer):\n    return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    decode({"a/0": WORKER, "b/1": ENGINE})
    assert command("run", *job).exit_code == 0
    before = RunFolder.view("runs/job").metrics()
    written: list[str] = []
    real = ledger.Ledger.change

    def change(self: ledger.Ledger, stem: str, *more: Any) -> None:
        if len(written) == 2 and killed:
            raise KeyboardInterrupt
        written.append(stem)
        real(self, stem, *more)

    monkeypatch.setattr(ledger.Ledger, "change", change)
    killed = True
    result = command("grade", "job", "grader=judge:all_right")
    assert result.exit_code == 130
    assert "go on with: seer-ray grade job grader=judge:all_right" in result.output
    assert RunFolder.view("runs/job").metrics() is None and len(everywhere(Path("runs/job"))) == 8
    killed = False
    result = command("grade", "job", "grader=judge:all_right", "--json")
    assert result.exit_code == 0, result.output
    assert len(written) == len(set(written)), "no part was graded twice"
    found = RunFolder.view("runs/job").metrics()
    assert found["accuracy/avg"] == 0.75 and before["accuracy/avg"] < 0.75  # type: ignore[index]
    noted = RunFolder.view("runs/job").read_json("grader.json")
    assert noted["task"]["grader"] == "judge:all_right" and list(noted["source"]) == ["judge.py"]
    assert json.loads(result.stdout)["metrics"]["accuracy/avg"] == 0.75
    # What is decoded from now on is graded so too.
    decode({})
    assert command("resume", "job", "--retry-errors").exit_code == 0
    assert all(right for _, right in answers().values())
    report = command("report", "job")
    assert report.exit_code == 0 and "judge:all_right" in Path("runs/job/report.html").read_text()


def test_what_cannot_be_graded_is_refused(job: list[str], decode: Decode) -> None:
    decode({})
    assert command("run", *job).exit_code == 0
    before = everywhere(Path("runs/job"))
    for words, said in {
        ("job",): "no grader is named",
        ("job", "grader=exat"): "must be one of math, choice, exact",
        ("job", "grader=exact", "seed=4"): "made with other settings: seed",
        ("nothing", "grader=exact"): "no such run",
    }.items():
        result = command("grade", *words)
        assert result.exit_code == 2 and said in result.output, result.output
    assert everywhere(Path("runs/job")) == before and RunFolder.view("runs/job").metrics() is not None


def test_a_bad_row_refuses_the_run_if_asked(job: list[str], decode: Decode, tmp_path: Path) -> None:
    decode({})
    data = tmp_path / "data.jsonl"
    data.write_text(data.read_text() + '\n{"id": "e", "ques')
    result = command("run", *job, "task.on_bad_row=refuse")
    assert result.exit_code == 2 and not Path("runs/job").exists()
    assert f"{data}:5: malformed JSON" in result.output and "task.on_bad_row=error-row" in result.output
    assert command("run", *job).exit_code == 0
    assert list(errors()) == [f"{data}:5/0", f"{data}:5/1"]
