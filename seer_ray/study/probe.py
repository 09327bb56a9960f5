"""A probe as it unfolds: every layer alone, sets of layers, and which layers should stay dense."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.study import RELAXATIONS, StudyProbeConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.corpora.identity import data_contents
from seer_ray.fidelity.evaluate import check_names
from seer_ray.fidelity.needles import TASKS
from seer_ray.models.content import digest
from seer_ray.models.gates import read_settings
from seer_ray.models.identity import Contents, contents
from seer_ray.models.load import load_config
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import SELECTING
from seer_ray.study.cells import Cell, Row, Stages
from seer_ray.study.sets import (
    LayerSet,
    kept_dense,
    layer_sets,
    probed_layers,
    random_sets,
    read_rankings,
    spaced,
)
from seer_ray.study.texts import SIDES
from seer_ray.tracking.tracker import Dataset


@dataclass(frozen=True)
class Scope:
    """What a probe is of, as far as options and the model's config say.

    Attributes:
        probed: layers that may be relaxed.
        relaxations: that are tried.
        sets: of layers that are relaxed together.
        kept: layers that stay dense in a choice; 0: none is made.
        rankings: others' choices.
    """

    probed: list[int]
    relaxations: list[str]
    sets: list[LayerSet]
    kept: int
    rankings: dict[str, list[int]]


@dataclass
class Found:
    """Rows of all cells, by what they are of."""

    scope: Scope
    attention: list[Row] = field(default_factory=list)
    alone: dict[tuple[str, int], list[Row]] = field(default_factory=dict)
    """By relaxation and layer."""
    together: dict[tuple[str, LayerSet], list[Row]] = field(default_factory=dict)
    """By relaxation and set."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Of the greedy choice: ``layer`` and ``nll`` with it dense too."""
    choices: dict[str, list[int]] = field(default_factory=dict)
    """Layers that stay dense, by who chose them."""
    compared: dict[str, list[Row]] = field(default_factory=dict)
    """By the same, and ``all relaxed``, on documents that no choice has seen."""
    ranking: list[int] = field(default_factory=list)
    """Probed layers, those first that greedy keeps dense, then by what they cost alone; empty: not known."""


NONE = "all relaxed"
"""The comparison in which no layer stays dense."""


def scope_of(config: StudyProbeConfig) -> Scope:
    """What can be known, and be wrong, before any weight is read.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    check_names("probe.recall", config.probe.recall, TASKS)
    hf_config: Any = load_config(config.model)
    mixers = layer_mixers(hf_config)
    selecting = [layer for layer, mixer in enumerate(mixers) if mixer in SELECTING]
    if not selecting:
        raise ConfigError(f"model.name={config.model.name}: has no layer with full attention to be relaxed")
    probed = probed_layers(config, selecting, len(mixers))
    sets = layer_sets(config, probed, len(mixers))
    kept = kept_dense(config, probed)
    relaxations = config.probe.relaxations
    if relaxations is None:
        relaxations = [name for name in RELAXATIONS if name != "gated" or not _without_gate(config, probed)]
    for name in relaxations:
        if name not in RELAXATIONS:
            raise ConfigError(
                f"probe.relaxations: {name!r} must be one of {', '.join(RELAXATIONS)}"
                f"{did_you_mean(name, RELAXATIONS)}"
            )
    for option, used in (("probe.relaxations", relaxations), ("choice.cheap", [config.choice.cheap])):
        asked = "gated" in used and (kept or option == "probe.relaxations")
        if asked and (why := _without_gate(config, probed)):
            raise ConfigError(f"{option}: gated: {why}")
    rankings = read_rankings(config, probed, kept) if kept else {}
    return Scope(probed, list(dict.fromkeys(relaxations)), sets, kept, rankings)


def _without_gate(config: StudyProbeConfig, probed: Sequence[int]) -> str:
    """Why layers cannot be gated; empty: they can."""
    if config.model.gates is None:
        return "the model has no gates; set model.gates, or leave it out"
    settings = read_settings(config.model.gates)
    if settings.layers is not None and (bare := [n for n in probed if n not in settings.layers]):
        return f"layer {bare[0]} has no gate in {config.model.gates}; set probe.layers, or leave it out"
    if config.probe.budget < 2 * settings.block_size:
        return f"probe.budget={config.probe.budget} must be at least two blocks, {2 * settings.block_size}"
    return ""


def dense_cell(side: str) -> Cell:
    """The eight indicators of every layer of the model as it is: rows by document and ``layer``."""
    return Cell("dense", {"side": side}, "maps")


def relaxed_cell(relaxation: str, layers: Sequence[int], side: str, label: str = "") -> Cell:
    """Layers relaxed together: rows by document, with ``nll``, ``dense_nll``, ``kl``, ``top1`` (the most
    likely token is the dense one), ``right`` and ``dense_right`` (it is the true one), and the indicators of
    the relaxed maps.

    Only what decides the rows is in it: two names for a set are one cell.
    """
    about = {"relaxation": relaxation, "layers": sorted(layers), "side": side}
    where = f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers"
    return Cell("relaxed", about, f"{relaxation} {label or where}")


def expected(config: StudyProbeConfig) -> int:
    """Cells in all, about."""
    scope = scope_of(config)
    kinds = len(scope.relaxations)
    alone = kinds + (scope.kept > 0 and config.choice.cheap not in scope.relaxations)
    number = 1 + alone * len(scope.probed) + kinds * len(scope.sets)
    if scope.kept:
        number += sum(min(config.choice.candidates, len(scope.probed) - place) for place in range(scope.kept))
        if config.held_out:
            number += 5 + len(scope.rankings) + config.probe.draws
    return number


def stages(config: StudyProbeConfig) -> Stages[Found]:
    """See ``cells.Stages``."""
    scope = scope_of(config)
    found, side, cheap = Found(scope), SIDES[0], config.choice.cheap
    kinds = [*scope.relaxations]
    if scope.kept and cheap not in kinds:
        kinds.append(cheap)
    alone = [(kind, layer) for kind in kinds for layer in scope.probed]
    together = [(kind, one) for kind in scope.relaxations for one in scope.sets]
    first, *rest = yield [
        dense_cell(side),
        *(relaxed_cell(kind, [layer], side) for kind, layer in alone),
        *(relaxed_cell(kind, one.layers, side) for kind, one in together),
    ]
    found.attention = first
    found.alone = dict(zip(alone, rest, strict=False))
    found.together = dict(zip(together, rest[len(alone) :], strict=True))
    if cheap not in kinds:
        return found
    by_cost = sorted(scope.probed, key=lambda layer: (-nll_of(found.alone[cheap, layer]), layer))
    if scope.kept:
        yield from _choose(config, found, by_cost)
        if config.held_out:
            yield from _compare(config, found, by_cost)
    kept = found.choices.get("greedy", [])
    found.ranking = [*kept, *(layer for layer in by_cost if layer not in kept)]
    return found


def _choose(config: StudyProbeConfig, found: Found, by_cost: Sequence[int]) -> Stages[None]:
    """Greedy: from all relaxed, the layer that brings most is made dense, again and again."""
    dense: list[int] = []
    for _ in range(found.scope.kept):
        tried = [layer for layer in by_cost if layer not in dense][: config.choice.candidates]
        cells = []
        for layer in tried:
            relaxed = [one for one in found.scope.probed if one not in dense and one != layer]
            label = f"with {len(dense) + 1} dense, {layer} last"
            cells.append(relaxed_cell(config.choice.cheap, relaxed, SIDES[0], label))
        losses = [nll_of(rows) for rows in (yield cells)]
        best = min(range(len(tried)), key=lambda place: (losses[place], tried[place]))
        dense.append(tried[best])
        found.steps.append({"layer": tried[best], "nll": losses[best]})
    found.choices["greedy"] = dense


def _compare(config: StudyProbeConfig, found: Found, by_cost: Sequence[int]) -> Stages[None]:
    """All choices of as many layers, on documents that none has seen. What is read is the same."""
    scope, choices = found.scope, found.choices
    choices["profile"] = list(by_cost[: scope.kept])
    for phase in ("first", "last"):
        choices[f"spaced, {phase}"] = spaced(scope.probed, scope.kept, phase)
    choices |= scope.rankings
    for one in random_sets(scope.probed, scope.kept, config.probe.draws, config.seed):
        choices[one.name] = list(one.layers)
    relaxed = {
        name: [layer for layer in scope.probed if layer not in dense] for name, dense in choices.items()
    } | {NONE: scope.probed}
    cells = [
        relaxed_cell(config.choice.cheap, layers, SIDES[1], f"compared, {name}")
        for name, layers in relaxed.items()
    ]
    found.compared = dict(zip(relaxed, (yield cells), strict=True))


def nll_of(rows: Sequence[Row]) -> float:
    """Mean loss of the text's tokens, nats."""
    own = [row for row in rows if not row["recall"]]
    return float(sum(row["rows"] * row["nll"] for row in own) / sum(row["rows"] for row in own))


def probe_contents(config: StudyProbeConfig) -> Contents:
    """What is behind the options; see ``models.identity``."""
    found = contents(config.model) | data_contents(config.data)
    if (fixed := config.probe.fixed) is not None and Path(fixed).is_file():
        found["probe.fixed"] = {Path(fixed).name: digest(Path(fixed))}
    return found


def dataset(config: StudyProbeConfig) -> Dataset:
    """For the tracking."""
    sources = [source.path for source in parse_sources(config.data)]
    content = hashlib.sha256(repr(config.data).encode()).hexdigest()[:16]
    return Dataset("documents", content, ", ".join(sources), config.documents * len(sources))
