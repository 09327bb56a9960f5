"""What is printed once: the summary of a job, the status of a run, the options."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.config.compose import groups_of
from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import RunConfig, options
from seer_ray.config.overrides import describe, option_types, show


def options_view(config: RunConfig, prefix: str) -> RenderableType:
    """A table of all options whose names begin with ``prefix``, and the config groups.

    Args:
        config: whose values are shown as the defaults
    """
    job: type = type(config)
    types = option_types(job)
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("option=default", overflow="fold", max_width=36)
    table.add_column("meaning (type, unit)", ratio=1)
    for name, value, meta in options(config):
        if name.startswith(prefix):
            kind = " | ".join(meta["choices"] or ()) or describe(types[name]).removeprefix("a ")
            unit = f", {meta['unit']}" if meta["unit"] else ""
            table.add_row(
                Text.assemble((name, "cyan"), ("=", "dim"), show(value)),
                Text.assemble(meta["help"].replace("None:", "null:"), (f" ({kind}{unit})", "dim")),
            )
    if not table.row_count:
        sections = {name.rpartition(".")[0] for name in types}
        raise ConfigError(f"{prefix}: no option begins so{did_you_mean(prefix, [*types, *sections])}")
    groups = [
        f"{group}={'|'.join(names)}" for group, names in groups_of(job).items() if group.startswith(prefix)
    ]
    return Group(table, *(Text(line, "cyan") for line in groups))
