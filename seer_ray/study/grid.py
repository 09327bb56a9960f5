"""A grid of small models: which layers of each do what, from which seed, and what it learns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seer_ray.config.compose import compose
from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.layouts import LAYOUTS
from seer_ray.config.overrides import assignment, flat, show
from seer_ray.config.study import StudyTrainConfig
from seer_ray.config.training import MixerPlanConfig, PretrainConfig
from seer_ray.corpora.documents import parse_sources
from seer_ray.corpora.identity import training_contents
from seer_ray.models.identity import Contents
from seer_ray.models.layout import lay_mixers
from seer_ray.models.mixers import MIXERS
from seer_ray.study.cells import Cell, Row, Stages
from seer_ray.tracking.tracker import Dataset
from seer_ray.training.pretrain.objective import check_pretraining

UNIFORM, ALL = "uniform", "all"
"""Layouts: without anchors; of the model that has nothing else."""
_RATIO = re.compile(r"([1-9]\d*):1(?: (first|last|\d+))?")


@dataclass(frozen=True)
class Model:
    """One model of the grid, whatever its seed.

    Attributes:
        learn: what it learns, of ``study.learn``; empty: there is one thing.
        mixer: that stands in for the anchor; of the baseline the anchor itself.
        layout: where.
        layers: the mixer of each.
    """

    learn: str
    mixer: str
    layout: str
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """Without what it learns."""
        return self.mixer if self.layout == ALL else f"{self.mixer}, {self.layout}"

    def cell(self, seed: int) -> Cell:
        """Only what decides its rows is in it: two names of a layout are one cell."""
        label = ", ".join(filter(None, (self.learn, self.name, f"seed {seed}")))
        about = {"learn": self.learn, "layers": " ".join(self.layers), "seed": seed}
        return Cell("trained", about, label)


@dataclass
class Trained:
    """Rows of all cells: ``name`` and ``value`` of each measure."""

    seeds: list[int]
    cells: dict[Model, list[dict[str, float]]] = field(default_factory=dict)
    """By seed, in order."""
    ids: dict[Model, list[str]] = field(default_factory=dict)


def learned(config: StudyTrainConfig) -> dict[str, PretrainConfig]:
    """What is learned, by name, with its options.

    Raises:
        ConfigError: an option that models of a study cannot have, or that there is not.
    """
    if config.architecture.mixers:
        raise ConfigError(
            f"architecture.mixers={show(config.architecture.mixers)}: means nothing in a study; set "
            "study.mixers and study.layouts"
        )
    said: dict[str, list[tuple[str, Any]]] = {}
    for key, value in (config.study.learn or {"": {}}).items():
        name, _, option = str(key).partition(".")
        if not option and not isinstance(value, Mapping):
            raise ConfigError(
                f"study.learn.{name}={show(value)}: must be options, such as {{train.steps: 100}}"
            )
        values = {option: value} if option else value
        said.setdefault(name, []).extend(flat(values, PretrainConfig))
    found = {}
    for name, settings in said.items():
        try:
            made = compose([assignment(*one) for one in settings], PretrainConfig, config.pretrain)
        except ConfigError as error:
            raise ConfigError(f"study.learn.{name}.{error}") from None
        if made.architecture.mixers or made.plan != MixerPlanConfig():
            raise ConfigError(f"study.learn.{name}: layers are laid out by study.mixers and study.layouts")
        found[name] = made
    return found


def models_of(config: StudyTrainConfig) -> list[Model]:
    """All models, the baseline first; each could be trained.

    Raises:
        ConfigError: an unknown mixer, or a layout, sizes or data that do not go together.
    """
    study = config.study
    known = [name for name, traits in MIXERS.items() if traits.trained]
    for option, names in (("study.mixers", study.mixers), ("study.anchor", [study.anchor])):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{option}: {name!r} must be one of {', '.join(known)}{did_you_mean(name, known)}"
                )
    if study.anchor in study.mixers:
        raise ConfigError(
            f"study.mixers: {study.anchor!r} is the anchor, which is trained anyway; leave it out"
        )
    found: dict[tuple[str, ...], Model] = {}
    for learn, settings in learned(config).items():
        count = settings.architecture.layers
        wanted = [Model(learn, study.anchor, ALL, (study.anchor,) * count)]
        for mixer in dict.fromkeys(study.mixers):
            for layout in dict.fromkeys(study.layouts):
                wanted.append(Model(learn, mixer, layout, _laid(mixer, study.anchor, layout, count)))
        for model in wanted:
            if (learn, *model.layers) in found:
                continue  # another name of a layout
            try:
                check_pretraining(options_of(settings, model, 0))
            except ConfigError as error:
                where = f"study.learn.{learn}: " if learn else ""
                raise ConfigError(f"{where}{model.name}: {error}") from None
            found[learn, *model.layers] = model
    return list(found.values())


def _laid(mixer: str, anchor: str, layout: str, layers: int) -> tuple[str, ...]:
    option = f"study.layouts: {layout!r}"
    plan = MixerPlanConfig(cheap=mixer, anchor=anchor)
    if ratio := _RATIO.fullmatch(layout):
        plan = replace(plan, ratio=ratio[1], phase=ratio[2] or "last")
    elif layout in (UNIFORM, *LAYOUTS):
        plan = replace(plan, named="all_cheap" if layout == UNIFORM else layout)
    else:
        known = (UNIFORM, *LAYOUTS)
        raise ConfigError(
            f"{option} must be one of {', '.join(known)}, or a ratio such as '3:1 first'"
            f"{did_you_mean(layout, known)}"
        )
    try:
        laid = lay_mixers(plan, layers)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    if mixer not in laid:
        raise ConfigError(f"{option} leaves no layer to {mixer}; {anchor} alone is trained anyway")
    return tuple(laid)


def options_of(settings: PretrainConfig, model: Model, seed: int) -> PretrainConfig:
    """Of the training of one model.

    Args:
        settings: of what it learns.
        seed: place among the seeds, from 0.
    """
    return with_layers(settings, model.layers, settings.train.seed + seed)


def with_layers(settings: PretrainConfig, layers: tuple[str, ...], seed: int) -> PretrainConfig:
    """``settings`` with these mixers and this ``train.seed``."""
    train = replace(settings.train, seed=seed)
    return replace(settings, plan=MixerPlanConfig(repeat=list(layers)), train=train)


def expected(config: StudyTrainConfig) -> int:
    """Cells in all."""
    return len(models_of(config)) * config.study.seeds


def stages(config: StudyTrainConfig) -> Stages[Trained]:
    """See ``cells.Stages``: one stage, all models of the first seed first."""
    models, first = models_of(config), {name: made.train.seed for name, made in learned(config).items()}
    found = Trained(list(range(config.study.seeds)))
    cells = [model.cell(first[model.learn] + seed) for seed in found.seeds for model in models]
    rows = yield cells
    for number, (cell, measured) in enumerate(zip(cells, rows, strict=True)):
        model = models[number % len(models)]
        found.cells.setdefault(model, []).append(_values(measured))
        found.ids.setdefault(model, []).append(cell.id)
    return found


def _values(rows: list[Row]) -> dict[str, float]:
    return {row["name"]: row["value"] for row in rows}


def grid_contents(config: StudyTrainConfig) -> Contents:
    """What is behind the options; see ``models.identity``."""
    found: Contents = {}
    for name, settings in learned(config).items():
        inside = f"study.learn.{name}." if name else ""
        found |= {f"{inside}{option}": content for option, content in training_contents(settings).items()}
    return found


def dataset(config: StudyTrainConfig) -> Dataset:
    """For the tracking."""
    said = []
    for settings in learned(config).values():
        data = settings.data
        if data.text is None:
            said.append(f"{data.generator}, {data.start} to {data.end}")
        else:
            said += [source.path for source in parse_sources(data.text, "data.text")]
    return Dataset("learned", "", ", ".join(said), 0)
