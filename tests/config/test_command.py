"""Options back to the command line."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seer_ray.config.command import command_line, typed
from seer_ray.config.compose import compose


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["task=gsm8k", "samples=2", "task.data=my problems.jsonl", "task.limit=64"],
        ["model=qwen3-4b", "task=aime24", "selector=oracle", "engine=exact", "selector.budget=8192"],
        ["model=smollm2", "task=gsm8k"],
        ["task.data=mine.jsonl", "task.limit=3"],
        ["model.name=some/folder", "cluster.workers=2", "sampling.temperature=0.6"],
    ],
)
def test_the_command_is_what_was_typed(words):
    config = compose(words)
    config.name = "made-up"
    assert sorted(shlex.split(command_line(config))) == sorted(["seer-ray", "run", *words])


def test_a_change_takes_the_place_of_its_section():
    config = compose(["selector=window", "selector.budget=512", "seed=3"])
    assert command_line(config, "selector=dense") == "seer-ray run seed=3 selector=dense"


def test_a_change_of_an_option_takes_its_place_alone():
    config = compose(["engine.speculate=4", "engine.drafter=both", "selector.prefill.density=0.3"])
    line = command_line(config, "engine.speculate=0")
    assert line.endswith(" engine.speculate=0") and line.count("engine.speculate") == 1
    assert "engine.drafter=both" in line and "selector.prefill.density=0.3" in line
    line = command_line(
        compose(["selector.prefill.density=0.3"]), "selector=dense", "selector.prefill.density=null"
    )
    assert line == "seer-ray run selector=dense selector.prefill.density=null"


@pytest.mark.parametrize(
    "override", ["task.few_shot=[{question: hi, answer: 3}]", "sampling.stop=[a]", "task.system='a, b'"]
)
def test_what_is_hard_to_type_refers_to_the_file(override):
    config = compose([override, "name=mine"])
    assert command_line(config, "selector=dense") == (
        "seer-ray run --config runs/mine/config.yaml name=null selector=dense"
    )


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=4))
@example(["null", "12e5", "0042", "true", "nan", "1/8", "a\\", "it's", "a,b", "", "${x:y} \\${"])
def test_what_is_typed_is_read_again(words):
    assert compose([f"sampling.stop={typed(words)}"]).sampling.stop == words
