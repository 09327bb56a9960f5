"""Which view each job has."""

from __future__ import annotations

from typing import Any

from seer_ray.cli.display.calibration import CalibrateView
from seer_ray.cli.display.follow import View
from seer_ray.cli.display.gates import GatesView, SharesView
from seer_ray.cli.display.measure import MeasureView
from seer_ray.cli.display.probe import ProbeView
from seer_ray.cli.display.prompts import PromptsView
from seer_ray.cli.display.run import RunView
from seer_ray.cli.display.sweep import SweepView
from seer_ray.cli.display.trained import TrainedView
from seer_ray.cli.display.training import TrainView

VIEWS: dict[str, type[View[Any, Any]]] = {
    "run": RunView,
    "sweep": SweepView,
    "pretrain": TrainView,
    "distill": TrainView,
    "gates eval": GatesView,
    "gates shares": SharesView,
    "gates calibrate": CalibrateView,
    "gates prompts": PromptsView,
    "study probe": ProbeView,
    "study train": TrainedView,
    "study plan": SweepView,
}
"""By command; other jobs are looked at as what measures."""


def view_of(command: str) -> View[Any, Any]:
    """A new one."""
    return VIEWS.get(command, MeasureView)()
