"""Sets of layers that are relaxed together: named, random, and those that choices leave."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from seer_ray.config.errors import ConfigError, did_you_mean, first_line
from seer_ray.config.layouts import LAYOUTS, anchors_of
from seer_ray.config.study import StudyProbeConfig
from seer_ray.models.layers import parse_layers


@dataclass(frozen=True)
class LayerSet:
    """Layers, in order, under a name.

    Attributes:
        name: of the layout, or the user's; ``random 3`` of one that is drawn.
        layers: that are relaxed.
        drawn: whether they were drawn.
    """

    name: str
    layers: tuple[int, ...]
    drawn: bool = False


def probed_layers(config: StudyProbeConfig, selecting: Sequence[int], layers: int) -> list[int]:
    """The layers that may be relaxed.

    Args:
        config: of the probe.
        selecting: layers with full attention.
        layers: of the model.

    Raises:
        ConfigError: a layer that is not there, or has no full attention.
    """
    asked = config.probe.layers
    if asked is None:
        return list(selecting)
    found = parse_layers(asked, layers, "probe.layers")
    if other := [layer for layer in found if layer not in selecting]:
        raise ConfigError(
            f"probe.layers={asked}: layer {other[0]} has no full attention; name layers of {_said(selecting)}"
        )
    return list(found)


def layer_sets(config: StudyProbeConfig, probed: Sequence[int], layers: int) -> list[LayerSet]:
    """Named sets, and for each size of one ``probe.draws`` random ones. Sets of one layer, and those that
    another name has already, are left out.

    Raises:
        ConfigError: an unknown name, layers that are not probed, or a set of all of nothing.
    """
    asked, named = config.probe.sets, dict[str, tuple[int, ...]]()
    for name, text in asked.items() if isinstance(asked, Mapping) else [(name, None) for name in asked]:
        option = f"probe.sets.{name}"
        if text is not None:
            chosen = parse_layers(str(text), layers, option)
            if other := [layer for layer in chosen if layer not in probed]:
                raise ConfigError(f"{option}={text}: layer {other[0]} is not among those that are probed")
        elif name in LAYOUTS:
            anchors = anchors_of(name, len(probed))
            chosen = tuple(layer for place, layer in enumerate(probed) if place not in anchors)
        else:
            known = ", ".join(LAYOUTS)
            raise ConfigError(
                f"probe.sets: {name!r} must be one of {known}, or {{name: '0-3,7'}}"
                f"{did_you_mean(str(name), LAYOUTS)}"
            )
        if len(chosen) > 1 and chosen not in named.values():
            named[str(name)] = chosen
    sizes = sorted({len(chosen) for chosen in named.values()})
    drawn = [one for size in sizes for one in random_sets(probed, size, config.probe.draws, config.seed)]
    return [LayerSet(name, chosen) for name, chosen in named.items()] + drawn


def random_sets(probed: Sequence[int], size: int, draws: int, seed: int) -> Iterator[LayerSet]:
    """Sets of a size, each by its own draw, no two alike; fewer where there are not so many, and none of all.

    Raises:
        ConfigError: more layers than there are.
    """
    if size > len(probed):
        raise ConfigError(f"a set of {size} layers: the model has {len(probed)} that are probed")
    seen: set[tuple[int, ...]] = {tuple(probed)}
    for number in range(100 * draws):
        draw = random.Random(f"{seed} {size} {number}")
        chosen = tuple(sorted(draw.sample(list(probed), size)))
        if chosen not in seen:
            seen.add(chosen)
            yield LayerSet(f"random {len(seen) - 1}", chosen, drawn=True)
        if len(seen) > draws:
            return


def spaced(probed: Sequence[int], count: int, phase: str) -> list[int]:
    """``count`` layers at equal distances, the ``first`` or ``last`` of each stretch."""
    size = len(probed) / count
    shift = 0 if phase == "first" else 1
    return [probed[round((place + shift) * size) - shift] for place in range(count)]


def kept_dense(config: StudyProbeConfig, probed: Sequence[int]) -> int:
    """How many layers stay dense.

    Raises:
        ConfigError: as many as there are, or more.
    """
    asked = config.choice.dense
    if asked is None:
        return max(1, len(probed) // 5) if len(probed) > 1 else 0
    if asked >= len(probed):
        raise ConfigError(
            f"choice.dense={asked}: {len(probed)} layers are probed; leave some to be relaxed, at most "
            f"{len(probed) - 1} dense"
        )
    return asked


def read_rankings(config: StudyProbeConfig, probed: Sequence[int], count: int) -> dict[str, list[int]]:
    """Others' choices: the first ``count`` layers of each ranking.

    Raises:
        ConfigError: a file that cannot be read, without a ranking, or of other layers.
    """
    found = {}
    for name, path in config.choice.rankings.items():
        option = f"choice.rankings.{name}={path}"
        try:
            said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            ranking = [int(layer) for layer in said["plan"]["ranking"]]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{option}: cannot be read ({first_line(error)})") from None
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{option}: has no plan.ranking; seer-ray gates shares writes one, ranking.yaml"
            ) from None
        own = [layer for layer in ranking if layer in probed]
        if len(own) < count:
            raise ConfigError(f"{option}: ranks {len(own)} of the layers that are probed; {count} are kept")
        found[name] = own[:count]
    return found


def _said(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
