"""What all commands are: one line for everything that the user's input caused, and an exit code."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from seer_ray.cli.terminal import BAD_USAGE, DONE, INTERRUPTED, fail, require_written
from seer_ray.config.errors import ConfigError

# Typer has its own copy of click in some versions: the common base of what a user can do wrong.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class Resume(TyperCommand):
    """``resume``: the value of one of its options may be left out, which Typer does not have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--retry-errors=all" if a == "--retry-errors" else a for a in args])


class Commands(TyperGroup):
    """The whole command line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except ConfigError as error:
            fail(str(error), BAD_USAGE)
        except UsageError as error:
            fail(_said(error), BAD_USAGE)
        except (typer.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        require_written(sys.stdout)
        sys.exit(code if isinstance(code, int) else DONE)


def _said(error: Any) -> str:
    """What is wrong, and what was meant by a flag that another program has."""
    from seer_ray.config.overrides import meant
    from seer_ray.jobs.kinds import KINDS

    flag = getattr(error, "option_name", None)
    path = getattr(getattr(error, "ctx", None), "command_path", "").split(" ", 1)[-1]
    job = next((kind.config for kind in KINDS if kind.command == path), None)
    if flag and job and (options := meant(flag, job)):
        words = " or ".join(f"{name}=..." for name in options)
        return f"No such option: {flag} (options of a job are written name=value: {words})"
    return f"{error.format_message()} (see seer-ray --help; options of a job are written name=value)"
