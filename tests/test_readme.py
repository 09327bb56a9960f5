"""The README is run, not believed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from seer_ray.compose import compose

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^seer-ray (?:run|submit) .*$", README.replace("\\\n", " ").replace("`", "\n"), re.MULTILINE
)
# The table shows options without their command.
OPTIONS = re.findall(r"`((?:[a-z_]+(?:\.[a-z_]+)*=[^\s`]+ ?)+)`", README)


def overrides(words: list[str]) -> list[str]:
    return [word for word in words if "=" in word and not word.startswith("-")]


def test_the_readme_has_commands_and_options() -> None:
    assert len(COMMANDS) >= 3
    assert len(OPTIONS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str) -> None:
    compose(overrides(shlex.split(command)[2:]))


@pytest.mark.parametrize("text", OPTIONS)
def test_options_compose(text: str) -> None:
    if "module:function" not in text:
        compose(overrides(text.split()))


def test_the_engine_example_prints_a_completion(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(from seer_ray import Engine.*?)```", README, re.DOTALL)
    assert example
    exec(compile(example[1], "README.md", "exec"), {})
    reason, text = capsys.readouterr().out.strip().split(" ", 1)
    assert reason in ("stop", "length")
    assert len(text) > 10
