"""Every command of the docs is one: it is parsed, its options composed, its files looked for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from checkout import ROOT
from pages import PAGES, README, blocks, inline_commands, name, shell_commands, spans
from typer.testing import CliRunner

from seer_ray.bench.command import parser
from seer_ray.cli.app import app
from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.overrides import option_of, option_types
from seer_ray.jobs.kinds import KINDS, kind_named
from seer_ray.jobs.load import RESUME, load_config, load_job
from seer_ray.sweeps.points import points_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTENDING = ROOT / "docs" / "extending.md"
COMMANDS = {
    shlex.join(words): words for page in PAGES for words in (*shell_commands(page), *inline_commands(page))
}
OVERRIDE = re.compile(r"[a-z_]+(\.[\w-]+)*=.+")
OVERRIDES = sorted({span for page in PAGES for span in spans(page) if OVERRIDE.match(span)})
DOTTED = sorted(
    {span for page in PAGES for span in spans(page) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span)}
)
JOBS = [kind.config for kind in KINDS]
OF_TRANSFORMERS = {"model.generate", "model.generate_batch"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages suppose in the folder where a command is given."""
    for file in ("FILE", "prompt.txt"):
        (tmp_path / file).write_text("{question}")
    for file in ("my_selectors", "module"):
        (text,) = [block for block in blocks(EXTENDING, "python") if block.startswith("# my_selectors.py")]
        (tmp_path / f"{file}.py").write_text(text.replace("class Norm", "class Class") + "\n\nNorm = Class\n")
        monkeypatch.delitem(sys.modules, file, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str) -> None:
    words = COMMANDS[command]
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    program, *arguments = words
    if program in CHECKS:
        CHECKS[program](arguments)
    else:
        assert os.access(ROOT / program, os.X_OK)


def check_seer_ray(arguments: list[str]) -> None:
    """Words of the command line, up to the options of the job; placeholders such as RUN name nothing."""
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    while hasattr(command, "commands"):
        assert arguments and arguments[0] in command.commands, f"no such command: {arguments}"
        word, *arguments = arguments
        command = command.commands[word]
        path.append(word)
    if path == ["bench"]:
        parser().parse_args(arguments)
        return
    if not arguments:
        return
    given = command.make_context(" ".join(path), list(arguments)).params
    said = given.get("overrides") or given.get("words") or given.get("job") or ()
    words = [re.sub("=N$", "=1", word) for word in said]
    overrides = [word for word in words if "=" in word]
    kinds = {kind.command for kind in KINDS}
    if path == ["submit"] and words[:1] == [RESUME]:
        compose(words[2:], RunConfig)
    elif path == ["submit"]:
        load_job(None, words)
    elif path == ["options"]:
        assert CliRunner().invoke(app, ["options", *said]).exit_code == 0
    elif " ".join(path) in kinds:
        made = load_config(None, overrides, kind_named(" ".join(path)).config, given.get("point") or ())
        assert not isinstance(made, SweepConfig) or len(points_of(made)) > 2
    elif path == ["resume"]:
        compose(words, RunConfig)


def check_pip(arguments: list[str]) -> None:
    verb, editable, target = arguments
    extras = re.fullmatch(r"\.(?:\[(.+)\])?", target)
    assert (verb, editable) == ("install", "-e") and extras
    asked = extras[1].split(",") if extras[1] else []
    assert set(asked) <= PROJECT["project"]["optional-dependencies"].keys()


def check_pytest(arguments: list[str]) -> None:
    markers = [marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    if "-m" in arguments:
        flag = arguments.index("-m")
        assert arguments[flag + 1] in markers
        del arguments[flag : flag + 2]
    if "-n" in arguments:
        flag = arguments.index("-n")
        assert arguments[flag + 1].isdigit()
        del arguments[flag : flag + 2]
    if "--long" in arguments:
        assert "--long" in (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
        arguments.remove("--long")
    assert all((ROOT / path).exists() for path in arguments)


def check_python(arguments: list[str]) -> None:
    assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file()


CHECKS = {
    "seer-ray": check_seer_ray,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
    **{tool: lambda _, tool=tool: _installed(tool) for tool in ("mlflow", "ruff", "mypy")},
}


def _installed(tool: str) -> None:
    assert shutil.which(tool)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("text", OVERRIDES)
def test_options_between_backticks(text: str) -> None:
    """They are those of some job: a page tells which."""
    words = shlex.split(text)
    read = [partial(compose, words, job) for job in JOBS] + [partial(load_config, None, words, SweepConfig)]
    refusals = []
    for made in read:
        try:
            made()
            return
        except ConfigError as refusal:
            refusals.append(str(refusal))
    pytest.fail("; ".join(refusals))


@pytest.mark.parametrize("text", DOTTED)
def test_names_of_options_between_backticks(text: str) -> None:
    sections = {option.partition(".")[0] for job in JOBS for option in option_types(job) if "." in option}
    if text.partition(".")[0] not in sections or text in OF_TRANSFORMERS or text.endswith((".json", ".yaml")):
        return
    names = {option for job in JOBS for option in option_types(job)}
    assert any(option_of(text, job) for job in JOBS) or any(option.startswith(f"{text}.") for option in names)


def test_there_are_commands() -> None:
    programs = {words[0] for words in (*shell_commands(README), *inline_commands(README))}
    assert {"seer-ray", "pip", "pytest", "mlflow"} <= programs
    assert len(COMMANDS) > 60 and len(OVERRIDES) > 30 and len(DOTTED) > 20


def test_the_first_screen_has_the_two_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()[:25]
    assert any(line.startswith("pip install -e . && seer-ray run ") for line in lines)
    assert any(line.startswith('pip install -e ".[dev]" && pytest ') for line in lines)


def test_cards_are_pages_too() -> None:
    assert "seer_ray/assets/reasoner/gates/README.md" in map(name, PAGES)
