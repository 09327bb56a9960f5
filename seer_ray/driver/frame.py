"""The frame of every job: options checked, folder held, signals heard, heartbeat, tracking, its ending."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

from seer_ray.config.checks import check
from seer_ray.config.compose import run_name
from seer_ray.config.errors import ConfigError, Interrupted, one_line
from seer_ray.config.options import JobConfig, options
from seer_ray.config.reveal import reveal
from seer_ray.config.secrets import redacted
from seer_ray.driver import told
from seer_ray.driver.stopping import StopRequest
from seer_ray.results import provenance
from seer_ray.results.base import Folder
from seer_ray.results.store import join, open_store, shown
from seer_ray.status.live import JobSummary, NullReporter, Reporter
from seer_ray.status.pulse import StatusFile, heartbeat
from seer_ray.tracking.mlflow_tracker import open_tracker
from seer_ray.tracking.tracker import Dataset, Status, Tracker

State = Literal["done", "stopped early", "failed", "interrupted"]
TRACKED: dict[State, Status] = {
    "done": "FINISHED",
    "stopped early": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}

DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
    errno.ESTALE,
)
"""What a disk says that is full, read-only, broken or gone."""

C = TypeVar("C", bound=JobConfig)
F = TypeVar("F", bound=Folder)


class Frame(Generic[C, F]):
    """One session of a job in its folder, up to its last word.

    Args:
        config: all options, with a name.
        folder: open to write.
        reporter: shows how it goes.
        stop: whether somebody asked the job to stop.
        around: tracks the job that this one is a part of.
        clock: seconds, from any moment on.
    """

    def __init__(
        self,
        config: C,
        folder: F,
        reporter: Reporter[Any, Any],
        stop: StopRequest,
        around: Tracker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.folder, self.reporter, self.stop = config, folder, reporter, stop
        self.tracker = open_tracker(folder, config.tracking, around)
        self.status, self.clock = StatusFile(folder), clock
        self.begun = False
        """Whether it is tracked."""
        self.state: State | None = None
        """How it ended; None: it has not."""
        self._started = time.monotonic()

    @property
    def name(self) -> str:
        return str(self.config.name)

    def begin(self, dataset: Dataset | None = None, params: Mapping[str, Any] | None = None) -> None:
        """Something is going to happen: tells the tracker, with all options or other parameters."""
        session = provenance.note(self.folder, self.config)
        given = dict(params if params is not None else params_of(self.config))
        self.tracker.start(self.name, given, dataset, told.tags(self.config, session, dataset))
        self.begun = True

    def end(self, state: State, error: BaseException | str | None = None) -> None:
        """The last word, to who watches the folder and to the tracker."""
        self.state = state
        reason = one_line(error, limit=None) if isinstance(error, BaseException) else error
        self.status.end(state, reason)
        if self.begun:
            self.tracker.finish(TRACKED[state])

    @contextlib.contextmanager
    def working(self, write: Callable[[], None] | None = None) -> Iterator[None]:
        """A heart that beats while the body works, and the last word on how that ended.

        Args:
            write: called at every beat; None: brings ``status.json`` up to date.
        """
        try:
            with heartbeat(write or self.status.write):
                yield
        except Interrupted:
            self.end("interrupted")
            raise
        except BaseException as error:
            self.end("failed", error)
            raise
        if self.state is None:
            self.end("done")

    def facts(self) -> dict[str, Any]:
        """What a ``JobSummary`` says of every job."""
        return {
            "name": self.name,
            "folder": self.folder.uri,
            "elapsed_s": time.monotonic() - self._started,
            "tracking_uri": redacted(getattr(self.tracker, "uri", None)),
            "tracking_run_id": getattr(self.tracker, "run_id", None),
        }

    def finish(self, summary: JobSummary) -> None:
        """Shows what the job came to, after its last word: it is known by then who has been told of it."""
        summary.tracking_uri, summary.tracking_run_id = self.tracker.place
        self.reporter.finish(summary)


def params_of(config: JobConfig) -> dict[str, Any]:
    """All options by dotted name, as others may see them: without passwords and keys."""
    return {
        name: shown(value) if about["secret"] and value else redacted(value)
        for name, value, about in options(config)
    }


@contextlib.contextmanager
def framed(config: C, folder: type[F], reporter: Reporter[Any, Any] | None = None) -> Iterator[Frame[C, F]]:
    """The frame of a job, its folder held.

    Args:
        config: all options; gets a name if it has none.
        folder: what kind of folder it has.
        reporter: shows how it goes; None: nobody looks.

    Raises:
        ConfigError: an option is wrong, or the folder cannot be had. Nothing is lost; a folder that was made
            for it is gone again.
        NotWritten: the disk does not take what the body writes.
        FolderGone: somebody deleted or moved the folder.
        Interrupted: SIGINT, SIGTERM or SIGHUP, in the body.
    """
    check(config)
    config.name = run_name(config)
    reveal(config, f"the folder of {config.name}")
    stop = StopRequest()
    place = join(config.results.folder, config.name)
    fresh = not open_store(place).list()
    with stop.listening(), folder.open(place, config) as held:
        try:
            yield Frame(config, held, reporter or NullReporter(), stop)
        except ConfigError:
            if fresh:
                held.vanish()
            raise
        except OSError as error:
            if error.errno not in DISK:
                raise
            raise held.failure(error) from error
