"""How busy this machine is: by MLflow's own monitors, told like any other metric."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from seer_ray.tracking.connect import load

SWITCH, INTERVAL = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's variables: whether (here unless it is ``false``), and seconds between two samples."""
USUAL = 10.0
PATIENCE = 2.0
"""Seconds that an ending job waits for the last sample."""


class SystemMetrics:
    """CPU, memory, disk, network and GPUs of the machine that the driver runs on, on a thread.

    Args:
        log: takes (metrics, step), from any thread.
        origin: of the steps, which are seconds: when the job was made, in seconds since the epoch.
    """

    def __init__(self, log: Callable[[dict[str, float | None], int], None], origin: float) -> None:
        self._log, self._origin = log, origin
        self._monitors: list[Any] = []
        self._mutex, self._stopped = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Unless it is switched off."""
        if os.environ.get(SWITCH, "true").lower() in ("true", "1"):
            self._thread = threading.Thread(target=self._run, name="system metrics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """One last sample; nothing is logged after it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)  # it may be at MLflow's import
        with self._mutex:
            self._monitors = []

    def _run(self) -> None:
        try:
            interval = float(os.environ.get(INTERVAL) or USUAL)
            monitors = _monitors()
        except (ImportError, ValueError):  # no psutil, a variable that is no number
            return
        with self._mutex:
            if self._stopped.is_set():
                return
            self._monitors = monitors
        self._collect()  # of the CPU the first is a zero: it is since the one before, of the same thread
        last = False
        while not last:
            last = self._stopped.wait(interval)
            if metrics := self._collect():
                self._log(metrics, max(0, round(time.time() - self._origin)))

    def _collect(self) -> dict[str, float | None]:
        with self._mutex:
            metrics: dict[str, float | None] = {}
            for monitor in self._monitors:
                with contextlib.suppress(Exception):  # a disk or a network that is gone
                    monitor.collect_metrics()
                    found = monitor.aggregate_metrics()
                    metrics |= {f"system/{name}": value for name, value in found.items()}
                    monitor.clear_metrics()
            return metrics


def _monitors() -> list[Any]:
    load()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[Any] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with contextlib.suppress(Exception):  # there is no GPU, or no network
            found.append(kind())
    return found
