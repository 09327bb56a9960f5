"""What a page says of where its rows come from, its headline, its filters, and pages of other jobs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from analysis.made_runs import keep_inputs, make_config, make_run

from seer_ray.analysis.comparison import compare
from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import GatesEvalConfig, GatesSharesConfig
from seer_ray.config.options import ResultsConfig, RunConfig
from seer_ray.config.training import DistillConfig
from seer_ray.report.headline import headline
from seer_ray.report.html import make_report
from seer_ray.report.inputs import inputs_of
from seer_ray.report.make import make_page
from seer_ray.report.origin import origin
from seer_ray.results import provenance
from seer_ray.results.folder import RunFolder
from seer_ray.results.history import History
from seer_ray.results.job import JobFolder


def facts(run: Path) -> dict[str, list[str]]:
    return {
        fact.label: [text for text, _ in fact.values]
        for fact in origin({"a": RunFolder.view(str(run))}, RunConfig)
    }


def test_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "quest", 48, problems=3)
    config = make_config(tmp_path, "quest", 48, 3, 2)
    monkeypatch.setattr(
        "sys.argv", ["/somewhere/bin/seer-ray", "run", "tracking.uri=http://me:secret123@host"]
    )
    with RunFolder.open(str(run), config) as folder:
        provenance.note(folder, config)
        folder.write_json("dataset.json", {"digest": "0123", "problems": 3})
        folder.write_json("sources.json", {"version": 1, "sources": {"model.name": {"commit": "abc"}}})
    found = facts(run)
    assert found["Command"] == ["seer-ray run tracking.uri=http://***@host"]
    assert found["Model"] == [f"{config.model.name}, revision abc"]
    assert "samples=2" in found["Sampling"][0] and "max_new_tokens=" in found["Sampling"][0]
    assert found["Prompt"] == ["{question}"] and found["Grader"] == ["math"]
    assert found["Data"][0].endswith("3 problems, digest 0123")
    assert re.match(r"seer-ray \S+, torch \S+", found["Code"][0])
    assert found["Begun"][0].endswith(" UTC")
    page = make_report([str(run)]).html
    assert "How this was made" in page and "seer-ray run tracking.uri=http://***@host" in page
    assert "secret123" not in page


def test_what_differs_is_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "quest", 48, problems=2), make_run(tmp_path, "seer", 48, problems=2)]
    with RunFolder.open(str(runs[0]), make_config(tmp_path, "quest", 48, 2, 2)) as folder:
        folder.write_json("dataset.json", {"digest": "0123", "problems": 2})
    folders = {run.name: RunFolder.view(str(run)) for run in runs}
    (data,) = [fact for fact in origin(folders, RunConfig) if fact.label == "Data"]
    assert [names for _, names in data.values] == ["quest-48", "seer-48"]


def test_headlines_have_three_figures(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", "seer", 96, problems=5)
    assert [label.split(",")[0] for _, label in headline(compare([str(alone)]))] == [
        "accuracy",
        "of the KV read by seer 96",
        "tokens a chain",
    ]
    runs = [make_run(tmp_path, *of) for of in (("dense", 2048), ("quest", 48))]
    comparison = compare([str(run) for run in runs])
    figures = headline(comparison)
    assert len(figures) == 3
    page = make_report([str(run) for run in runs]).html
    assert page.count('<div class="tile">') == 3
    assert page.index('<div class="tile">') < page.index('<div class="verdict')


def test_runs_without_a_problem_in_common_are_refused(tmp_path: Path) -> None:
    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "problem_id": "q" + row["problem_id"]}

    one = make_run(tmp_path, "dense", problems=3)
    config = make_config(tmp_path, "quest", 48, 3, 2)
    with RunFolder.open(str(tmp_path / "other"), config) as folder:
        folder.commit(map(renamed, RunFolder.view(str(one)).read().to_pylist()))
    with pytest.raises(ConfigError, match=r"other: has no problem in common with .*dense; give each"):
        make_report([str(one), str(tmp_path / "other")])


def test_columns_with_few_values_are_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_inputs(monkeypatch)
    found = inputs_of([RunFolder.view(str(make_run(tmp_path, problems=6)))])
    assert len(found) == 6 and found["p3"] == {"subject": "geometry", "level": "1"}


def test_a_dense_run_has_no_plot_of_what_its_layers_leave_out(tmp_path: Path) -> None:
    plots = make_report([str(make_run(tmp_path, problems=4))]).plots
    assert [plot.name for plot in plots] == ["lengths"]


def made(tmp_path: Path, config: Any, files: dict[str, Any]) -> str:
    config.name, config.results = "job", ResultsConfig(folder=str(tmp_path))
    with JobFolder.open(str(tmp_path / "job"), config) as folder:
        for name, content in files.items():
            folder.store.write(name, json.dumps(content).encode())
        return folder.uri


def check(page: Any, *words: str) -> None:
    """A whole page that says these words."""
    assert all(word in page.html for word in words), [word for word in words if word not in page.html]
    assert page.html.count('<div class="tile">') <= 3
    assert "default-src 'none'" in page.html and "How this was made" in page.html
    for plot in page.plots:
        ElementTree.fromstring(plot.svg)


def test_the_page_of_training(tmp_path: Path) -> None:
    uri = made(tmp_path, DistillConfig(data="texts.jsonl"), {})
    with pytest.raises(ConfigError, match="nothing is recorded yet"):
        make_page([uri])
    history = History(JobFolder.view(uri).store)
    for step in (10, 20, 30):
        history.add(step, {"train/loss": 1.0 / step, "train/tokens": 100.0 * step, "train/lr": 1e-3})
    history.add(30, {"eval/loss": 0.5, "eval/mass": 0.75, "eval/mass/layer_0": 0.5})
    page = make_page([uri])
    check(page, "distill · 30 steps", "eval/loss, last", "tokens learned from", "By layer, last values")
    assert [plot.name for plot in page.plots] == ["by-step-loss", "by-step-lr"], "one point is no curve"
    with pytest.raises(ConfigError, match="stands alone"):
        make_page([uri, uri])


def test_the_page_of_an_evaluation_of_gates(tmp_path: Path) -> None:
    measured = {"model": "m", "documents": 2, "tokens": 4000, "block_size": 64}
    rows = [
        {
            "positions": "all",
            "budget": budget,
            "selector": selector,
            "read": read,
            "mass": 0.9,
            "mass_se": 0.01,
            "of_oracle": 0.95,
            "worst_of_oracle": 0.9,
            "worst_layer": 1,
            "recall": 0.8,
            **dict.fromkeys(("kl", "kl_se", "top1", "top1_se"), None if budget == "1/8" else 0.01),
        }
        for budget, read in (("1/8", 250.0), ("1/4", 500.0))
        for selector in ("seer", "quest")
    ]
    layers = [
        {**{k: r[k] for k in ("positions", "budget", "selector", "mass")}, "layer": layer}
        for r in rows
        for layer in (0, 1)
    ]
    content = {**measured, "gates": {"seer": "gates"}, "table": rows, "sources": [], "layers": layers}
    page = make_page([made(tmp_path, GatesEvalConfig(), {"figures.json": content})])
    check(page, "m · 2 documents, 4,000 tokens · blocks of 64", "Positions: all", "1/8, quest", "seer: gates")
    assert {plot.name for plot in page.plots} >= {"mass-by-layer-1-8", "mass-by-layer-1-4", "mass"}


def test_the_page_of_shares(tmp_path: Path) -> None:
    spent = [
        {
            "selector": name,
            "budget": budget,
            "read": 500.0,
            "kl": 0.1,
            "uniform": 0.3,
            "layers": [1.0, 2.0, 3.0],
        }
        for name in ("seer", "quest")
        for budget in (256, 512)
    ]
    layers = [{"layer": layer, "kl": 0.1 * layer} for layer in range(3)]
    content = {"model": "m", "documents": 1, "tokens": 9, "block_size": 8, "spent": spent, "layers": layers}
    page = make_page([made(tmp_path, GatesSharesConfig(), {"figures.json": content})])
    check(page, "KL expected at a mean of 512 tokens, nats", "quest, 256", "KV tokens read by layer")
    assert [plot.name for plot in page.plots] == ["kl-alone", "reads-by-layer"]
