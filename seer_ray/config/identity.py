"""Which settings make two runs the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import OPERATIONAL, RunConfig, options

BITS = ("engine.max_batch", "engine.tensor_parallel", "model.device")
"""Operational options that change the last bits of a result: fixed where ``engine.exact`` promises them."""


def parse(config_yaml: str, where: str) -> dict[str, Any]:
    """A resolved config as plain JSON data.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        config = yaml.safe_load(config_yaml)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{where}: not a config, a mapping is expected")
    return json.loads(json.dumps(config, default=str))


def digest(config: Mapping[str, Any]) -> str:
    """Of the options that decide what the rows are, 16 hex digits."""
    text = json.dumps(deciding(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refuse_differences(
    here: Mapping[str, Any], folder: Mapping[str, Any], where: str, job: type = RunConfig
) -> None:
    """Raise ConfigError, one line, if what is in a folder was made with other settings than these.

    An option that one side does not know (a newer version added it) stands at its default there, which is
    that of the options of the ``job``.
    """
    ours, theirs = deciding(here), deciding(folder)
    defaults = {name: value for name, value, _ in options(job())}
    found = []
    for name in sorted({*ours, *theirs}):
        mine, other = ours.get(name, defaults.get(name)), theirs.get(name, defaults.get(name))
        if mine != other:
            found.append(f"{name}: {_show(mine)} here, {_show(other)} in the folder")
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError(
            f"{where}: made with other settings: {'; '.join(found[:5])}{more}; "
            "give the run another name, or give the old settings"
        )


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what the rows are, by dotted name."""
    flat = dict(_flatten(config))
    fixed = BITS if flat.get("engine.exact") else ()
    free = tuple(name for name in OPERATIONAL if name not in fixed)
    return {k: v for k, v in flat.items() if not any(k == f or k.startswith(f + ".") for f in free)}


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
