from __future__ import annotations

import pytest
import yaml

from seer_ray.config.compose import compose, from_yaml, run_name
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import EngineConfig, RunConfig
from seer_ray.config.speculating import longest_draft, speculates


def differences(here: str, folder: str) -> str | None:
    sides = [Identity(yaml.safe_load(text), RunConfig) for text in (here, folder)]
    try:
        sides[0].refuse_differences(sides[1], "runs/x")
    except ConfigError as error:
        return str(error)
    return None


def options(selector: str, speculate: str, more: str = "", engine: str = "") -> str:
    return f"{{selector: {{name: {selector}{more}}}, engine: {{speculate: '{speculate}'{engine}}}}}"


@pytest.mark.parametrize("speculate, on, longest", [("0", False, 0), ("4", True, 4), ("auto", True, 7)])
def test_how_many_tokens_are_drafted(speculate: str, on: bool, longest: int) -> None:
    engine = EngineConfig(speculate=speculate)
    assert (speculates(engine), longest_draft(engine)) == (on, longest)


def test_it_is_written_as_a_number() -> None:
    config = compose(["engine.speculate=4"], RunConfig)
    assert config.engine.speculate == "4" and "4" in run_name(config)
    assert compose(["engine.speculate=0"], RunConfig) == compose([], RunConfig)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("engine: {speculate: '8'}", "engine.speculate=8: must be one of 0, 1"),
        ("{selector: {name: dense}, engine: {speculate: '4'}}", "has none; take selector=seer, quest"),
        ("{selector: {name: dense}, engine: {speculate: auto, drafter: both}}", "engine.drafter=both drafts"),
        (
            "{selector: {name: quest, sparse_prefill: true}, engine: {speculate: '4'}}",
            "selector.sparse_prefill=true: with engine.speculate=4",
        ),
        ("engine: {drafter: ngrams}", "must be one of selector, ngram, both"),
    ],
)
def test_what_cannot_draft_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_yaml(wrong)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_n_grams_need_no_selector() -> None:
    from_yaml("{selector: {name: dense}, engine: {speculate: '4', drafter: ngram}}")


@pytest.mark.parametrize(
    "here, folder",
    [
        (options("seer", "4"), options("seer", "6")),
        (options("seer", "4", ", budget: 512"), options("quest", "auto", ", budget: 64", ", drafter: both")),
        (options("seer", "4", ", budget: 512"), options("dense", "0", ", budget: 64")),
        (options("dense", "0"), options("seer", "4", ", layers: {'0': quest}")),
        (options("dense", "4", engine=", drafter: ngram"), options("dense", "0")),
        (options("seer", "4", engine=", exact: true"), options("dense", "0", engine=", exact: true")),
    ],
)
def test_what_drafts_decides_no_row(here: str, folder: str) -> None:
    assert differences(here, folder) is None and differences(folder, here) is None


@pytest.mark.parametrize(
    "here, folder, said",
    [
        (options("seer", "4"), options("seer", "0"), "selector.name: dense here, seer in the folder"),
        (options("seer", "0"), options("seer", "0", ", budget: 64"), "selector.budget: 2048 here"),
        (
            options("seer", "4", ", prefill: {density: 0.5}"),
            options("dense", "0"),
            "selector.prefill.density: 0.5 here, not set in the folder",
        ),
    ],
)
def test_other_rows_are_refused(here: str, folder: str, said: str) -> None:
    assert said in str(differences(here, folder))


def test_runs_that_draft_otherwise_have_folders_of_their_own() -> None:
    ways = ("0", "4", "6", "auto")
    names = {run_name(compose([f"engine.speculate={way}"], RunConfig)) for way in ways}
    assert len(names) == len(ways)


def test_an_option_that_is_off_changes_no_name() -> None:
    """Folders of before it was there go on under their names."""
    config = Identity.of(RunConfig())
    assert not any(name.startswith(("engine.speculate", "engine.drafter")) for name in config.deciding)
