"""The README is run, not believed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from seer_ray.config.compose import compose
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.training import DistillConfig, GatesEvalConfig, GatesSharesConfig, PretrainConfig
from seer_ray.sweeps.points import expand, points_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^seer-ray (?:run|submit|sweep|distill|gates eval|gates shares|pretrain) .*$",
    README.replace("\\\n", " ").replace("`", "\n"),
    re.MULTILINE,
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
    words = shlex.split(command, comments=True)[1:]
    gates = GatesSharesConfig if words[1] == "shares" else GatesEvalConfig
    jobs = {"distill": DistillConfig, "gates": gates, "pretrain": PretrainConfig}
    if words[0] == "sweep":
        assert len(points_of(expand(overrides(words)))) > 2
    else:
        compose(overrides(words), job=jobs.get(words[0], RunConfig))


@pytest.mark.parametrize("text", OPTIONS)
def test_options_compose(text: str) -> None:
    if "module:function" not in text:
        compose(overrides(text.split()), job=SweepConfig if text.startswith("sweep.") else RunConfig)


def test_the_engine_example_prints_a_completion(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(from seer_ray import Engine.*?)```", README, re.DOTALL)
    assert example
    exec(compile(example[1], "README.md", "exec"), {})
    reason, text = capsys.readouterr().out.strip().split(" ", 1)
    assert reason in ("stop", "length")
    assert len(text) > 10
