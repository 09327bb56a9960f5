"""What jobs that measure a model have in common: a folder, tracking, and how they end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

from seer_ray.config.checks import check
from seer_ray.config.compose import run_name
from seer_ray.config.errors import Interrupted
from seer_ray.config.options import options
from seer_ray.config.training import HeldOutConfig
from seer_ray.corpora.documents import Document
from seer_ray.driver.stopping import StopRequest
from seer_ray.results.job import TrainFolder
from seer_ray.results.store import join
from seer_ray.tracking.mlflow_tracker import open_tracker
from seer_ray.tracking.tracker import Dataset, Tracker

REPORT = "figures.json"


@contextlib.contextmanager
def measuring(config: HeldOutConfig, job: str) -> Iterator[tuple[TrainFolder, Tracker]]:
    """The job's folder, held, and its tracking, which is told how the body ended.

    The body measures anew each time: a folder of gates may hold others than before.

    Args:
        config: gets its name, if it has none.
        job: the command, such as ``gates eval``.

    Raises:
        ConfigError: an option is wrong.
        Interrupted: SIGINT or SIGTERM, in the body.
    """
    check(config)
    config.name = run_name(config)
    uri, stop = join(config.results.folder, config.name), StopRequest()
    with stop.listening(), TrainFolder.open(uri, config, job) as folder:
        tracker = open_tracker(folder, config.tracking)
        try:
            yield folder, tracker
        except Interrupted:
            tracker.finish("KILLED")
            raise
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish()


def begin(tracker: Tracker, config: HeldOutConfig, documents: Sequence[Document]) -> None:
    """Say what was measured on what."""
    sources = ", ".join(dict.fromkeys(document.source for document in documents))
    content = hashlib.sha256(b"".join(document.tokens.numpy().tobytes() for document in documents))
    dataset = Dataset("documents", content.hexdigest()[:36], sources, len(documents))
    tracker.start(str(config.name), {name: value for name, value, _ in options(config)}, dataset)
