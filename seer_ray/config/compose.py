"""Command lines and YAML files -> checked options (``seer_ray.config.options``): Hydra's compose API."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, reduce
from importlib import resources
from operator import getitem
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from seer_ray.config.checks import check
from seer_ray.config.errors import ConfigError, first_line
from seer_ray.config.identity import Identity, escaped, plain
from seer_ray.config.options import JobConfig, RunConfig, options
from seer_ray.config.overrides import (
    describe,
    flat,
    near_miss,
    option_of,
    option_types,
    parse,
    show,
    single,
)
from seer_ray.config.secrets import redacted, remember
from seer_ray.config.texts import with_texts

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

GROUPS = ("model", "task", "selector", "plan", "engine", "cluster", "sweep", "gates", "study")
"""Of a job: those among them that are sections of its options."""
OWN = {
    "model": "model.name",
    "task": "task.data",
    "cluster": "cluster.address",
    "selector": "selector.name",
}
"""Group -> the option that somebody means who gives it a name of their own."""
LITERAL = "in ${} can only be the name of an option, such as ${model.name}; for a literal ${ write \\${"

C = TypeVar("C", bound=JobConfig, default=RunConfig)


def compose(
    overrides: Iterable[str | Override] = (),
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
    chosen, settings = _read(overrides, job)
    if base is None:
        tree = _top(job, chosen, settings)
    else:
        tree = _schema(job)
        usual = {name: value for name, value, _ in options(job())}
        _assign(tree, ((n, escaped(value)) for n, value, _ in options(base) if value != usual[n]), job)
        for group, name in chosen.items():
            tree[group] = _schema(job)[group]
            if name is not None:
                file = _composed(f"{group}/{name}")
                tree.merge_with({section: file[section] for section in file if section in tree})
    _assign(tree, settings, job)
    return _finish(tree)


def given(overrides: Iterable[str], option: str, job: type = RunConfig) -> Any:
    """What overrides say about one option; None: nothing. Refuses mistakes in any of them."""
    return dict(_read(overrides, job)[1]).get(option)


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

    try:
        values = yaml.safe_load(text) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"must hold options such as 'seed: 0', not {show(values)}")
        settings = [
            (name, value) for name, value in flat(values, job) if value is not None or option_of(name, job)
        ]  # a section with nothing in it says nothing
        tree = _top(job, {}, settings) if defaults else _schema(job)
        _assign(tree, settings, job)
        return _finish(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not YAML ({getattr(error, 'problem', None) or error})") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except ValueError as error:  # a number of too many digits
        raise ConfigError(f"{source}: not YAML ({first_line(error)})") from None


def to_yaml(config: JobConfig) -> str:
    """All options, resolved; ``from_yaml`` gives the same ones back."""
    return yaml_of(plain(config))


def yaml_of(values: Mapping[str, Any]) -> str:
    """Nested options, as ``Identity`` holds them, in the form of ``to_yaml``."""
    import yaml

    # PyYAML writes these line breaks bare, and reads them as something else.
    readable = not re.search("[\x85\u2028\u2029\ufeff]", json.dumps(values, ensure_ascii=False))
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=readable, width=110)


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


def top_file(job: type) -> str:
    """Of ``conf/``, without its ending."""
    command: str = job.command  # type: ignore[attr-defined]
    return command.replace(" ", "_")


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


def _read(
    overrides: Iterable[str | Override], job: type
) -> tuple[dict[str, str | None], list[tuple[str, Any]]]:
    """The choices of groups, None being no choice, and the options that are set, in order."""
    groups = groups_of(job)
    chosen: dict[str, str | None] = {}
    settings: list[tuple[str, Any]] = []
    for override in overrides:
        item = parse(override, job) if isinstance(override, str) else override
        name, value = item.key_or_group, single(item, job)
        if item.is_delete() and name not in groups:
            raise ConfigError(
                f"~{show(name)}: only the choice of a group can be left out, such as ~task; set the option"
            )
        if name not in groups or isinstance(value, dict):
            settings += flat({name: value}, job)
        elif value is None or value in groups[name]:
            chosen[name] = value
        else:
            raise _no_such_choice(name, value, groups[name])
    return chosen, list(with_texts(settings))


def _no_such_choice(group: str, name: Any, there: list[str]) -> ConfigError:
    close = difflib.get_close_matches(str(name), there, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    if not close and group in OWN and name:
        hint = f"; for one of your own: {OWN[group]}={show(name)}"
    return ConfigError(f"{group}={show(name)}: no such choice, there are {', '.join(there)}{hint}")


def _top(job: type, chosen: Mapping[str, str | None], settings: Iterable[tuple[str, Any]]) -> DictConfig:
    """The job's top file with these choices, and without default choices that something else is named for."""
    named, groups, choice = dict(settings), groups_of(job), dict(chosen)
    model, data = named.get("model.name"), named.get("task.data")
    if "model" in groups and model is not None and model != _composed(top_file(job), job).model.name:
        choice.setdefault("model", None)
    if "task" in groups and data is not None:
        choice.setdefault("task", None)
    tree = _composed(top_file(job), job, **choice)
    if "selector" in groups and "selector" not in chosen and "selector.name" not in named:
        usual = usual_selector(named.get("model.gates", tree.model.gates))
        if tree.selector.name != usual:
            tree = _composed(top_file(job), job, **choice, selector=usual)
    tree = copy.deepcopy(tree)
    if data is not None and choice.get("task", data) is None:
        tree.task.name = re.sub(r"\W+", "-", PurePosixPath(redacted(str(data))).stem).strip("-") or "own"
    return tree


def _schema(job: type) -> DictConfig:
    """The structured config, which checks types, at its own defaults."""
    return copy.deepcopy(_structured(job))


@cache
def _structured(job: type) -> DictConfig:
    from omegaconf import OmegaConf

    return OmegaConf.structured(job)


@cache
def _composed(name: str, job: type | None = None, **choice: str | None) -> DictConfig:
    """A file of ``conf/`` and what its defaults list names, typed if it is a job's; not to be changed."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf, open_dict

    if job is not None:
        # Not a struct while it is composed: a model's file may say how to sample, which not every job does.
        schema = OmegaConf.structured(job, flags={"struct": False})
        ConfigStore.instance().store(f"{name}_schema", schema)
    words = [f"~{group}" if file is None else f"{group}={file}" for group, file in choice.items()]
    with initialize_config_module(config_module="seer_ray.conf", version_base="1.3"):
        tree = hydra_compose(name, words)
    OmegaConf.set_struct(tree, None)  # types still refuse what is no option; mappings take new entries
    if job is not None:
        with open_dict(tree):
            for section in set(tree) - {item.name for item in dataclasses.fields(job)}:
                del tree[section]
    return tree


def _assign(tree: DictConfig, settings: Iterable[tuple[str, Any]], job: type) -> None:
    """Set options. A mapping replaces the one before, as a point of a sweep must; Hydra's would be merged."""
    from omegaconf.errors import OmegaConfBaseException

    for name, value in settings:
        option = option_of(name, job)
        if option is None:
            inside = [option for option in option_types(job) if option.startswith(f"{name}.")]
            parts = f"is a section, with the options {', '.join(inside[:12])}"
            remedy = parts if inside else f"no such option{near_miss(name, job)}"
            raise ConfigError(f"{name}={show(value)}: {remedy}")
        if not _is_plain(value):
            raise ConfigError(f"{name}={show(value)}: {LITERAL}")
        if isinstance(value, dict):
            value = {str(key): item for key, item in value.items()}  # {17: quest} has a number for a key
        *sections, last = option.split(".")
        section = reduce(getitem, sections, tree)
        try:
            if name == option:
                section[last] = value
            else:
                section[last][name[len(option) + 1 :]] = value
        except OmegaConfBaseException:
            must = describe(option_types(job)[option])
            raise ConfigError(f"{name}={show(value)}: must be {must}") from None


def _is_plain(value: Any) -> bool:
    """Whether all that ``${}`` hold in a value are names: no resolver, which could read the environment."""
    if isinstance(value, (dict, list)):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    unescaped = r"(?<!\\)(?:\\\\)*\$\{"
    return not isinstance(value, str) or not re.search(rf"{unescaped}(?![\w.\[\]-]+\}})", value)


def _finish(tree: DictConfig) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config: Any = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)} (for a literal ${{ write \\${{)") from None
    remember(dataclasses.asdict(config))
    check(config)
    if config.name is not None:
        run_name(config)  # a plain folder name
    return config
