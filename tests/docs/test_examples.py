"""The Python of the docs is run."""

from __future__ import annotations

import os
import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as parquet
import pytest
from checkout import ROOT
from pages import blocks

from seer_ray.analysis.rows import Rows, Run, Totals
from seer_ray.config.compose import compose
from seer_ray.config.options import EngineConfig, ModelConfig, SelectorConfig
from seer_ray.config.selectors import SELECTORS
from seer_ray.engine import Completion, Engine, Request, SamplingParams
from seer_ray.engine.contract import check_selector
from seer_ray.jobs import call
from seer_ray.models.load import load_model
from seer_ray.models.mixers import MIXERS
from seer_ray.results import schema
from seer_ray.status.live import Summary
from seer_ray.tasks.graders import make_grader

GUIDE, RESULTS, EXTENDING = (ROOT / "docs" / f"{page}.md" for page in ("guide", "results", "extending"))


def code(page: Path, begin: str) -> str:
    """The one block of Python that begins so."""
    (found,) = [block for block in blocks(page, "python") if block.startswith(begin)]
    return found


def run(text: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that a block of Python makes; tables that it adds to are copies."""
    names = {name: dict(value) if type(value) is dict else value for name, value in (names or {}).items()}
    exec(compile(text, "docs", "exec"), names)
    return names


def module(path: str) -> dict[str, Any]:
    """A copy of a module's names."""
    return dict(vars(import_module(path)))


def added(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the module of the package that a block of Python is, its path on the first line."""
    path = re.match(r"# (\S+)\.py\n", text)
    assert path
    made = ModuleType(path[1].replace("/", "."))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(text, made.__name__, "exec"), vars(made))


def decoded(selector: SelectorConfig) -> Completion:
    """A few tokens of the small reasoner, after a prompt of 100."""
    engine = Engine(
        load_model(ModelConfig(name="reasoner")), EngineConfig(block_size=8, max_batch=1), selector
    )
    engine.submit(Request("a", tuple(range(5, 105)), SamplingParams(max_new_tokens=24)))
    (completion,) = engine.run()
    return completion


def test_the_engine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = code(GUIDE, "from seer_ray import Engine")
    run(text)
    reason, said = capsys.readouterr().out.strip().split(" ", 1)
    *_, comment = text.splitlines()
    promised = comment.removeprefix(f"# {reason} ").split(" ... ")
    assert len(promised) == 3 and re.fullmatch(".*".join(map(re.escape, promised)), said, re.DOTALL)


@pytest.mark.parametrize(("package", "prints"), [("duckdb", True), ("polars", False)])
def test_readers(
    package: str,
    prints: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(package)
    folder = tmp_path / "runs" / "one" / "completions"
    folder.mkdir(parents=True)
    parquet.write_table(schema.table([row("a", 0), row("a", 1)]), folder / "part.parquet")
    monkeypatch.chdir(tmp_path)
    *_, query = code(RESULTS, f"import {package}").split("\n\n")
    names = run(f"import {package} as {'pl' if package == 'polars' else package}")
    if prints:
        run(query, names)
        assert "0.5" in capfd.readouterr().out
    else:
        assert eval(query, names).to_dicts() == [{"selector": "4Ldense", "correct": 0.5, "attended_kv": 0.25}]


def row(problem: str, sample: int) -> dict[str, Any]:
    """The first sample is right; both read a quarter."""
    texts = dict.fromkeys(("prompt", "completion", "model"), "x")
    numbers = dict.fromkeys(("seed", "prompt_tokens", "preemptions", "attempts"), 1)
    times = dict.fromkeys(("queued_s", "prefill_s", "decode_s"), 1.0)
    return {
        **texts,
        **numbers,
        **times,
        "problem_id": problem,
        "sample": sample,
        "token_ids": [1, 2],
        "finish_reason": "stop",
        "correct": sample == 0,
        "completion_tokens": 2 + sample,
        "attended_kv": 10,
        "available_kv": 40,
        "selector": "4Ldense",
        "finished_at": 0,
    }


def test_a_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    added(code(EXTENDING, "# seer_ray/selectors/"), monkeypatch)
    table = run(code(EXTENDING, "# seer_ray/config/selectors.py"), module("seer_ray.config.selectors"))
    (name,) = table["SELECTORS"].keys() - SELECTORS.keys()
    looks = [(traits.colours, traits.marker) for traits in table["SELECTORS"].values()]
    assert len(set(looks)) == len(looks)
    monkeypatch.setitem(SELECTORS, "random", table["SELECTORS"][name])  # options know the names there were
    counted = decoded(SelectorConfig(name="random", budget=40)).counters
    assert 0 < counted.attended_kv < counted.available_kv / 2


def test_a_selector_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_selectors.py").write_text(code(EXTENDING, "# my_selectors.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_selectors", raising=False)
    assert [found for found in check_selector("my_selectors:Norm") if found.fault] == []
    counted = decoded(SelectorConfig(name="my_selectors:Norm", budget=40)).counters
    assert 0 < counted.attended_kv < counted.available_kv / 2


def test_a_whole_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Any] = []

    def stand_in(*settings: Any) -> Summary:
        given.extend(settings)
        return Summary("mine", "runs/mine", metrics={"accuracy/avg": 0.5})

    monkeypatch.setattr(call, "run", stand_in)
    run(code(GUIDE, "import seer_ray\n"))["measure"]("mine")
    assert capsys.readouterr().out == "0.5 runs/mine\n"
    assert compose(call._words(given, several=False)).task.limit == 64


def test_a_mixer(monkeypatch: pytest.MonkeyPatch) -> None:
    added(code(EXTENDING, "# seer_ray/engine/mixers/"), monkeypatch)
    table = run(code(EXTENDING, "# seer_ray/models/mixers.py"), module("seer_ray.models.mixers"))
    (name,) = table["MIXERS"].keys() - MIXERS.keys()
    assert callable(pkgutil.resolve_name(str(table["MIXERS"][name].attention)))
    dense = decoded(SelectorConfig())
    monkeypatch.setitem(MIXERS, "attention", table["MIXERS"][name])
    own = decoded(SelectorConfig())
    assert own.tokens != dense.tokens and own.counters.attended_kv < dense.counters.attended_kv


def test_a_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = code(EXTENDING, "# my_grader.py")
    (tmp_path / "my_grader.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_grader", raising=False)
    grade = make_grader("my_grader:same_number")
    assert grade("It is 12.", "12").correct is True
    assert grade("It is 13.", "12").correct is False
    assert os.getcwd() not in sys.path


def test_a_metric() -> None:
    text = code(EXTENDING, "# seer_ray/analysis/metrics.py").partition("\n")[2]
    metric = eval(text, module("seer_ray.analysis.metrics"))
    table = schema.table([row("a", 0), row("a", 1)])
    rows = Rows({*metric.columns, "error"})
    for batch in table.to_batches():
        rows.add(batch)
    value = metric.of(Run(Totals(), rows))
    assert value == 2 and metric.said(metric.summary.words, {metric.name: value}) == "2 at least"


def test_the_options_of_a_job() -> None:
    names = run(code(EXTENDING, "# seer_ray/config/measuring.py"), module("seer_ray.config.measuring"))
    made = names["LossConfig"]
    assert made().about() == ["loss", "reasoner"] and made.command == "loss"
