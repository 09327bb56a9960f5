"""The rendered prompts of a run: by which clock they were made, and that a run goes on with the same ones."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.results.base import Folder
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.problem import Prompt

FILE = "prompts.json"


def clock_of(folder: RunFolder, around: Folder | None = None) -> datetime:
    """What chat templates read that write the date: the same for all sessions of a run, in UTC.

    Args:
        folder: Of the run; when its prompts were first rendered is noted there.
        around: Of the sweep that it is a point of: all points are asked the same. None: it is none.
    """
    noted = _noted(folder)
    seconds = noted["clock"] if noted is not None else (around or folder).about.get("created_at", time.time())
    return datetime.fromtimestamp(float(seconds), UTC)


def refuse_other_prompts(
    folder: RunFolder, prompts: Mapping[str, Prompt], clock: datetime, begun: bool
) -> None:
    """Notes the digests of the prompts in the run folder, or compares them with those noted there.

    Args:
        folder: Of the run.
        prompts: All of them, by problem, in order.
        clock: That they were rendered by.
        begun: There are rows or chains in the folder.

    Raises:
        ConfigError: A prompt has changed since the run was begun.
    """
    digests = [_digest(prompt) for prompt in prompts.values()]
    noted = _noted(folder)
    if noted is None or not begun:
        folder.write_json(FILE, {"clock": clock.timestamp(), "digests": digests})
        return
    if len(noted["digests"]) != len(digests):
        raise _torn(folder)
    pairs = zip(prompts, digests, noted["digests"], strict=True)
    changed = [problem for problem, now, then in pairs if now != then]
    if changed:
        more = f" and of {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(
            f"{folder.uri}: the prompt of problem '{changed[0]}'{more} is no longer the one that the run was "
            "begun with: tokenizer or chat template have changed; restore them, or give the run another name"
        )


def _noted(folder: RunFolder) -> dict[str, Any] | None:
    noted = folder.read_json(FILE)
    if noted is not None:
        try:
            datetime.fromtimestamp(noted["clock"], UTC)
            list(noted["digests"])
        except (TypeError, KeyError, ValueError, OverflowError, OSError):
            raise _torn(folder) from None
    return noted


def _torn(folder: RunFolder) -> ConfigError:
    return ConfigError(f"{folder.store.locate(FILE)}: torn; restore it, or delete it")


def _digest(prompt: Prompt) -> str:
    place = [] if prompt.document is None else [prompt.document]
    content = json.dumps([prompt.text, prompt.tokens, *place]).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
