"""Plots of the kernels' speedups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seer_ray.report import style

AXES = {"context": "context, tokens", "batch": "batch, rows", "budget": "budget, tokens"}
LINES = [(colour, marker) for colour, _, marker in (*style.LOOKS.values(), *style.OTHERS)]


def draw(rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """Speedup over the best dense attention against context, batch and budget, one line for each choice of
    what is not on the axis.

    Returns:
        Names of the PNG files, only of those axes along which something was varied.
    """
    return [f"speedup_by_{axis}.png" for axis in AXES if _plot(rows, axis, folder)]


def _plot(rows: list[dict[str, Any]], axis: str, folder: Path) -> bool:
    rest = [name for name in ("model", *AXES) if name != axis]
    lines: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in rest), {})[row[axis]] = row["speedup"]
    lines = {key: points for key, points in lines.items() if len(points) > 1}
    if not lines:
        return False
    with style.figure() as (made, axes):
        for number, (key, points) in enumerate(lines.items()):
            colour, marker = LINES[number % len(LINES)]
            label = ", ".join(str(v) if n == "model" else f"{n} {v}" for n, v in zip(rest, key, strict=True))
            xs = sorted(points)
            axes.plot(xs, [points[x] for x in xs], color=colour, marker=marker, label=label)
        axes.axhline(1.0, color=style.MUTED, linewidth=1.0)
        ticks = sorted({x for points in lines.values() for x in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{x // 1024}k" if x % 1024 == 0 else str(x) for x in ticks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(AXES[axis])
        axes.set_ylabel("speedup over the best dense")
        axes.set_title("Decode attention, gate included")
        axes.legend()
        style.save(made, folder, f"speedup_by_{axis}")
    return True
