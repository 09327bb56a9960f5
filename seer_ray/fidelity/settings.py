"""Ways to spend the KV that may be read, which an evaluation of gates puts beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seer_ray.config.checks import check, check_amount
from seer_ray.config.errors import ConfigError, did_you_mean, first_line
from seer_ray.config.selecting import SelectorConfig
from seer_ray.fidelity.budget import Budget
from seer_ray.models.allocation import Allocation
from seer_ray.models.limits import Limit, layer_limits

SAID = ("budget", "threshold", "mass", "fraction", "shares", "head_shares", "sink")
"""Options of ``selector`` that say how much is read."""


@dataclass(frozen=True)
class Setting:
    """What layers may read.

    Attributes:
        label: what it is called.
        budget: of every layer without a share.
        selector: the rest.
        option: that says it.
        allocation: of each contender by its label; those without one have no figures of this setting. None:
            all have the budget, in every head.
    """

    label: str
    budget: Budget
    selector: SelectorConfig
    option: str = "selector"
    allocation: Mapping[str, Allocation] | None = None

    @classmethod
    def of(cls, budget: str | int | float, option: str = "budgets") -> Setting:
        """A plain budget.

        Raises:
            ConfigError: see ``Budget.parse``.
        """
        parsed = Budget.parse(budget, option)
        return cls(parsed.label, parsed, SelectorConfig())

    def limits(self, length: int, layers: int, block: int, kv_heads: int | None = None) -> list[Limit]:
        """Of each layer, for a document of ``length`` tokens, but for an allocation.

        Raises:
            ConfigError: shares of layers or heads that are not there.
        """
        budgets = [self.budget.blocks(length, block) * block] * layers
        return layer_limits(budgets, block, self.selector, self.option, kv_heads)

    def limits_of(
        self, contenders: Iterable[str], length: int, layers: int, block: int, kv_heads: int
    ) -> dict[str, list[Limit]]:
        """Of each layer, by contender, of those that have figures of this setting."""
        plain = self.limits(length, layers, block, kv_heads)
        if self.allocation is None:
            return dict.fromkeys(contenders, plain)
        found = {}
        for label in contenders:
            if (shared := self.allocation.get(label)) is not None:
                own = shared.limits(plain[0].blocks * block, block, shared.layers)
                found[label] = [own.get(layer, limit) for layer, limit in enumerate(plain)]
        return found

    @property
    def shares(self) -> bool:
        """Whether scores are to be shares."""
        return self.selector.threshold is not None or self.selector.mass is not None


def settings_of(budgets: Sequence[Any], said: Any, sink: bool) -> list[Setting]:
    """The plain budgets, then the settings by name.

    Args:
        budgets: the option; see ``Budget``.
        said: the option ``settings``: options of ``selector`` by label, a file that holds them (as ``seer-ray
            gates shares`` writes it), or a list of such files.
        sink: of all.

    Raises:
        ConfigError: names the option.
    """
    found = [Setting.of(budget) for budget in budgets]
    if isinstance(said, Mapping):
        named = dict(said)
    else:
        files = [said] if isinstance(said, str) else list(said or [])
        named = {Path(str(file)).stem: file for file in files}
        if len(named) < len(files):
            raise ConfigError(f"settings={files}: files of one name; give labels, {{label: file}}")
    for label, options in named.items():
        option = f"settings.{label}"
        selector = _selector(options, option, sink)
        found.append(Setting(str(label), Budget.parse(selector.budget), selector, option))
    labels = [setting.label for setting in found]
    if not labels:
        raise ConfigError("budgets=[]: name at least one, such as 1/8 or 1024, or settings")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ConfigError(
            f"settings.{twice}: there is a budget or setting of that name; call it something else"
        )
    return found


def _selector(said: Any, option: str, sink: bool) -> SelectorConfig:
    if isinstance(said, str):
        try:
            content = yaml.safe_load(Path(said).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{option}={said}: cannot be read: {first_line(error)}") from None
        said = content.get("selector") if isinstance(content, dict) else None
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"{option}: must be options of selector, such as {{mass: 0.9}}, or a file with them"
        )
    for name in said:
        if name not in SAID:
            near = did_you_mean(str(name), SAID)
            raise ConfigError(f"{option}.{name}: must be one of {', '.join(SAID)}{near}")
    try:
        # Layers are text, however they are written.
        given = {
            name: {str(key): one for key, one in value.items()} if isinstance(value, Mapping) else value
            for name, value in said.items()
        }
        tree = OmegaConf.structured(SelectorConfig)
        for name, value in given.items():  # not merged: that would refuse a whole number for another
            tree[name] = value
        selector = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{option}: {first_line(error)}") from None
    assert isinstance(selector, SelectorConfig)
    if selector.sink != sink and "sink" in said:
        raise ConfigError(f"{option}.sink={str(selector.sink).lower()}: set sink, which all settings share")
    check(selector, f"{option}.")
    check_amount(selector, 1, "must be above 0", option)
    return selector
