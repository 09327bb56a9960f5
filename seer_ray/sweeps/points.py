"""The points of a sweep: from options that have several values to the run configs that they mean."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from seer_ray.config.compose import compose, reader_of
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import RunConfig, SelectorConfig, SweepConfig, options
from seer_ray.config.overrides import Choice, Setting, show

Override = str | Choice | Setting
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


def expand(overrides: Sequence[str | Setting], base: SweepConfig | None = None) -> SweepConfig:
    """A sweep with its points spelled out: ``points_of`` lists them.

    Args:
        overrides: As of a run, but an option or a group may have several values, as Hydra writes sweeps:
            ``selector=quest,window``, ``selector.budget=512,1024``, ``seed=range(3)``.
        base: Start from these options instead of the top file.

    Raises:
        ConfigError: A bad option, or nothing that has several values.
    """
    fixed, swept = _split(overrides)
    reader = reader_of(SweepConfig)
    about = [word for word in fixed if _name(word).partition(".")[0] == "sweep"]
    sweep = compose(about, SweepConfig, base).sweep
    grid: dict[str, list[list[Override]]] = {}
    for name, values in sweep.grid.items():
        several = values if isinstance(values, list) else [values]
        grid[name] = [_items({name: value}, f"sweep.grid.{name}") for value in several]
    grid |= {name: [list(reader.parse(word)) for word in words] for name, words in swept.items()}
    words = [_point(point, index) for index, point in enumerate(sweep.points)]
    if grid:
        words += [list(itertools.chain(*combination)) for combination in itertools.product(*grid.values())]
    if not words:
        raise ConfigError(
            "nothing to sweep: give an option several values, such as selector.budget=512,1024, "
            "or name a sweep, such as sweep=selectors"
        )
    composed = [compose([*fixed, *word], SweepConfig, base) for word in words]
    configs = [
        _run(
            config, config.name if any(isinstance(i, Setting) and i.option == "name" for i in word) else None
        )
        for config, word in zip(composed, words, strict=True)
    ]
    names = [word for word in fixed if _name(word) == "name"]
    own = compose(names, SweepConfig).name if names or base is None else base.name
    like = replace(composed[0], name=own)
    return _spelled_out(like, _with_baselines(configs) if sweep.baseline else configs)


def points_of(sweep: SweepConfig) -> list[Point]:
    """The points of a sweep that is spelled out, baselines first."""
    configs = _configs(sweep)
    dense = {_rest(config): str(config.name) for config in configs if is_dense(config)}
    points = [
        Point(
            str(config.name),
            config,
            {name: value for name, value in changes.items() if name != "name"},
            dense.get(_rest(config), ""),
        )
        for config, changes in zip(configs, sweep.sweep.points, strict=True)
    ]
    return sorted(points, key=lambda point: not is_dense(point.config))


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
    same = [n for n in ours if n not in swept and n != BLOCK and not n.startswith("selector.")]
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
            points=[{"name": name, **change} for name, change in zip(names, changes, strict=True)],
        ),
    )
    sweep = replace(sweep, name=like.name, results=like.results, cluster=like.cluster, tracking=like.tracking)
    return copy.deepcopy(sweep)


def _configs(sweep: SweepConfig) -> list[RunConfig]:
    """Of the points of a sweep that is spelled out."""
    found = [compose(_items(point, "sweep.points"), SweepConfig, sweep) for point in sweep.sweep.points]
    return [_run(config, config.name) for config in found]


def _name(word: str | Setting) -> str:
    return word.name if isinstance(word, Setting) else word.partition("=")[0].strip()


def _split(overrides: Iterable[str | Setting]) -> tuple[list[str | Setting], dict[str, list[str]]]:
    """Overrides with one value, and those with several: by name, each value as an override of its own."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    fixed: list[str | Setting] = []
    swept: dict[str, list[str]] = {}
    for text in overrides:
        if isinstance(text, Setting):
            fixed.append(text)
            continue
        name, (_, equals, value) = _name(text), text.partition("=")
        try:
            parsed = OverridesParser.create().parse_override(f"x={value}")
        except HydraException:
            parsed = None  # whoever reads single values says what is wrong, or knows better
        if (
            not equals
            or parsed is None
            or not parsed.is_sweep_override()
            or name.partition(".")[0] == "sweep"
        ):
            fixed.append(text)
            continue
        try:
            swept[name] = [f"{name}={single}" for single in parsed.sweep_string_iterator()]
        except HydraException as error:
            raise ConfigError(f"{text}: must be a list of values ({error})") from None
    return fixed, swept


def _point(point: Any, index: int) -> list[Override]:
    where = f"sweep.points[{index}]"
    if isinstance(point, str):
        return [item for word in shlex.split(point) for item in reader_of(SweepConfig).parse(word)]
    if isinstance(point, Mapping):
        return _items(point, where)
    raise ConfigError(
        f"{where}={show(point)}: must be text such as 'selector=quest', or a mapping of options"
    )


def _items(point: Mapping[str, Any], where: str) -> list[Override]:
    """Options and choices of groups in a mapping."""
    reader, found = reader_of(SweepConfig), list[Override]()
    for name, value in point.items():
        if name in reader.groups and isinstance(value, str):
            found += reader.parse(f"{name}={value}")
        elif name.partition(".")[0] == "sweep":
            raise ConfigError(f"{where}: {name} is about the sweep, not about a point of it")
        else:
            found += reader.flatten({name: value})
    return found


def _run(config: RunConfig, name: str | None) -> RunConfig:
    """The options of a run in those of a sweep."""
    values = {item.name: getattr(config, item.name) for item in fields(RunConfig)}
    return copy.deepcopy(RunConfig(**{**values, "name": name}))


def _set(config: Any, name: str, value: Any) -> None:
    *sections, option = name.split(".")
    for section in sections:
        config = getattr(config, section)
    setattr(config, option, value)


def is_dense(config: RunConfig) -> bool:
    """Whether every layer reads everything."""
    return {config.selector.name, *config.selector.layers.values()} == {"dense"}


def _canonical(config: RunConfig) -> RunConfig:
    """The same run with what means nothing in it at its default: a dense one has no budget."""
    config = _run(config, config.name)
    if is_dense(config):
        config.selector = SelectorConfig(name="dense")
    return config


def _with_baselines(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """A dense point before the first of each kind that has none: one for all selections."""
    there = {_rest(config): config for config in reversed(configs) if is_dense(config)}
    found: list[RunConfig] = []
    for config in configs:
        rest = _rest(config)
        if rest not in there:
            there[rest] = _run(config, None)
            there[rest].selector = SelectorConfig(name="dense")
            found.append(there[rest])
        # Dense points that differ in the block size alone are one.
        found.append(there[rest] if is_dense(config) else config)
    return found


def _values(config: RunConfig) -> dict[str, Any]:
    """Options that decide what the rows are, and those that decide how fast they come."""
    own = ("name", "results.", "tracking.", "cluster.")
    return {name: value for name, value, _ in options(config) if not name.startswith(own)}


def _identity(config: RunConfig) -> str:
    return repr(_values(config))


def _rest(config: RunConfig) -> str:
    """All but the selection: what two points must share to be compared."""
    return repr({k: v for k, v in _values(config).items() if not k.startswith("selector.") and k != BLOCK})


def _slug(config: RunConfig, changes: Mapping[str, Any]) -> str:
    """``quest-512``, ``seer-t0.01``, ``dense``, and what else the point differs in."""
    selector, told = config.selector, {"selector.name", "selector.budget", "selector.threshold"}
    parts = [selector.name]
    if not is_dense(config):
        parts.append(str(selector.budget) if selector.threshold is None else f"t{selector.threshold:g}")
    for name, value in changes.items():
        silent = name in told or (is_dense(config) and (name.startswith("selector.") or name == BLOCK))
        if not silent:
            parts.append(f"{name.rpartition('.')[2]}={show(value)}")
    safe = [re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._=]+", "_", part)).strip("_.")[:40] for part in parts]
    return "-".join(part for part in safe if part)[:100]
