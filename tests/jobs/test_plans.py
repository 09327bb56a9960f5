"""Sweeps over layer plans, decoded by the engine itself: a tiny model of eight layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs.sweeps import Recorder, folder, rows, states
from tiny import save_tiny

from seer_ray.analysis.comparison import compare
from seer_ray.cluster.worker import build_engine
from seer_ray.config.compose import from_yaml
from seer_ray.config.options import SweepConfig
from seer_ray.jobs import sweep
from seer_ray.sweeps.estimate import estimate
from seer_ray.sweeps.points import expand

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("eight"), "qwen3", num_hidden_layers=8)


@pytest.mark.slow
def test_ratios_beside_what_they_read(base: SweepConfig, eight: Path) -> None:
    base.model.name, base.samples, base.sampling.max_new_tokens = str(eight), 1, 100
    base.sampling.ignore_eos, base.results.report = True, True
    words = ["selector=quest", "selector.budget=32", "plan.ratio=0,1,3,6,inf"]
    config = expand(words, base)
    assert {point.plan for point in estimate(config).points} > {"8L:dense", "8L:quest32b16"}
    summary = sweep.main(config, Recorder(), build_engine)
    names = ["dense", *(f"quest-32-ratio={ratio}" for ratio in ("1", "3", "6", "inf"))]
    assert states(base) == dict.fromkeys(names, "done")
    found = {point["slug"]: point["metrics"] for point in summary.points}
    counts = dict(zip(names, [(0, 8), (4, 4), (6, 2), (7, 1), (8, 0)], strict=True))
    for name, (sparse, dense) in counts.items():
        metrics = found[name]
        assert metrics.get("plan/sparse_per_dense") == (sparse / dense if dense else None)
        spent = [(row["prompt_tokens"], row["completion_tokens"]) for row in rows(base, name)]
        lengths = [prompt + step for prompt, tokens in spent for step in range(tokens)]
        read = sum(dense * n + sparse * min(n, 32) for n in lengths) / (8 * sum(lengths))
        assert metrics["kv/nominal_read_rate"] == pytest.approx(read)
        # The last block of a budget is seldom full.
        short = sum(sparse * 15 for _ in lengths) / (8 * sum(lengths))
        assert read - short <= metrics["kv/read_rate"] <= read + 1e-12
        assert metrics["kv/read_rate"] == pytest.approx(1 - metrics["kv/sparsity"])
    rates = [found[name]["kv/read_rate"] for name in names]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True)
    plans = {point["slug"]: point["plan"] for point in folder(base).points}
    for name in names:
        assert {row["selector"] for row in rows(base, name)} == {plans[name]}, (
            "rows say which plan decoded them"
        )
    assert plans["quest-32-ratio=3"].startswith("8L:6quest32b16+2dense@")
    compared = {one.name: one.metrics for one in compare([folder(base).uri]).runs}
    assert {name: metrics["kv/nominal_read_rate"] for name, metrics in compared.items()} == {
        name.replace("quest-32-", "quest 32 "): metrics["kv/nominal_read_rate"]
        for name, metrics in found.items()
    }
    page = Path(folder(base).uri, "report.html").read_text()
    assert "KV read, nominal" in page
    assert from_yaml(folder(base).config_yaml, job=SweepConfig).sweep.points[2]["plan.ratio"] == "3"
    assert json.loads(json.dumps(folder(base).points[-1]["overrides"]))["plan.ratio"] == "inf"


def test_plans_that_are_alike_are_one_and_what_the_model_cannot_have_is_told(
    base: SweepConfig, eight: Path
) -> None:
    base.model.name = str(eight)
    words = ["selector=quest", "selector.budget=32"]
    points = ["plan.named=quarter", "plan.ratio=3", "plan.anchors=1 plan.ranking=[9]"]
    said = estimate(expand(words, base, points))
    assert said.same == {"quest-32-ratio=3": "quest-32-named=quarter"}
    (failed,) = [point for point in said.points if point.error]
    assert (
        failed.error
        == "plan.ranking=[9]: this model has no layer 9 with full attention; give a ranking of its own layers"
    )
