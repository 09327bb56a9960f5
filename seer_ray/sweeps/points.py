"""The points of a sweep: from options that have several values to the run configs that they mean."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from seer_ray.analysis.grid import SHORT
from seer_ray.config.checks import check_sequential
from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity, escaped
from seer_ray.config.options import (
    EngineConfig,
    PlanConfig,
    RunConfig,
    SelectorConfig,
    SweepConfig,
    options,
)
from seer_ray.config.overrides import assignment, parse, show
from seer_ray.config.speculating import DRAFTER, OFF, SPECULATE, speculates
from seer_ray.config.works import is_dense

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

SHARED = ("name", "sweep", "results", "cluster", "tracking")
"""Sections, and the name, that are the sweep's: the same for all its points."""
SELECTION = ("selector.", "plan.")
"""Options that say which blocks a layer reads, by how they begin."""
BLOCK = "engine.block_size"
"""An option of the engine that means nothing where attention is dense."""
FREE = [
    name
    for name, _, about in options(RunConfig())
    if about["operational"] and name.startswith(("engine.", "model."))
]
"""Options of a point that decide no row: a sweep may go on with others."""


@dataclass(frozen=True)
class Point:
    """One setting of a sweep."""

    slug: str
    """Its name, and that of its folder."""
    config: RunConfig
    """All options of its run; name and place are the sweep's to give."""
    changes: dict[str, Any]
    """The options in which points of this sweep differ, with their values here."""
    baseline: str
    """Slug of the dense point to compare it with; empty: there is none."""


def expand(
    overrides: Sequence[str],
    base: SweepConfig | None = None,
    points: Sequence[str] = (),
    named: str | None = None,
) -> SweepConfig:
    """A sweep with its points spelled out: ``points_of`` lists them.

    Args:
        overrides: as of a run, but an option or a group may have several values, as Hydra writes sweeps:
            ``selector=quest,window``, ``selector.budget=512,1024``, ``seed=range(3)``
        base: start from these options instead of the top file
        points: beside those of the options, each as overrides in one text
        named: the choice of ``sweep`` where nothing says what is swept; its values give way to options

    Raises:
        ConfigError: a bad option, or nothing that has several values.
    """
    fixed, swept = _read(overrides)
    if named is not None and base is None and not points and not any(_section(i) == "sweep" for i in fixed):
        fixed.insert(0, parse(f"sweep={named}", SweepConfig))
    sweep = compose([item for item in fixed if _section(item) in SHARED], SweepConfig, base)
    said = {item.key_or_group for item in fixed}  # one value in place of those of a named sweep
    grid = {
        name: [assignment(name, value) for value in (values if isinstance(values, list) else [values])]
        for name, values in sweep.sweep.grid.items()
        if name not in said
    } | swept
    wanted = [_point(point, index) for index, point in enumerate([*sweep.sweep.points, *points])]
    if grid:
        wanted += map(list, itertools.product(*grid.values()))
    if not wanted:
        raise ConfigError(
            "nothing to sweep: give an option several values, such as selector.budget=512,1024, "
            "or name a sweep, such as sweep=selectors"
        )
    of_all = [item for item in fixed if _section(item) not in ("name", "sweep")]
    run = None if base is None else _run(base, None)
    configs = [compose([*of_all, *items], RunConfig, run) for items in wanted]
    made = _spelled_out(sweep, _with_baselines(configs) if sweep.sweep.baseline else configs)
    check_sequential(made)
    return made


def points_of(sweep: SweepConfig) -> list[Point]:
    """The points of a sweep that is spelled out, baselines first."""
    configs = _configs(sweep)
    dense = {_rest(config): str(config.name) for config in configs if _reads_all(config)}
    points = [
        Point(
            str(config.name),
            config,
            {name: value for name, value in _values(config).items() if name in changes},
            dense.get(_rest(config), ""),
        )
        for config, changes in zip(configs, sweep.sweep.points, strict=True)
    ]
    return sorted(points, key=lambda point: not _reads_all(point.config))


def merged(before: SweepConfig, now: SweepConfig, keep: Container[str], where: str) -> SweepConfig:
    """A sweep that is gone on with: the points of the command, and those that are there already.

    Args:
        before: As the folder has it, spelled out.
        now: As the command says, spelled out.
        keep: Names of the points that stay even if the command does not have them.
        where: The folder, for messages.

    Raises:
        ConfigError: They are about different things: something else differs than what is swept.
    """
    old, new = _configs(before), _configs(now)
    swept = {name for sweep in (before, now) for point in sweep.sweep.points for name in point}
    for config in old:
        for name in FREE:
            if name not in swept:
                _set(config, name, _values(new[0])[name])
    theirs, ours = _values(old[0]), _values(new[0])
    same = [n for n in ours if n not in swept and n != BLOCK and not n.startswith(SELECTION)]
    here = Identity({name: ours[name] for name in same}, RunConfig)
    here.refuse_differences(Identity({name: theirs[name] for name in same}, RunConfig), where)
    wanted = {_identity(config) for config in map(_canonical, new)}
    old = [config for config in old if config.name in keep or _identity(_canonical(config)) in wanted]
    for config in new:
        config.name = None  # those that are there keep theirs
    return _spelled_out(now, [*old, *new])


def _spelled_out(like: SweepConfig, configs: Sequence[RunConfig]) -> SweepConfig:
    """A sweep over these runs, each once and with a name, named and placed itself like another one."""
    distinct: dict[str, RunConfig] = {}
    for config in map(_canonical, configs):
        distinct.setdefault(_identity(config), config)
    tables = [_values(config) for config in distinct.values()]
    varying = [name for name in tables[0] if any(table[name] != tables[0][name] for table in tables)]
    changes = [{name: table[name] for name in varying} for table in tables]
    names = [config.name for config in distinct.values()]
    for index, config in enumerate(distinct.values()):
        if names[index] is None:
            slug = _slug(config, changes[index])
            names[index] = f"{slug}-{Identity.of(config).digest[:6]}" if slug in names else slug
    sweep = SweepConfig(
        **vars(next(iter(distinct.values()))),
        sweep=replace(
            like.sweep,
            grid={},
            points=[{"name": name, **escaped(change)} for name, change in zip(names, changes, strict=True)],
        ),
    )
    sweep = replace(sweep, name=like.name, results=like.results, cluster=like.cluster, tracking=like.tracking)
    return copy.deepcopy(sweep)


def _configs(sweep: SweepConfig) -> list[RunConfig]:
    """Of the points of a sweep that is spelled out."""
    run, points = _run(sweep, None), enumerate(sweep.sweep.points)
    return [compose(_point(point, index), RunConfig, run) for index, point in points]


def _read(overrides: Sequence[str]) -> tuple[list[Override], dict[str, list[Override]]]:
    """Overrides of all points, and those with several values: by name, one for each value."""
    from hydra.errors import HydraException

    fixed: list[Override] = []
    swept: dict[str, list[Override]] = {}
    for text in overrides:
        item = parse(text, SweepConfig)
        if not item.is_sweep_override() or _section(item) in SHARED:
            fixed.append(item)
            continue
        try:
            several = list(item.sweep_string_iterator())
        except HydraException as error:
            raise ConfigError(f"{text}: must be a list of values ({error})") from None
        swept[item.key_or_group] = [parse(f"{item.key_or_group}={value}", SweepConfig) for value in several]
    return fixed, swept


def _section(item: Override) -> str:
    return item.key_or_group.partition(".")[0]


def _point(point: Any, index: int) -> list[Override]:
    """A point of ``sweep.points``, which is text or a mapping."""
    where = f"sweep.points[{index}]"
    if isinstance(point, str):
        try:
            words = shlex.split(point)
        except ValueError as error:
            raise ConfigError(f"{where}={show(point)}: {error}; close quotes") from None
        items = [parse(word, SweepConfig) for word in words]
    elif isinstance(point, Mapping):
        items = [assignment(str(name), value) for name, value in point.items()]
    else:
        raise ConfigError(
            f"{where}={show(point)}: must be text such as 'selector=quest', or a mapping of options"
        )
    if about := [item.key_or_group for item in items if _section(item) == "sweep"]:
        raise ConfigError(f"{where}: {about[0]} is about the sweep, not about a point of it")
    return items


def _run(config: RunConfig, name: str | None) -> RunConfig:
    """The options of a run in those of a sweep."""
    values = {item.name: getattr(config, item.name) for item in fields(RunConfig)}
    return copy.deepcopy(RunConfig(**{**values, "name": name}))


def _set(config: Any, name: str, value: Any) -> None:
    *sections, option = name.split(".")
    for section in sections:
        config = getattr(config, section)
    setattr(config, option, value)


def _reads_all(config: RunConfig) -> bool:
    """Whether every layer reads everything, token by token."""
    return is_dense(config.selector, config.plan) and not speculates(config.engine)


def _canonical(config: RunConfig) -> RunConfig:
    """The same run with what means nothing in it at its default: a dense one has no budget."""
    config = _run(config, config.name)
    if not speculates(config.engine):
        config.engine.drafter = EngineConfig.drafter
    elif config.engine.drafter == "ngram":
        config.selector, config.plan = SelectorConfig("dense", prefill=config.selector.prefill), PlanConfig()
    if config.plan.ratio == "inf":  # no anchor, and so no place of one
        config.plan.phase = PlanConfig.phase
    return _made_dense(config) if _reads_all(config) else config


def _made_dense(config: RunConfig) -> RunConfig:
    config.selector, config.plan = SelectorConfig(name="dense"), PlanConfig()
    config.engine = replace(config.engine, speculate=OFF, drafter=EngineConfig.drafter)
    return config


def _with_baselines(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """A dense point before the first of each kind that has none: one for all selections."""
    there = {_rest(config): config for config in reversed(configs) if _reads_all(config)}
    found: list[RunConfig] = []
    for config in configs:
        rest = _rest(config)
        if rest not in there:
            there[rest] = _made_dense(_run(config, None))
            found.append(there[rest])
        # Dense points that differ in the block size alone are one.
        found.append(there[rest] if _reads_all(config) else config)
    return found


def _values(config: RunConfig) -> dict[str, Any]:
    """Options that decide what the rows are, and those that decide how fast they come."""
    return {name: value for name, value, _ in options(config) if name.partition(".")[0] not in SHARED}


def _identity(config: RunConfig) -> str:
    return repr(_values(config))


def _rest(config: RunConfig) -> str:
    """All but the selection and what drafts: what two points must share to be compared."""
    free = BLOCK, SPECULATE, DRAFTER
    return repr({k: v for k, v in _values(config).items() if not k.startswith(SELECTION) and k not in free})


def _slug(config: RunConfig, changes: Mapping[str, Any]) -> str:
    """``quest-512``, ``seer-t0.01``, ``dense``, ``ngram-speculate=4``, and what else the point differs in."""
    selector, dense, drafted = config.selector, _reads_all(config), speculates(config.engine)
    silent = {
        "selector.name",
        "selector.budget",
        "selector.threshold",
        "selector.mass",
        "plan.ranking",
        DRAFTER,
    }
    if not drafted:
        silent.add(SPECULATE)
    parts = [selector.name]
    if drafted and config.engine.drafter != "selector":
        parts = ["ngram", *(parts if config.engine.drafter == "both" else ())]
    if not dense and parts != ["ngram"]:
        parts.append(selector.amount)
    for name, value in changes.items():
        told = name not in silent and not (dense and (name.startswith(SELECTION) or name == BLOCK))
        if told and not (value is None and name.startswith("plan.")):
            parts.append(f"{SHORT.get(name, name.rpartition('.')[2])}={show(value)}")
    safe = [re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._=]+", "_", part)).strip("_.")[:40] for part in parts]
    return "-".join(part for part in safe if part)[:100]
