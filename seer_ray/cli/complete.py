"""What a shell may complete: names of options, their values, and runs. Quietly nothing where it cannot."""

from __future__ import annotations

from typing import Any

import typer


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Options and groups of a command as ``name=``, or the values that one may have."""
    from seer_ray.config.compose import groups_of
    from seer_ray.config.options import RunConfig, options
    from seer_ray.jobs.kinds import KINDS

    path = context.command_path.split(" ", 1)[-1]
    job: Any = next((kind.config for kind in KINDS if kind.command == path), RunConfig)
    groups = groups_of(job)
    name, equals, value = incomplete.partition("=")
    if not equals:
        names = [*groups, *(option for option, _, _ in options(job()))]
        return [f"{each}=" for each in names if each.startswith(name)]
    if name in groups:
        values = groups[name]
    else:
        found = {option: (default, about) for option, default, about in options(job())}
        default, about = found.get(name, (None, {}))
        values = ["true", "false"] if isinstance(default, bool) else list(about.get("choices") or ())
    return [f"{name}={each}" for each in values if each.startswith(value)]


def complete_run(incomplete: str) -> list[str]:
    """Names of jobs under ``runs/``."""
    from seer_ray.status.find import jobs_in

    return [name for name in jobs_in("runs") if name.startswith(incomplete)]
