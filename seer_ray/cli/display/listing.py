"""The jobs of a folder, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.analysis.words import duration, percent
from seer_ray.status.live import LiveStats, MeasureLive, SweepLive, TrainLive
from seer_ray.status.pulse import JobStatus

STYLES = {"done": "green", "stopped early": "green", "failed": "red", "running": "cyan"}


def listing(found: Sequence[JobStatus], folder: str) -> RenderableType:
    """Name, command, state, how far, accuracy, and when it was last heard of; 80 columns are enough."""
    if not found:
        return Text(f"no jobs in {folder}")
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("name", overflow="fold")
    for head in ("command", "state"):
        table.add_column(head, no_wrap=True)
    for head in ("done", "right", "ago"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        done, right = _far(one)
        ago = duration(one.heartbeat_age_s) if one.heartbeat_age_s is not None else ""
        state = Text(one.state, STYLES.get(one.state, "yellow"))
        table.add_row(Text(one.name), one.command, state, done, right, ago)
    return table


def _far(one: JobStatus) -> tuple[str, str]:
    live = one.live
    if isinstance(live, (LiveStats, SweepLive, MeasureLive)):
        done = f"{live.done:,}/{live.total:,}" if live.total else ""
        accuracy = live.accuracy if isinstance(live, LiveStats) else None
        return done, percent(accuracy) if accuracy is not None else ""
    return (f"{live.step:,}/{live.steps:,}", "") if isinstance(live, TrainLive) else ("", "")
