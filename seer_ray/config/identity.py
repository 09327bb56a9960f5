"""Which settings make two jobs the same job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import JobConfig, options
from seer_ray.config.secrets import redacted
from seer_ray.config.speculating import DRAFTER, SPECULATE, decided, speculated


def plain(config: JobConfig) -> dict[str, Any]:
    """All options as nested JSON data, as files have them: without secrets, ``${`` of a text escaped."""
    return json.loads(json.dumps(escaped(redacted(dataclasses.asdict(config))), default=str))


@dataclass(frozen=True)
class Identity:
    """The options of a job that decide what its results are.

    Attributes:
        config: all options, nested, as JSON has them.
        job: which options there are, and which of them decide.
    """

    config: Mapping[str, Any]
    job: type[JobConfig]

    @classmethod
    def of(cls, config: JobConfig) -> Identity:
        return cls(plain(config), type(config))

    @cached_property
    def deciding(self) -> dict[str, Any]:
        """By dotted name; what a mapping holds has names of its own. Of a run that speculates with what it
        does so, which decides no row (see ``refuse_differences``), but is what such runs differ in."""
        flat = dict(_flatten(redacted(self.config)))  # folders of before had secrets in them
        said = (SPECULATE, DRAFTER) if speculated(flat) else ()
        free = tuple(
            name
            for name, _, about in options(self.job())
            if about["operational"] and not (about["bits"] and flat.get("engine.exact")) and name not in said
        )
        return {k: v for k, v in flat.items() if not any(k == f or k.startswith(f + ".") for f in free)}

    @cached_property
    def digest(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()[:16]

    def refuse_differences(self, folder: Identity, where: str) -> None:
        """Raise ConfigError, one line, if what is in a folder was made with other settings than these.

        An option that one side does not know (a newer version added it) stands at its default there. A run
        that speculates has the rows of dense decoding, and so goes on with one that does not.
        """
        ours, theirs = self.deciding, folder.deciding
        defaults = {name: value for name, value, _ in options(self.job())}
        if speculated(ours) or speculated(theirs):
            ours, theirs = decided(ours, defaults), decided(theirs, defaults)
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


def differences(text: str, config: Mapping[str, Any]) -> list[str]:
    """What a YAML file says otherwise than options that were noted, in words."""
    import yaml

    try:
        theirs = dict(_flatten(yaml.safe_load(text)))
    except (yaml.YAMLError, AttributeError):
        return ["it is no list of options"]
    ours = dict(_flatten(config))
    return [
        f"{name}: {_show(theirs.get(name))} here, {_show(ours.get(name))} in the folder"
        for name in dict.fromkeys((*theirs, *ours))
        if theirs.get(name) != ours.get(name)
    ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def escaped(value: Any) -> Any:
    """Text with ``${`` such that OmegaConf reads it as text."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
