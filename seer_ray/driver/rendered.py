"""The rendered prompts of a run: by which clock they are made, and that a run goes on with the same ones.

They are rendered when their requests are near, and kept until their rows are committed. What each was is
noted by a digest; digests of ``BLOCK`` neighbours become one when all are known.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from seer_ray.config.errors import ConfigError
from seer_ray.results.base import Folder
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.problem import Problem, Prompt

if TYPE_CHECKING:
    from seer_ray.driver.requests import Renderer

FILE = "prompts.json"
BLOCK = 1024
"""Problems whose digests become one."""


def clock_of(folder: RunFolder, around: Folder | None = None) -> datetime:
    """What chat templates read that write the date: the same for all sessions of a run, in UTC.

    Args:
        folder: Of the run; when its prompts were first rendered is noted there.
        around: Of the sweep that it is a point of: all points are asked the same. None: it is none.
    """
    noted = _noted(folder)
    seconds = noted["clock"] if noted is not None else (around or folder).about.get("created_at", time.time())
    return datetime.fromtimestamp(float(seconds), UTC)


class Prompts:
    """The prompts that are needed now, by problem.

    Args:
        folder: Of the run.
        problems: All of them, in order.
        renderer: Makes prompts of them.
        clock: That they are rendered by.
        begun: There are rows or chains in the folder.

    Raises:
        ConfigError: A prompt has changed since the run was begun.
    """

    def __init__(
        self,
        folder: RunFolder,
        problems: Sequence[Problem],
        renderer: Renderer,
        clock: datetime,
        begun: bool,
    ) -> None:
        self._folder, self._problems, self._renderer, self._clock = folder, problems, renderer, clock
        self._open: dict[str, Prompt] = {}
        self._rows: dict[str, int] = {}
        self._digests: dict[int, str] = {}
        """By place, of those that are not in a whole block."""
        self._blocks: dict[int, str] = {}
        noted = _noted(folder)
        self._changed = noted is None or not begun
        if noted is None or not begun:
            return
        if (digests := noted.get("digests")) is not None:
            # Of an earlier version: all of them, in order.
            if len(digests) != len(problems):
                raise _torn(folder)
            self._refuse_others(dict(enumerate(digests)), {})
            for place, digest in enumerate(digests):
                self._note(place, digest)
            return
        self._digests = {int(place): str(digest) for place, digest in noted["places"].items()}
        self._blocks = {int(block): str(digest) for block, digest in noted["blocks"].items()}
        if noted["renderer"] != renderer.fingerprint:
            self._refuse_others(self._digests, self._blocks)
            self._changed = True

    def open(self, place: int, problem: Problem, rows: int) -> Prompt:
        """Renders a problem's prompt, which is kept until so many rows of it are committed.

        Args:
            place: Of the problem in the dataset.
        """
        if (prompt := self._open.get(problem.id)) is None:
            prompt = self._open[problem.id] = self._renderer.render(problem)
            self._rows[problem.id] = rows
            if place not in self._digests and place // BLOCK not in self._blocks:
                self._note(place, prompt.digest)
        return prompt

    def __getitem__(self, problem: str) -> Prompt:
        return self._open[problem]

    def close(self, problem: str, rows: int = 1) -> None:
        """So many rows of it are committed, or not needed."""
        self._rows[problem] -= rows
        if self._rows[problem] <= 0:
            del self._rows[problem], self._open[problem]

    def write(self) -> None:
        """Notes the digests, before anything is committed that was made of these prompts. Raises OSError."""
        if self._changed:
            said = {
                "clock": self._clock.timestamp(),
                "renderer": self._renderer.fingerprint,
                "blocks": self._blocks,
                "places": self._digests,
            }
            self._folder.write_json(FILE, said)
            self._changed = False

    def _note(self, place: int, digest: str) -> None:
        self._digests[place] = digest
        self._changed = True
        block = range(place // BLOCK * BLOCK, place // BLOCK * BLOCK + BLOCK)
        if place == block[-1] and all(other in self._digests for other in block):
            self._blocks[place // BLOCK] = _joined([self._digests.pop(other) for other in block])

    def _refuse_others(self, digests: dict[int, str], blocks: dict[int, str]) -> None:
        """Renders all that are noted once more."""
        changed = [
            self._problems[place].id
            for place, digest in digests.items()
            if self._renderer.render(self._problems[place]).digest != digest
        ]
        if changed:
            more = f" and of {len(changed) - 1} more" if len(changed) > 1 else ""
            raise self._other(f"the prompt of problem '{changed[0]}'{more}")
        for block, digest in blocks.items():
            problems = self._problems[block * BLOCK : (block + 1) * BLOCK]
            if _joined([self._renderer.render(problem).digest for problem in problems]) != digest:
                raise self._other(f"a prompt of the problems '{problems[0].id}' to '{problems[-1].id}'")

    def _other(self, which: str) -> ConfigError:
        return ConfigError(
            f"{self._folder.uri}: {which} is no longer the one that the run was begun with: tokenizer or "
            "chat template have changed; restore them, or give the run another name"
        )


def _noted(folder: RunFolder) -> dict[str, Any] | None:
    noted = folder.read_json(FILE)
    if noted is not None:
        try:
            datetime.fromtimestamp(noted["clock"], UTC)
            if "digests" in noted:
                list(noted["digests"])
            else:
                {**noted["places"], **noted["blocks"], "renderer": noted["renderer"]}
        except (TypeError, KeyError, ValueError, OverflowError, OSError):
            raise _torn(folder) from None
    return noted


def _torn(folder: RunFolder) -> ConfigError:
    return ConfigError(f"{folder.store.locate(FILE)}: torn; restore it, or delete it")


def _joined(digests: Sequence[str]) -> str:
    return hashlib.blake2b("".join(digests).encode(), digest_size=8).hexdigest()
