"""What is printed once: the summary of a job, the status of a run, the options."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.config.compose import groups_of
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import JobConfig, options
from seer_ray.config.overrides import describe, near_miss, option_types, show


def options_view(config: JobConfig, words: Sequence[str]) -> RenderableType:
    """A table of options, and the config groups.

    Args:
        config: whose values are shown as the defaults
        words: those whose names begin with a word, or, where none does, have it in their name or meaning; of
            several words all count; none: all options

    Raises:
        ConfigError: there is no such option.
    """
    job: type = type(config)
    types = option_types(job)
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("option=default", overflow="fold", max_width=36)
    table.add_column("meaning (type, unit)", ratio=1)
    found = [(name, value, meta) for name, value, meta in options(config)]
    for word in words:
        begun = [one for one in found if one[0].startswith(word)]
        found = begun or [one for one in found if word.lower() in f"{one[0]} {one[2]['help']}".lower()]
        if not found:
            raise ConfigError(f"{word}: no option has it in its name or meaning{near_miss(word, job)}")
    for name, value, meta in found:
        kind = " | ".join(meta["choices"] or ()) or describe(types[name]).removeprefix("a ")
        kind += f" | {meta['own']}" if meta["own"] else ""
        unit = f", {meta['unit']}" if meta["unit"] else ""
        table.add_row(
            Text.assemble((name, "cyan"), ("=", "dim"), show(value)),
            Text.assemble(meta["help"].replace("None:", "null:"), (f" ({kind}{unit})", "dim")),
        )
    groups = [
        f"{group}={'|'.join(names)}"
        for group, names in groups_of(job).items()
        if all(group.startswith(word) for word in words)
    ]
    return Group(table, *(Text(line, "cyan") for line in groups))
