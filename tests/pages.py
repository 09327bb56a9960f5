"""The docs as tests read them: pages, code blocks, commands, what stands between backticks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from checkout import ROOT

README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("seer_ray/assets/**/README.md")),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"<!-- table \w+ -->.*?<!-- end -->", re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page."""
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def prose(page: Path) -> str:
    """A page without its code blocks and generated tables."""
    return GENERATED.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def spans(page: Path) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def shell_commands(page: Path) -> Iterator[list[str]]:
    """Commands of the shell blocks as words; of a list joined by ``&&``, each."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for joint, command in groupby(words, lambda word: word == "&&"):
                if not joint:
                    yield list(command)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands between backticks."""
    starts = r"(?:[A-Z_]+=\S+ )?(?:seer-ray|pip|python|mlflow|ruff|mypy)\b "
    return (shlex.split(span) for span in spans(page) if re.match(starts, span))
