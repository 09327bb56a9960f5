"""Run folders and sweeps, read for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seer_ray.analysis import groups, outcomes
from seer_ray.analysis.grid import SHORT
from seer_ray.analysis.outcomes import MisalignedError, Outcomes
from seer_ray.analysis.racing import Decision, Verdict
from seer_ray.config import works
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.options import RunConfig
from seer_ray.config.speculating import DRAFTER, SPECULATE, speculated
from seer_ray.results.folder import GRADED, RUN, RunFolder
from seer_ray.results.schema import TOKENS
from seer_ray.results.speed import Speed
from seer_ray.results.store import open_store
from seer_ray.results.sweep import INDEX, SweepFolder, point_uri

SELECTION = ("selector.", "plan.", "engine.block_size")
"""Options by which a setting and its dense baseline may differ."""
BUDGET = "selector.budget"
MAPPINGS = ("selector.layers.", "selector.shares.", "selector.head_shares.")
FEW_ENTRIES = 4
"""Of a mapping, that are spelled out in a name."""


@dataclass(frozen=True)
class Contender:
    """One run beside others: what it came to, what it cost, and where it stands among them."""

    name: str
    """Short, and unlike the others' names: ``dense``, ``seer 2,048``."""
    folder: str
    job: str
    """The folder of what measured it: the sweep's, or its own. Speeds of one job compare."""
    options: dict[str, Any]
    """Those that decide what the rows are, by dotted name."""
    outcomes: Outcomes
    speed: Speed | None
    family: tuple[tuple[str, str], ...] = ()
    """The options by which it differs from others, its budget left out."""
    decided: Decision | None = None
    """By racing, which stopped it then. None: it was not stopped."""

    @property
    def dense(self) -> bool:
        return is_dense(self.options)

    @property
    def budget(self) -> int | None:
        """In tokens; None: dense, or drafted by n-grams."""
        if self.dense or self.options.get(DRAFTER) == "ngram":
            return None
        return self.options.get(BUDGET)


def first_samples(options: Mapping[str, Any]) -> int | None:
    """Samples of a problem that count for accuracy, from the first; None: all, as all are taken anyway."""
    return int(options["sequential.every"]) if options.get("sequential.enabled") else None


def _counted(rows: pa.Table, first: int | None) -> pa.Table:
    return rows if first is None else rows.filter(pc.less(rows["sample"], first))


def is_dense(options: Mapping[str, Any]) -> bool:
    """Whether a run with these options, by dotted name, reads the whole KV in every layer, token by token."""
    return works.is_dense(*works.selection_in(options)) and not speculated(options)


def is_lossless(options: Mapping[str, Any]) -> bool:
    """Whether a run with these options has the rows of dense decoding, though it does not decode so."""
    return speculated(options) and not works.selection_in(options)[0].prefill.asked


def decided_densely(options: Mapping[str, Any]) -> bool:
    """Whether dense attention decides each token of a run with these options."""
    return is_dense(options) or is_lossless(options)


def _rows(folder: RunFolder, columns: Sequence[str], chains: bool) -> pa.Table:
    """Of a run, with digests of their tokens if these are to be compared."""
    if not chains:
        return folder.read(columns)
    found = list(map(outcomes.digested, folder.stream((*columns, TOKENS))))
    return pa.Table.from_batches(found) if found else folder.read(columns)


def expand(uris: Sequence[str]) -> list[tuple[str, str]]:
    """Run folders, a sweep standing for all of its points that have begun, each with the job it is part of.

    Raises:
        ConfigError: neither a run nor a sweep is there.
    """
    found: list[tuple[str, str]] = []
    for uri in uris:
        names = open_store(uri).list()
        if INDEX in names:
            places = [point_uri(uri, point["slug"]) for point in SweepFolder.view(uri).points]
            found += [(place, uri) for place in places if RUN in open_store(place).list()]
        elif RUN in names:
            found.append((uri, uri))
        else:
            raise ConfigError(f"{uri}: neither a run nor a sweep is here")
    return list(dict.fromkeys(found))


def load(uris: Sequence[str], where: Mapping[str, str] | None = None) -> list[Contender]:
    """Runs and sweeps, aligned over the same problems and samples; dense settings first.

    Args:
        uris: of their folders
        where: only rows with these values in columns that are kept (``analysis.groups``); None: all

    Raises:
        ConfigError: a folder cannot be read, or they are not about the same problems.
    """
    places = expand(uris)
    folders = [RunFolder.view(uri) for uri, _ in places]
    options = [_options(folder) for folder in folders]
    names = labels(options, [uri.rstrip("/").rpartition("/")[2] for uri, _ in places])
    columns = (*outcomes.COLUMNS, "inputs") if where else outcomes.COLUMNS
    lossless = any(map(is_lossless, options))
    tables = [
        _counted(_rows(folder, columns, lossless and decided_densely(option)), first_samples(option))
        for folder, option in zip(folders, options, strict=True)
    ]
    if where:
        tables = [groups.matching(table, where) for table in tables]
    try:
        aligned = outcomes.align(dict(zip(names, tables, strict=True)))
    except MisalignedError as error:
        raise ConfigError(f"cannot be compared: {error}") from None
    varying, decisions = differing(options), _decisions(uris)
    settings = [
        Contender(
            name=name,
            folder=uri,
            job=job,
            options=option,
            outcomes=replace(aligned[name], decided=decided_densely(option)),
            speed=Speed.of(folder.read_json("status.json")),
            family=tuple((key, repr(option.get(key))) for key in varying if key != BUDGET),
            decided=decisions.get(uri),
        )
        for name, (uri, job), folder, option in zip(names, places, folders, options, strict=True)
    ]
    return sorted(settings, key=lambda setting: (not setting.dense, setting.family, -(setting.budget or 0)))


def _options(folder: RunFolder) -> dict[str, Any]:
    """Those that decide what the rows are, with the grader that they have now."""
    noted = folder.read_json(GRADED)
    graded = {f"task.{name}": value for name, value in noted["task"].items()} if noted else {}
    return {**Identity(folder.config, RunConfig).deciding, **graded}


def _decisions(uris: Sequence[str]) -> dict[str, Decision]:
    """What racing decided about the points of sweeps, by their folder."""
    return {
        point_uri(uri, point["slug"]): Decision(**{**said, "verdict": Verdict(said["verdict"])})
        for uri in uris
        if INDEX in open_store(uri).list()
        for point in SweepFolder.view(uri).points
        if (said := point.get("decision"))
    }


def differing(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the options that are not the same everywhere."""
    names = dict.fromkeys(name for option in options for name in option)
    return [name for name in names if any(option.get(name) != options[0].get(name) for option in options)]


def labels(options: Sequence[Mapping[str, Any]], fallback: Sequence[str]) -> list[str]:
    """Short names that tell settings apart by what differs; the folder's name where nothing else does."""
    shown = {"selector.name", BUDGET, "selector.threshold", "selector.mass", "plan.ranking"}
    varying = [name for name in differing(options) if name not in shown]
    made = []
    for option in options:
        if is_dense(option):
            words = ["dense"]
            rest = [name for name in varying if not name.startswith(SELECTION)]
        elif speculated(option) and option[DRAFTER] == "ngram":
            words, rest = ["ngram"], [name for name in varying if not name.startswith(SELECTION)]
        else:
            words = [str(option.get("selector.name")), f"{option.get(BUDGET, 0):,}"]
            if speculated(option) and option[DRAFTER] == "both":
                words[0] = f"ngram+{words[0]}"
            levels = {kind: option.get(f"selector.{kind}") for kind in ("threshold", "mass")}
            words += [f"{kind[0]}{level:g}" for kind, level in levels.items() if level is not None]
            rest = varying
        words += _said([name for name in rest if name in option and name != DRAFTER], option)
        made.append(" ".join(words))
    if len(set(made)) == len(made):
        return made
    longer = [
        f"{label} ({name})" if made.count(label) > 1 else label
        for label, name in zip(made, fallback, strict=True)
    ]
    return [
        f"{label} #{longer[:i].count(label) + 1}" if longer.count(label) > 1 else label
        for i, label in enumerate(longer)
    ]


def _said(names: Sequence[str], option: Mapping[str, Any]) -> list[str]:
    """Options in short; many entries of one mapping by their number alone."""
    words = []
    for mapping in MAPPINGS:
        entries = [name for name in names if name.startswith(mapping)]
        if len(entries) > FEW_ENTRIES:
            names = [name for name in names if name not in entries]
            words.append(f"{len(entries)} {mapping.split('.')[1]}")
    return [f"{_short(name)}={option[name]}" for name in names] + words


def _short(name: str) -> str:
    """Of an option; entries of mappings are named by layers, which say nothing alone."""
    if name.startswith(MAPPINGS):
        return name.removeprefix("selector.")
    return SHORT.get(name, name.rpartition(".")[2])


def baseline_of(settings: Sequence[Contender], of: Contender | None = None) -> Contender | None:
    """The dense setting to compare with. None: there is none, or no saying which.

    Args:
        of: the setting to compare; where there are several dense ones, that which differs from it only in
            how blocks are selected
    """
    dense = [setting for setting in settings if setting.dense]
    if of is not None and len(dense) > 1:
        dense = [setting for setting in dense if _rest(setting) == _rest(of)]
    return dense[0] if len(dense) == 1 else None


def _rest(setting: Contender) -> dict[str, Any]:
    free = (*SELECTION, SPECULATE, DRAFTER)
    return {name: value for name, value in setting.options.items() if not name.startswith(free)}
