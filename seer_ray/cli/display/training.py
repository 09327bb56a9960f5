"""Training as a person follows it: a panel on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console, RenderableType
from rich.panel import Panel

from seer_ray.analysis.words import count, duration
from seer_ray.cli.display.follow import View, bar, facts_panel, results_table
from seer_ray.status.live import TrainLive, TrainSummary
from seer_ray.status.pulse import JobStatus

LAYER = "/layer_"
"""In the names of metrics of one layer: recorded, and not shown."""


class TrainView(View[TrainLive, TrainSummary]):
    """Of a job that trains."""

    def __init__(self) -> None:
        self.told = -1
        """Step of the last line."""

    def panel(self, title: str, live: TrainLive, state: str = "") -> Panel:
        whole = max(1, live.steps or live.step)
        words = f"{live.step:,} of {count(whole, 'step')} [bold]{live.step / whole:.0%}[/]"
        rows: list[tuple[str, RenderableType]] = [("done", bar(live.step, whole, words))]
        training, held_out = _halves(live.metrics)
        if "train/loss" in training:
            rows.append(("training", describe(training)))
        if held_out:
            rows.append(("held out", describe(held_out)))
        return facts_panel(title, state or live.phase, rows)

    def lines(self, live: TrainLive) -> Iterable[str]:
        if not live.metrics and live.phase:
            yield live.phase
        evaluated = bool(live.news) and "train/loss" not in live.news
        text = describe(live.news if evaluated else _halves(live.metrics)[0])
        if text and (evaluated or live.step != self.told):
            self.told = live.step
            yield f"step {live.step}/{live.steps} · {text}"

    def urgent(self, live: TrainLive, phase: str) -> bool:
        """Evaluations, and the last step; before the first one, what goes on."""
        if not live.metrics:
            return live.phase != phase
        return bool(live.news) and ("train/loss" not in live.news or live.step == live.steps)

    def events(self, live: TrainLive) -> Iterable[str]:
        if live.news and "train/loss" not in live.news and (text := describe(live.news)):
            yield f"step {live.step}: {text}"

    def conclude(self, console: Console, summary: TrainSummary) -> None:
        console.print(results_table(summary.name, _shown(summary.metrics)))
        console.print(f"{summary.product}: {summary.step:,} steps, {summary.tokens:,.0f} tokens")
        for command in summary.next_commands:
            console.print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)

    def print_state(self, console: Console, status: JobStatus) -> None:
        if status.state == "done":
            console.print(results_table(status.name, _shown(status.metrics)))
        else:
            super().print_state(console, status)


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """What a job came to, without what it took."""
    return {
        name: value
        for name, value in metrics.items()
        if not name.startswith(("time/", "speed/")) and LAYER not in name
    }


def _halves(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Of training, and of what is held out."""
    held_out = {name: value for name, value in metrics.items() if name.startswith("eval/")}
    return {name: value for name, value in metrics.items() if name not in held_out}, held_out


def describe(metrics: dict[str, float]) -> str:
    """Metrics of one moment on one line; those of the evaluation whole, of training the main ones."""
    metrics = {name: value for name, value in metrics.items() if LAYER not in name}
    if "train/loss" not in metrics:
        return " · ".join(f"{name.removeprefix('eval/')} {value:.4g}" for name, value in metrics.items())
    own = [
        f"{name.removeprefix('train/')} {value:.4g}"
        for name, value in metrics.items()
        if name.startswith("train/") and name not in ("train/tokens", "train/gradient_norm")
    ]
    if "speed/tokens_per_s" in metrics:
        own.append(f"{metrics['speed/tokens_per_s']:,.0f} tokens/s")
    left = metrics.get("time/eta_s")
    return " · ".join([*own, f"about {duration(left)} left"] if left else own)
