"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="group=choice or option=value; all of them: seer-ray options"),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a job's folder, or its name under runs/")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, progress on stderr")]
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="YAML file with options; overrides go on top")
]
