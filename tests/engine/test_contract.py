"""What is expected of a selector: ours keep to it, faults are found, and one of a user's own decodes."""

from __future__ import annotations

import pytest
from cli.conftest import one_error
from engines import make_engine, request, run, tokens
from typer.testing import CliRunner

from seer_ray.analysis.reads import Reads, reads
from seer_ray.cli.app import app
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import PlanConfig, SelectorConfig
from seer_ray.config.selectors import SELECTORS, traits_of
from seer_ray.engine.contract import check_selector
from seer_ray.models.plan import resolve_plan

OWN = "engine.own_selectors"


@pytest.mark.parametrize("name", [*(n for n, traits in SELECTORS.items() if traits.sparse), f"{OWN}:Norm"])
def test_who_keeps_to_it(name: str) -> None:
    found = list(check_selector(name))
    assert [one for one in found if one.fault] == [] and len(found) >= 9


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Nothing", "is Nothing"),
        ("Double", "are torch.float64 [4, 2, 6], of [4, 2, 6]"),
        ("BesideOthers", "row 1 has other scores beside others than alone"),
        ("ByPlace", "they change with the pages' places"),
        ("Unwritten", "they change with what is unwritten"),
        ("Writes", "scores() writes into q"),
        ("Asks", "RuntimeError: aten._local_scalar_dense.default asks what a tensor holds"),
    ],
)
def test_faults(name: str, fault: str) -> None:
    assert fault in [found.fault for found in check_selector(f"{OWN}:{name}")]


def test_the_command_says_each_and_ends_with_1() -> None:
    done = CliRunner().invoke(app, ["selectors", "check", f"{OWN}:Norm"])
    assert done.exit_code == 0 and all(line.startswith("ok ") for line in done.stdout.splitlines())
    bad = CliRunner().invoke(app, ["selectors", "check", f"{OWN}:ByPlace"])
    assert bad.exit_code == 1 and "no  scores do not depend on where pages lie: they change" in bad.stdout
    refused = one_error(CliRunner().invoke(app, ["selectors", "check", f"{OWN}:Nrm"]))
    assert refused == f"selector.name={OWN}:Nrm: module '{OWN}' has no class 'Nrm' (did you mean 'Norm'?)"


def test_one_s_own_decodes() -> None:
    """With a budget above the length as dense does, and else what its plan says."""
    requests = [request(f"p{i}", tokens(60 + 9 * i, seed=i)) for i in range(3)]
    dense, own = (make_engine(selector=name, budget=1024) for name in ("dense", f"{OWN}:Norm"))
    wanted = {id: done.tokens for id, done in run(dense, requests).items()}
    assert {id: done.tokens for id, done in run(own, requests).items()} == wanted
    sparse = run(make_engine(selector=f"{OWN}:Norm", budget=32), requests)
    assert all(0 < one.counters.attended_kv < one.counters.available_kv for one in sparse.values())


def test_its_plan_is_readable_and_its_own() -> None:
    selector = SelectorConfig(f"{OWN}:Norm", budget=64)
    plan = resolve_plan(selector, ["attention"] * 2, 16, PlanConfig(ratio="1"))
    assert plan.code == "2L:1norm64b16+1dense" and plan.id == f"{plan.code}@{plan.digest}"
    assert reads(plan.id) == (Reads(1, 64), Reads(1, None))
    assert traits_of(f"{OWN}:Norm").sparse and not traits_of(f"{OWN}:Norm").gates
    with pytest.raises(ConfigError, match=r"must be one of dense, .*, or module:Class"):
        traits_of("norm")
