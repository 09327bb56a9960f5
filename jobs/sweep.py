"""Many settings over the same problems: each a run of its own, decoded in turns on shared workers.

Running it again goes on where it stopped, with more points if it has more; a point that fails costs the
others nothing.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from seer_ray.cluster.worker import Builder, build_engine
from seer_ray.config.compose import from_yaml
from seer_ray.config.options import SweepConfig
from seer_ray.config.reveal import reveal
from seer_ray.driver.frame import framed
from seer_ray.results.base import CONFIG
from seer_ray.results.sweep import SweepFolder
from seer_ray.status.live import Reporter, SweepLive, SweepSummary
from seer_ray.sweeps.points import merged
from seer_ray.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from seer_ray.sweeps.estimate import Estimate


def main(
    config: SweepConfig,
    reporter: Reporter[SweepLive, SweepSummary] | None = None,
    build: Builder = build_engine,
) -> SweepSummary:
    """Runs all points to their ends.

    Args:
        config: All options, its points spelled out (``sweeps.points.expand``); gets a name if it has none.
        reporter: Shows how it goes.
        build: What makes an engine in a worker.

    Returns:
        What came of it; points that failed are among ``failed``.

    Raises:
        ConfigError: What is wrong for all points. Nothing is lost.
        Interrupted: A signal to stop. What is finished is committed, what is begun is in the progress logs.
    """
    with framed(config, SweepFolder, reporter) as frame, ExitStack() as stack:
        folder = frame.folder
        if folder.points:
            before = from_yaml(folder.config_yaml, folder.store.locate(CONFIG), SweepConfig)
            begun = [point["slug"] for point in folder.points if point.get("rows")]
            frame.config = merged(before, config, begun, folder.uri)
            reveal(frame.config, folder.uri)
            folder.write_config(frame.config)
        return Sweep(frame, build, stack).run()


def plan(config: SweepConfig) -> Estimate:
    """What all points would cost; begins nothing."""
    # Brings transformers along, which a job that is done does not need.
    from seer_ray.sweeps.estimate import estimate

    return estimate(config)
