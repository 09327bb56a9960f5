"""From options back to the command line that a person would type."""

from __future__ import annotations

import re
import shlex
from functools import reduce
from typing import Any

from seer_ray.config.compose import choices, compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import escaped
from seer_ray.config.options import RunConfig, options
from seer_ray.config.overrides import show
from seer_ray.config.secrets import redacted

LONGEST = 160
"""Characters; what would be longer, or has quotes in quotes, refers to the run's own config.yaml."""


def command_line(config: RunConfig, *changes: str) -> str:
    """The command for a run like this one, but for ``changes``.

    Args:
        config: of a run that has a folder
        changes: choices of groups, such as ``selector=dense``, each in place of its whole section, and single
            options, such as ``engine.speculate=0``
    """
    replaced = {change.partition("=")[0] for change in changes}
    words = [word for word in _choices(config) if word.partition("=")[0] not in replaced]
    base = compose(words)
    for (name, value, _), (_, default, _) in zip(options(config), options(base), strict=True):
        if value != default and name != "name" and not {name, name.partition(".")[0]} & replaced:
            words.append(f"{name}={show(value)}")
    line = redacted(shlex.join(["seer-ray", "run", *words, *changes]))
    if len(line) <= LONGEST and '"\'"' not in line and _makes(words, config, replaced):
        return line
    file = redacted(f"{config.results.folder.rstrip('/')}/{config.name}/config.yaml")
    return shlex.join(["seer-ray", "run", "--config", file, "name=null", *changes])


def training_command(config: Any, job: str) -> str:
    """The command of a job with these options, all spelled out.

    Args:
        config: the job's; where it runs, writes and reports is left out
        job: the command, such as ``pretrain``
    """
    usual = {name: value for name, value, _ in options(compose([], type(config)))}
    places = ("cluster.", "results.", "tracking.")
    words = [
        f"{name}={typed(redacted(value))}"
        for name, value, _ in options(config)
        if value != usual[name] and name != "name" and not name.startswith(places)
    ]
    return shlex.join(["seer-ray", *job.split(), *words])


def typed(value: Any) -> str:
    """A value in the grammar of overrides, lists and mappings included, whole."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str):
        return show(value)
    read = OverridesParser.create().parse_override
    if re.fullmatch(r"[\w./-]+", value, re.ASCII) and read(f"_={value}").value() == value:
        return value  # not 12e5, nor null
    return QuotedString(escaped(value), Quote.single).with_quotes()


def _choices(config: RunConfig) -> list[str]:
    """Where the options seem to come from: choices of groups, or a model or dataset of one's own."""
    usual, words = compose(), []
    if config.model.name != usual.model.name:
        names = [
            name for name in choices("model") if compose([f"model={name}"]).model.name == config.model.name
        ]
        words.append(f"model={names[0]}" if names else f"model.name={config.model.name}")
    if config.task.name in choices("task"):
        words += [f"task={config.task.name}"] if config.task.name != usual.task.name else []
    elif config.task.data is not None:
        words.append(f"task.data={config.task.data}")
    if config.selector.name != compose(words).selector.name:
        words.append(f"selector={config.selector.name}")
    if config.engine.exact:
        words.append("engine=exact")
    return words


def _makes(words: list[str], config: RunConfig, replaced: set[str]) -> bool:
    """Whether these overrides give the options, as a shell would pass them."""
    try:
        made = compose(words)
    except ConfigError:
        return False
    for name in ("name", *replaced):
        *sections, last = name.split(".")
        mine, own = (reduce(getattr, sections, each) for each in (made, config))
        setattr(mine, last, getattr(own, last))
    return bool(made == config)
