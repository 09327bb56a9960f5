"""What a run or a sweep would cost: requests, tokens and time, and what the figures rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config.compose import from_yaml, run_name
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.speculating import speculates
from seer_ray.driver.dataset import asked_key, read_problems
from seer_ray.results.folder import RUN, RunFolder
from seer_ray.results.speed import Speed
from seer_ray.results.store import join, open_store
from seer_ray.results.sweep import INDEX, SweepFolder, point_uri
from seer_ray.status.pulse import STATUS
from seer_ray.sweeps.plans import Plans
from seer_ray.sweeps.points import Point, merged, points_of
from seer_ray.tasks.grading import check_grader
from seer_ray.tasks.table import ProblemTable


@dataclass(frozen=True)
class Measured:
    """What a run came to, as far as it came."""

    rows: int
    tokens: int
    """Of its rows."""
    rate: float | None
    """Tokens per second. None: not measured, or unsteady."""
    finished: bool = False
    """It came to its end."""

    @property
    def length(self) -> float:
        return self.tokens / self.rows


@dataclass(frozen=True)
class PointEstimate:
    """One point. None: not known."""

    name: str
    plan: str
    overrides: dict[str, object]
    requests: int
    """That are left."""
    done: int
    most: int
    """Tokens, if every chain is cut off at the limit."""
    tokens: int | None
    seconds: float | None
    basis: str
    """Of tokens and seconds; empty: nothing like it was measured yet."""
    error: str | None = None
    """Why it cannot be run."""


@dataclass(frozen=True)
class Estimate:
    name: str
    folder: str
    points: list[PointEstimate]
    same: dict[str, str] = field(default_factory=dict)
    """Points that are left out -> those that read the same blocks."""

    @property
    def totals(self) -> dict[str, Any]:
        """Over all points."""
        return {name: getattr(self, name) for name in ("requests", "most", "tokens", "seconds")}

    @property
    def requests(self) -> int:
        return sum(point.requests for point in self.points)

    @property
    def most(self) -> int:
        """Tokens, if every chain is cut off at the limit."""
        return sum(point.most for point in self.points)

    @property
    def tokens(self) -> int | None:
        """None: not known for some point."""
        return _total(point.tokens for point in self.points)

    @property
    def seconds(self) -> float | None:
        """None: not known for some point."""
        return _total(point.seconds for point in self.points)


def estimate(config: RunConfig) -> Estimate:
    """A run, or the points of a sweep, as they stand, and what is left of them.

    Lengths and rates are taken from a point's own rows, else from the other points of the sweep, else from
    runs beside it with the same model, task and sampling (those of its selector, if there are any).

    Raises:
        ConfigError: The job, its data, its grader, or what it asks of its model, is wrong.
    """
    uri, name = join(config.results.folder, run_name(config)), run_name(config)
    check_grader(config.task)
    if isinstance(config, SweepConfig) and INDEX in open_store(uri).list():
        folder = SweepFolder.view(uri)
        if folder.config_yaml:
            before = from_yaml(folder.config_yaml, folder.store.locate("config.yaml"), SweepConfig)
            begun = [point["slug"] for point in folder.points if point.get("rows")]
            config = merged(before, config, begun, folder.uri)
    swept = isinstance(config, SweepConfig)
    plans = Plans(points_of(config) if isinstance(config, SweepConfig) else [Point(name, config, {}, "")])
    if not swept and plans.failed:
        raise ConfigError(plans.failed[name])
    own = {point.slug: _measure(point_uri(uri, point.slug) if swept else uri) for point in plans.distinct}
    beside = _beside(config, uri)
    asked: dict[str, ProblemTable] = {}
    found = []
    for point in plans.distinct:
        task = asked_key(point.config)
        if task not in asked:
            asked[task] = read_problems(point.config)
        total = asked[task].survey.rows(point.config.samples)
        found.append(_point(point, plans, total, own, beside))
    return Estimate(name, uri, found, plans.same)


def _point(
    point: Point,
    plans: Plans,
    total: int,
    own: dict[str, Measured | None],
    beside: Sequence[tuple[RunConfig, Measured]],
) -> PointEstimate:
    mine = own[point.slug]
    done = mine.rows if mine else 0
    over = mine is not None and mine.finished and point.config.sequential.enabled
    left = 0 if over or point.slug in plans.failed else total - done
    others = [measured for measured in own.values() if measured]
    selector = point.config.selector.name
    drafts = speculates(point.config.engine)
    alike = [
        measured
        for config, measured in beside
        if config.selector.name == selector and speculates(config.engine) == drafts
    ]
    basis: list[Measured] = []
    text = ""
    if mine:
        basis, text = [mine], f"its own {mine.rows:,} rows"
    elif others:
        basis, text = others, f"{len(others)} other points of this sweep"
    elif alike or beside:
        basis = alike or [measured for _, measured in beside]
        kind = f"of {selector} " if alike else ""
        runs = "1 earlier run" if len(basis) == 1 else f"{len(basis)} earlier runs"
        text = f"{runs} {kind}with this model, task and sampling"
    rows = sum(measured.rows for measured in basis)
    tokens = round(left * sum(measured.tokens for measured in basis) / rows) if rows else None
    rates = [measured.rate for measured in basis if measured.rate]
    seconds = tokens / (sum(rates) / len(rates)) if tokens is not None and rates else None
    return PointEstimate(
        point.slug,
        plans.codes.get(point.slug, ""),
        point.changes,
        left,
        done,
        left * point.config.sampling.max_new_tokens,
        0 if left == 0 else tokens,
        0.0 if left == 0 else seconds,
        text if left else "",
        plans.failed.get(point.slug),
    )


def _measure(uri: str) -> Measured | None:
    """None: no such run, or no row in it."""
    if RUN not in open_store(uri).list():
        return None
    folder = RunFolder.view(uri)
    lengths = folder.read(["completion_tokens"])["completion_tokens"].to_pylist()
    speed = Speed.of(folder.read_json(STATUS))
    rate = speed.tokens_per_s if speed and not speed.unsteady else None
    finished = folder.metrics() is not None
    return Measured(len(lengths), sum(lengths), rate, finished) if lengths else None


def _beside(config: RunConfig, uri: str) -> list[tuple[RunConfig, Measured]]:
    """Runs in the same place, on a disk, with the same model, task and sampling."""
    root = open_store(config.results.folder).path
    found = []
    for mark in sorted(root.glob(f"*/{RUN}")) + sorted(root.glob(f"*/points/*/{RUN}")) if root else []:
        try:
            folder = RunFolder.view(str(mark.parent))
            other = from_yaml(folder.config_yaml)
            measured = _measure(str(mark.parent)) if _alike(config, other) else None
        except ConfigError:
            continue
        if measured is not None and not str(mark).startswith(f"{uri}/"):
            found.append((other, measured))
    return found


def _alike(config: RunConfig, other: RunConfig) -> bool:
    def about(one: RunConfig) -> list[object]:
        task = {**vars(one.task), "limit": None, "shuffle": None}
        engine = [one.engine.kv_dtype, one.engine.exact, one.engine.max_batch]
        return [one.model.name, one.model.dtype, task, one.sampling, *engine]

    return about(config) == about(other)


def _total(values: Iterable[Any]) -> Any:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
