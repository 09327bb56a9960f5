"""Command-line overrides: ``selector=quest``, ``selector.budget=1024``, with Hydra's grammar for values.

What is written is matched against the options and groups that there are, so that a mistake can be named
together with its near miss.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from seer_ray.config.errors import ConfigError

# The option that somebody means who gives a group a name of their own.
OWN = {"model": "model.name", "task": "task.data", "cluster": "cluster.address"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """``selector=quest``: a file of a config group."""

    group: str
    name: str


@dataclasses.dataclass(frozen=True)
class Setting:
    """``selector.budget=1024``: the value of an option. ``key``: one entry of a mapping option."""

    option: str
    value: Any
    key: str | None = None

    @property
    def name(self) -> str:
        return self.option if self.key is None else f"{self.option}.{self.key}"


def option_types(config: type) -> dict[str, Any]:
    """Dotted name of every option -> its annotated type, in order of definition."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(config)
    for item in dataclasses.fields(config):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            found |= {
                f"{item.name}.{name}": kind for name, kind in option_types(typing.cast(type, hint)).items()
            }
        else:
            found[item.name] = hint
    return found


def _bare(hint: Any) -> Any:
    """The type without ``| None``."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def describe(hint: Any) -> str:
    """A type in words, as in 'must be ...'."""
    kind = _bare(hint)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    text = words.get(kind) or ("a list, [a,b]" if typing.get_origin(kind) is list else "a mapping, {a:b}")
    return text if kind is hint else f"{text} or null"


class Overrides:
    """Reads overrides of one kind of job.

    Args:
        config: the job's dataclass
        groups: config group -> its choices
    """

    def __init__(self, config: type, groups: Mapping[str, list[str]]) -> None:
        self.types = option_types(config)
        self.groups = groups
        self.sections = {name[:i] for name in self.types for i, char in enumerate(name) if char == "."}

    def parse(self, text: str) -> list[Choice | Setting]:
        """One override as typed.

        Raises:
            ConfigError: one line that names the option, the value and the remedy.
        """
        name, equals, value = text.partition("=")
        name = name.strip().lstrip("+")
        if name.startswith("~"):
            raise ConfigError(f"{show(text)}: options cannot be removed; write {name[1:]}=null")
        if not equals or not name:
            known = name in self.types or name in self.sections or not name
            hint = "" if known else self._near(name)
            raise ConfigError(f"{show(text)}: must be option=value, such as selector.budget=1024{hint}")
        if name in self.groups and not value.lstrip().startswith("{"):
            return [self._choice(name, value.strip())]
        option, key = self._find(name, value)
        if key is None and option in self.sections:
            return list(self.flatten(self._value(option, value), f"{option}."))
        return [Setting(option, self._value(name, value, option), key)]

    def flatten(self, values: Any, prefix: str = "") -> Iterator[Setting]:
        """The options in a nested mapping, as it stands in a YAML file."""
        if not isinstance(values, Mapping):
            name = prefix[:-1]
            known = [option for option in self.types if option.startswith(prefix)]
            raise ConfigError(
                f"{name}={show(values)}: is a section, with the options {', '.join(known[:12])}"
            )
        for key, value in values.items():
            name = f"{prefix}{key}"
            if name in self.sections:
                yield from self.flatten({} if value is None else value, f"{name}.")
            elif name in self.types:
                yield Setting(name, value)
            else:
                raise ConfigError(f"{name}={show(value)}: no such option{self._near(name)}")

    def check(self, setting: Setting) -> None:
        """What the structured config lets pass."""
        if isinstance(setting.value, float) and math.isnan(setting.value):
            raise self.wrong_type(setting)

    def wrong_type(self, setting: Setting) -> ConfigError:
        return ConfigError(
            f"{setting.name}={show(setting.value)}: must be {describe(self.types[setting.option])}"
        )

    def _choice(self, group: str, name: str) -> Choice:
        choices = self.groups[group]
        if name in choices:
            return Choice(group, name)
        if "," in name:
            raise ConfigError(f"{group}={name}: must be a single choice here, of {', '.join(choices)}")
        close = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {group}={close[0]}?" if close else ""
        if not close and group in OWN and name:
            hint = f"; for one of your own: {OWN[group]}={name}"
        raise ConfigError(f"{group}={name}: no such choice, there are {', '.join(choices)}{hint}")

    def _find(self, name: str, value: str) -> tuple[str, str | None]:
        """The option of this name, or the mapping option that this is an entry of."""
        if name in self.types or name in self.sections:
            return name, None
        for option, hint in self.types.items():
            if typing.get_origin(_bare(hint)) is dict and name.startswith(f"{option}."):
                return option, name[len(option) + 1 :]
        raise ConfigError(f"{name}={value}: no such option{self._near(name)}")

    def _near(self, name: str) -> str:
        """'; did you mean ...?' from all option and group names, whole or their last part alone."""
        names = [*self.types, *self.groups]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
        if not close:
            leaves: dict[str, list[str]] = {}
            for option in self.types:
                leaves.setdefault(option.rpartition(".")[2], []).append(option)
            leaf = difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1, cutoff=0.75)
            close = leaves[leaf[0]][:3] if leaf else []
        if not close:
            return "; all there are: seer-ray options"
        return f"; did you mean {' or '.join(close)}?"

    def _value(self, name: str, text: str, option: str | None = None) -> Any:
        """The value by Hydra's grammar; text options take what the grammar cannot read as it stands."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        kind = _bare(self.types.get(option or "", dict))
        try:
            parsed = OverridesParser.create().parse_override(f"x={text}")
        except HydraException:
            if kind is str:
                return text
            return self._yaml(name, text)
        if parsed.is_sweep_override():
            quoted = f"; quote text with commas: \"{name}='{text}'\"" if kind is str else ""
            raise ConfigError(f"{name}={text}: must be a single value here{quoted}")
        value = parsed.value()
        # A revision such as 12e5 is text, not a number.
        return text.strip() if kind is str and isinstance(value, (int, float)) else value

    def _yaml(self, name: str, text: str) -> Any:
        """Mappings with quoted keys, which Hydra's grammar does not know."""
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{name}={text}: malformed value; close brackets and quotes") from None


def show(value: Any) -> str:
    """A value as it would be typed, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 80 else f"{text[:77]}..."
