"""Streams that are closed, full, gone or of few characters."""

from __future__ import annotations

import codecs
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from seer_ray.cli.streams import ERRORS, failure_of, plain, text_output

from .test_run import SCRIPT

NOISY = """
    for number in range(200):
        print("a row " * 20, file=sys.stderr, flush=True)
        reporter.note(f"note {number} ± 1 · 2")
    with open("done", "w") as file:
        file.write("rows")
    reporter.finish(Summary("x", "runs/x"))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    found = tmp_path / "script.py"
    found.write_text(SCRIPT.format(body=NOISY.strip()))
    return found


@pytest.mark.parametrize(
    ("redirect", "code", "said"),
    [
        ("run name=x > /dev/full", 1, "error: stdout cannot be written (No space left on device)"),
        ("run --json > /dev/full", 1, "error: stdout cannot be written (No space left on device)"),
        ("options > /dev/full", 1, "error: stdout cannot be written (No space left on device)"),
        ("run name=x 2> /dev/full", 0, ""),
        ("run name=x >&-", 0, "note: note 199"),
        ("run name=x <&- >&- 2>&-", 0, ""),
        ("run name=x 2>&1 | head -n 1", 0, ""),
        ("options | head -n 1", 0, ""),
    ],
)
def test_a_stream_that_takes_nothing(
    tmp_path: Path, script: Path, redirect: str, code: int, said: str
) -> None:
    line = f"set -o pipefail; {sys.executable} {script} {redirect}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    if redirect.startswith("run"):
        assert (tmp_path / "done").read_text() == "rows", "what others print went into a file"
    if "head" in redirect:
        assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("streams", "terminal", "columns"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "dumb", "80"),
        ({"PYTHONIOENCODING": "ascii"}, "xterm", "1"),
        ({"PYTHONUTF8": "0", "LC_ALL": "C"}, "", "nonsense"),
    ],
)
def test_terminals_of_few_characters(
    tmp_path: Path, script: Path, streams: dict[str, str], terminal: str, columns: str
) -> None:
    environment = os.environ | {"PYTHONCOERCECLOCALE": "0", "TERM": terminal, "COLUMNS": columns} | streams
    for arguments in (["run", "name=x"], ["run", "--json"]):
        command = [sys.executable, str(script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert b"note: note 199 +- 1 - 2\n" in done.stderr
        assert done.stdout.isascii() and done.stderr.isascii()
    assert json.loads(done.stdout)["name"] == "x"


def test_a_terminal_that_is_closed_ends_no_job(tmp_path: Path, script: Path) -> None:
    here, there = pty.openpty()
    command = [sys.executable, str(script), "run", "name=x"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=there, stderr=there) as job:
        os.close(there)
        os.close(here)
        assert job.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_that_nobody_reads_is_no_failure() -> None:
    reader, writer = os.pipe()
    stream = text_output(writer)
    os.close(reader)
    for text in ("x" * 100_000, "more"):
        print(text, file=stream, flush=True)
    assert failure_of(stream) is None
    os.close(writer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("50 ± 1 %", "50 +- 1 %"),
        ("a · b • c … d", "a - b * c ... d"),
        ("−1 ≥ x × y → z", "-1 >= x x y -> z"),
        ("╭─╮│━", "+-+|-"),
        ("naïve Ångström ½", "naive Angstrom 12"),
        ("答案", "??"),
        ("\ud800", "?"),
    ],
)
def test_what_stands_for_characters(text: str, said: str) -> None:
    codecs.register_error(ERRORS, plain)
    assert text.encode("ascii", ERRORS).decode() == said
