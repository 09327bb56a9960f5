"""Command-line overrides by Hydra's grammar: ``selector=quest``, ``selector.budget=1024``, ``seed=1,2``.

Names are matched with the options that there are, so that a mistake can be named with its near miss.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.synonyms import OTHERS

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


@cache
def option_types(job: type) -> dict[str, Any]:
    """Dotted name of every option -> its annotated type, in order of definition."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(job)
    for item in dataclasses.fields(job):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            inner = option_types(typing.cast(type, hint))
            found |= {f"{item.name}.{name}": kind for name, kind in inner.items()}
        else:
            found[item.name] = hint
    return found


def describe(hint: Any) -> str:
    """A type in words, as in 'must be ...'."""
    kind = _bare(hint)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    text = words.get(kind) or ("a list, [a,b]" if typing.get_origin(kind) is list else "a mapping, {a:b}")
    return text if kind is hint else f"{text} or null"


def parse(text: str, job: type) -> Override:
    """One override as typed; of several values, where it sweeps.

    A text option takes what the grammar cannot read as it stands, and what looks like a number: a revision
    such as 12e5.

    Args:
        job: the options of a job

    Raises:
        ConfigError: one line that names the option, the value and the remedy.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    name, equals, value = text.partition("=")
    name = name.strip()
    if name.startswith("~"):
        return dataclasses.replace(assignment(text.strip()[1:], None), type=OverrideType.DEL)
    name = name.lstrip("+")  # every option is there to be set, and every mapping takes entries
    if not equals or not name:
        known = not name or any(f"{option}.".startswith(f"{name}.") for option in option_types(job))
        hint = "" if known else near_miss(name, job)
        raise ConfigError(f"{show(text)}: must be option=value, such as selector.budget=1024{hint}")
    is_text = _bare(option_types(job).get(name)) is str
    try:
        # The value alone: a key of Hydra's cannot be a range of layers, selector.layers.0-2.
        found = OverridesParser.create().parse_override(f"_={value}")
    except ValueError:  # Python converts no number of so many digits
        raise ConfigError(f"{name}={show(value)}: a number of {len(value):,} digits is too long") from None
    except HydraException:
        return assignment(name, value if is_text else _yaml(name, value))
    if is_text and isinstance(found.value(), (int, float)):
        return assignment(name, value.strip())
    return dataclasses.replace(found, key_or_group=name, input_line=text)


def assignment(name: str, value: Any) -> Override:
    """An override that sets an option, or chooses from a group."""
    from hydra.core.override_parser.types import Override, OverrideType, ValueType

    return Override(OverrideType.CHANGE, name, ValueType.ELEMENT, value)


def single(override: Override, job: type) -> Any:
    """The value of an override that does not sweep.

    Raises:
        ConfigError: it has several.
    """
    if not override.is_sweep_override():
        return override.value()
    name, value = override.key_or_group, override.get_value_string()
    is_text = _bare(option_types(job).get(name)) is str
    quoted = f"; quote text with commas: \"{name}='{value}'\"" if is_text else ""
    raise ConfigError(f"{name}={show(value)}: must be a single value here{quoted}")


def option_of(name: str, job: type) -> str | None:
    """The option of this name, or the mapping of which this is an entry; None: neither."""
    options = option_types(job)
    if name in options:
        return name
    entries = (option for option, hint in options.items() if typing.get_origin(_bare(hint)) is dict)
    return next((option for option in entries if name.startswith(f"{option}.")), None)


def flat(values: Mapping[str, Any], job: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What nested sections, as they stand in a YAML file, say: each option's dotted name and value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and any(o.startswith(f"{name}.") for o in option_types(job)):
            yield from flat(value, job, f"{name}.")
        else:
            yield name, value


def near_miss(name: str, job: type) -> str:
    """'; did you mean ...?' from what ``meant`` finds."""
    close = meant(name, job)
    return f"; did you mean {' or '.join(close)}?" if close else "; all there are: seer-ray options"


def meant(name: str, job: type) -> list[str]:
    """Options and sections that a wrong name may mean: names that other programs have for them, then what
    looks like it, whole or its last part alone. Also of a flag, such as ``--max-tokens``."""
    options, sections = option_types(job), [item.name for item in dataclasses.fields(job)]
    name = name.lstrip("-").replace("-", "_")
    last = name.rpartition(".")[2]
    if close := [other for other in OTHERS.get(last, ()) if other in options or other in sections]:
        return close
    leaves: dict[str, list[str]] = {}
    for option in options:
        leaves.setdefault(option.rpartition(".")[2], []).append(option)
    if "." not in name and name in leaves:
        return leaves[name][:3]
    close = difflib.get_close_matches(name, [*options, *sections], n=1, cutoff=0.7)
    if not close:
        leaf = difflib.get_close_matches(last, leaves, n=1, cutoff=0.75)
        close = leaves[leaf[0]][:3] if leaf else []
    return close


def show(value: Any) -> str:
    """A value as it would be typed, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 80 else f"{text[:77]}..."


def _bare(hint: Any) -> Any:
    """The type without ``| None``."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _yaml(name: str, text: str) -> Any:
    """Mappings with quoted keys, which Hydra's grammar does not know."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}={show(text)}: malformed value; close brackets and quotes") from None
