"""The loop of every job that decodes: sessions fed by one dispatcher until nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seer_ray.cluster.dispatch import Dispatcher
from seer_ray.config.errors import Interrupted, JobError, NotWritten
from seer_ray.driver.session import Session
from seer_ray.driver.stopping import StopRequest

POLL = 0.2
"""Seconds that the loop waits for workers at most."""


def decode(
    dispatcher: Dispatcher | None,
    sessions: Sequence[Session],
    stop: StopRequest,
    then: Callable[[], None] = lambda: None,
) -> None:
    """To the end of all that the dispatcher's queues hold, and of its grading.

    Args:
        dispatcher: Its queues are those of the sessions. None: nothing is left but grading.
        sessions: Get the outcomes.
        stop: Asked in every round of the loop.
        then: Called in every round of the loop, after the sessions.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP.
        JobError: No workers, no cluster, or no disk. Whatever the end, what is finished is committed, and
            what is begun is in the progress log, as far as the disk takes it.
        ConfigError: No worker comes up, because of the configuration.
    """
    by_name = {session.name: session for session in sessions}
    alone = len(sessions) == 1
    stop.patient = True
    try:
        while dispatcher is not None and dispatcher.unfinished and not stop.asked:
            for queue, outcome in dispatcher.poll(POLL):
                by_name[queue.name].add(outcome)
            if alone and (reason := dispatcher.queues[0].failure):
                raise JobError(reason)
            for session in sessions:
                live = session.monitor.live
                live.workers_ready, live.workers_starting = dispatcher.pool.ready, dispatcher.pool.starting
                live.workers_wanted = dispatcher.pool.size
                if live.workers_ready:
                    live.phase = "decoding"
                elif missing := dispatcher.pool.missing:
                    live.phase = missing
                session.tick(dispatcher.stats if alone else None)
            then()
        while (grading := [session for session in sessions if session.grading]) and not stop.asked:
            if dispatcher is not None:
                dispatcher.pool.close()  # no GPU is kept waiting for graders
            for session in grading:
                live = session.monitor.live
                live.workers_ready = live.workers_starting = live.workers_wanted = 0
                live.phase = "grading"
                session.tick(seconds=POLL)
            then()
        for session in sessions:
            session.wait()
    finally:
        failures = [failure for session in sessions if (failure := _save(session))]
        stop.patient = False
        if failures:
            raise failures[0]
    if stop.asked:
        done = sum(session.monitor.live.done for session in sessions)
        total = sum(session.monitor.live.total for session in sessions)
        left = sum(session.monitor.live.to_grade for session in sessions)
        raise Interrupted(f"interrupted with {done} of {total} rows" + (f", {left} to grade" if left else ""))


def _save(session: Session) -> Exception | None:
    try:
        session.save()
    except NotWritten as failure:
        rows = "1 finished row is" if session.unsaved == 1 else f"{session.unsaved:,} finished rows are"
        lost = f"; {rows} not on disk, and will be decoded again" if session.unsaved else ""
        return NotWritten(f"{failure}{lost}")
    except Exception as failure:
        return failure
    return None
