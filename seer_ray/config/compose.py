"""Command lines and YAML files -> checked options (``seer_ray.config.options``): Hydra's compose API."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from seer_ray.config.checks import check
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity, plain
from seer_ray.config.options import JobConfig, RunConfig, SweepConfig
from seer_ray.config.overrides import Choice, Overrides, Setting, show
from seer_ray.config.training import DistillConfig, GatesEvalConfig, GatesSharesConfig, PretrainConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig

JOBS: dict[type, str] = {
    RunConfig: "reason",
    SweepConfig: "sweep",
    PretrainConfig: "pretrain",
    DistillConfig: "distill",
    GatesEvalConfig: "gates",
    GatesSharesConfig: "shares",
}
"""Options of a job -> its top file in ``conf/``."""
GROUPS = ("model", "task", "selector", "engine", "cluster", "sweep")
"""Of a job: those among them that are sections of its options."""

C = TypeVar("C", bound=JobConfig, default=RunConfig)


def compose(
    overrides: Iterable[str | Choice | Setting] = (),
    job: type[C] = RunConfig,  # type: ignore[assignment]
    base: C | None = None,
) -> C:
    """The options of a job.

    A model or dataset of one's own, named without a choice of its group, leaves the default choice out: the
    sampling that suits the default model, or the size of the default task, says nothing about another one.
    Without a choice of selector, models with gates use them, and the others Quest.

    Args:
        overrides: ``group=choice`` and ``option=value``, as Hydra writes them, or read already; the last wins
        job: its options
        base: start from these options instead of the top file; a chosen group then replaces its section

    Raises:
        ConfigError: on one line, what is wrong with which option.
    """
    reader = reader_of(job)  # type: ignore[arg-type]
    parsed = [
        item for word in overrides for item in (reader.parse(word) if isinstance(word, str) else [word])
    ]
    chosen = {item.group: item.name for item in parsed if isinstance(item, Choice)}
    settings = [item for item in parsed if isinstance(item, Setting)]
    if base is None:
        tree = _top(job, chosen, settings)
    else:
        tree = _schema(job)
        values = plain(base)
        _assign(tree, reader.flatten(values), reader)
        for group, name in chosen.items():
            tree[group] = _schema(job)[group]
            tree.merge_with(_sections(job, _hydra(f"{group}/{name}")))
    _assign(tree, settings, reader)
    return _finish(tree)


def given(overrides: Iterable[str], option: str, job: type = RunConfig) -> Any:
    """What overrides say about one option; None: nothing. Refuses mistakes in any of them."""
    parsed = [item for text in overrides for item in reader_of(job).parse(text)]
    said = [item.value for item in parsed if isinstance(item, Setting) and item.name == option]
    return said[-1] if said else None


def from_yaml(
    text: str,
    source: str = "the configuration",
    job: type[C] = RunConfig,  # type: ignore[assignment]
    defaults: bool = False,
) -> C:
    """Options from a YAML file. What the file leaves out has the option's own default.

    Args:
        text: nested options, as ``to_yaml`` writes them
        source: what to call the file in errors
        defaults: what the file leaves out is as in the job's top file instead
    """
    import yaml

    reader = reader_of(job)  # type: ignore[arg-type]
    try:
        values = yaml.safe_load(text)
        if not isinstance(values or {}, dict):
            raise ConfigError(f"must hold options such as 'seed: 0', not {show(values)}")
        settings = list(reader.flatten(values or {}))
        tree = _top(job, {}, settings) if defaults else _schema(job)
        _assign(tree, settings, reader)
        return _finish(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not YAML ({getattr(error, 'problem', None) or error})") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def to_yaml(config: JobConfig) -> str:
    """All options, resolved; ``from_yaml`` gives the same ones back."""
    import yaml

    values = plain(config)
    # PyYAML writes these line breaks bare, and reads them as something else.
    readable = not re.search("[\x85\u2028\u2029\ufeff]", json.dumps(values, ensure_ascii=False))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=readable, width=110)


def usual_selector(gates: str | None) -> str:
    """What selects for a model with these gates, where nothing else is asked for."""
    return "quest" if gates is None else "seer"


def run_name(config: JobConfig) -> str:
    """The run folder's name: ``config.name``, or one made of what the job is about and a short digest.

    Raises:
        ConfigError: if the name that was given is no plain folder name.
    """
    if config.name is not None:
        if not re.fullmatch(r"\w[\w.+=-]{0,127}", config.name) or ".." in config.name:
            raise ConfigError(
                f"name={show(config.name)}: must be a plain folder name of letters, digits and . _ - + = "
                "(where it lies is results.folder)"
            )
        return config.name
    words = [re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", part)) for part in config.about()]
    safe = [word.strip("-._")[:40] for word in words]
    return "-".join([*(part for part in safe if part), Identity.of(config).digest[:8]])


@cache
def groups_of(job: type) -> dict[str, list[str]]:
    """A job's config groups, each with its choices."""
    sections = {item.name for item in dataclasses.fields(job)}
    return {group: choices(group) for group in GROUPS if group in sections}


@cache
def choices(group: str) -> list[str]:
    """The names of a config group's files."""
    folder = resources.files("seer_ray.conf").joinpath(group)
    names = (entry.name for entry in folder.iterdir())
    # 4b before 14b
    return sorted(
        (name.removesuffix(".yaml") for name in names if name.endswith(".yaml")),
        key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)],
    )


@cache
def reader_of(job: type) -> Overrides:
    """What reads a job's overrides."""
    return Overrides(job, groups_of(job))


def _top(job: type, chosen: dict[str, str], settings: list[Setting]) -> DictConfig:
    """The job's top file with these choices, and without default choices that something else is named for.

    A model that has no gates goes without the selector that needs them.
    """
    usual, groups = _composed(JOBS[job], ()), groups_of(job)
    words = [f"{group}={name}" for group, name in chosen.items()]
    named = {item.name: item.value for item in settings}
    model, data = named.get("model.name"), named.get("task.data")
    if "model" in groups and "model" not in chosen and model not in (None, usual.model.name):
        words.append("~model")
    if "task" in groups and "task" not in chosen and data is not None:
        words.append("~task")
    if "selector" in groups and "selector" not in chosen and "selector.name" not in named:
        gates = named.get("model.gates", _hydra(JOBS[job], words).model.gates)
        words.append(f"selector={usual_selector(gates)}")
    tree = _schema(job)
    tree.merge_with(_sections(job, _hydra(JOBS[job], words)))
    if "~task" in words:
        tree.task.name = re.sub(r"\W+", "-", PurePosixPath(str(data)).stem).strip("-") or "own"
    return tree


def _schema(job: type) -> DictConfig:
    """The structured config, which checks types, at its own defaults."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(job)


def _sections(job: type, tree: DictConfig) -> dict[Any, Any]:
    """What of a file is this job's.

    A model's file may say how to sample, which not every job does; and what is a section of one job's,
    as ``gates``, may be a plain option of another's.
    """
    from omegaconf import DictConfig

    fields = {item.name: item.default_factory for item in dataclasses.fields(job)}
    return {
        name: value
        for name, value in tree.items()
        if name in fields and (dataclasses.is_dataclass(fields[name]) or not isinstance(value, DictConfig))
    }


def _hydra(name: str, overrides: Iterable[str] = ()) -> DictConfig:
    """A file of ``conf/`` with all that its defaults list names."""
    return copy.deepcopy(_composed(name, tuple(overrides)))


@cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for config, job in JOBS.items():
        # Without types, which would refuse sections that the job does not have; ``_schema`` checks them.
        node = OmegaConf.to_container(OmegaConf.structured(config))
        ConfigStore.instance().store(name=f"{job}_schema", node=node)
    with initialize_config_module(config_module="seer_ray.conf", version_base="1.3"):
        return hydra_compose(name, list(overrides))


def _assign(tree: DictConfig, settings: Iterable[Setting], reader: Overrides) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for setting in settings:
        reader.check(setting)
        value = setting.value
        if isinstance(value, dict):
            value = {str(key): item for key, item in value.items()}  # {17: quest} has a number for a key
        try:
            if setting.key is not None:
                value = {**OmegaConf.select(tree, setting.option), setting.key: value}
            OmegaConf.update(tree, setting.option, value, merge=False, force_add=True)
        except OmegaConfBaseException:
            raise reader.wrong_type(setting) from None


def _finish(tree: DictConfig) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config: Any = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key}: {reason} (for a literal ${{ write \\${{)") from None
    check(config)
    run_name(config)
    return config
