"""Grading beside the job: in processes of its own with a hard time limit, so that no grader holds it up."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol

from seer_ray.config.errors import JobError
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.graders import Grade, check_grader, grade, no_answer
from seer_ray.tasks.grading_process import START_LIMIT

__all__ = ["Grade", "GradingPool", "check_grader", "grade", "no_answer"]

START_ATTEMPTS = 3
MOST = 8
"""Processes, if nobody says how many."""
BEHIND = 4
"""Rows that wait for each process, before there is one more."""

# The same modules as here can be imported there, whatever was done to the path.
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from seer_ray.tasks.grading_process import main; main(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))"
)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GradingPool:
    """Grades rows in processes of their own. Every row submitted comes back, with a grade or an error.

    A grader that raises, hangs (in C code too) or kills its process costs that row its grade; the process is
    replaced. One that cannot be started says nothing of any row: the rows stay pending, and `collect` raises.
    Processes start with the first row, and end with `close` or when this process ends in any way.

    One thread is to call submit and collect; neither waits for a grader.
    """

    def __init__(self, task: TaskConfig) -> None:
        """
        Args:
            task: Its ``grader``, ``grade_timeout`` and ``grade_processes``.

        Raises:
            ConfigError: There is no such grader.
        """
        check_grader(task)
        self.task = task
        self.pending = 0
        """Rows that were submitted and not yet collected."""
        self._rows: queue.SimpleQueue[tuple[Hashable, str, str | None] | None] = queue.SimpleQueue()
        self._grades: queue.SimpleQueue[tuple[Hashable, Grade] | None] = queue.SimpleQueue()
        """None wakes up who waits: no process could be started."""
        self._failure: str | None = None
        self._servers = [
            _Server(task, self._rows, self._grades, self._failed)
            for _ in range(task.grade_processes or min(MOST, max(1, cores() - 1)))
        ]

    def submit(self, key: Hashable, text: str, answer: str | None) -> None:
        """Hand in a completion without its reasoning, and the reference; ``key`` comes back with a grade."""
        self.pending += 1
        if self.task.grader == "none":
            self._grades.put((key, Grade(None, None)))
            return
        self._rows.put((key, text, answer))
        # As many as there is work for: a process takes a second and 100 MB.
        for server in self._servers[: 1 + self._rows.qsize() // BEHIND]:
            server.start()

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]:
        """All (key, grade) that are ready; waits up to ``timeout`` seconds for the first of those pending.

        Raises:
            JobError: No process can be started for the rows that are pending, and no grade is ready.
        """
        grades: list[tuple[Any, Grade]] = []
        with contextlib.suppress(queue.Empty):
            while len(grades) < self.pending:
                ready = self._grades.get(timeout=0 if grades or self._failure else timeout)
                if ready is not None:
                    grades.append(ready)
        self.pending -= len(grades)
        if self._failure and self.pending and not grades:
            raise JobError(
                f"task.grader={self.task.grader}: no grading process could be started in "
                f"{START_ATTEMPTS} tries: {self._failure}; {self.pending} rows are not graded, "
                "and not committed until they are"
            )
        return grades

    def close(self) -> None:
        """End the processes at once. Rows that are pending are forgotten."""
        for server in self._servers:
            server.close()
        for _ in self._servers:
            self._rows.put(None)
        for server in self._servers:
            server.join()
        self.pending = 0

    def _failed(self, reason: str) -> None:
        self._failure = reason
        self._grades.put(None)

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server:
    """A thread with a grading process, which it feeds, times and replaces."""

    def __init__(self, task: TaskConfig, rows: Any, grades: Any, failed: Callable[[str], None]) -> None:
        self._task, self._rows, self._grades, self._failed = task, rows, grades, failed
        self._thread = threading.Thread(target=self._serve, name="grading", daemon=True)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._closed = False

    def start(self) -> None:
        if not self._closed and self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._kill()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while (row := self._rows.get()) is not None and not self._closed:
            if (reason := self._start()) is not None:
                self._failed(reason)
                break
            key, text, answer = row
            self._grades.put((key, self._grade(text, answer)))
        self._discard()

    def _grade(self, text: str, answer: str | None) -> Grade:
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps([text, answer]).encode())
            if self._pipe.poll(self._task.grade_timeout):
                return Grade(**json.loads(self._pipe.recv_bytes()))
            error = f"timeout after {self._task.grade_timeout:g} s"
        except (EOFError, OSError):
            error = f"the grader ended its process ({self._how_it_ended()})"
        self._discard()
        return Grade(None, None, error)

    def _start(self) -> str | None:
        """Have a process that waits for a row; the reason if there can be none."""
        if self._process is not None and self._process.poll() is None:
            return None
        # A process that was killed from outside between two rows is not the next row's fault.
        reason: str | None = None
        for _ in range(START_ATTEMPTS):
            self._discard()
            if (reason := self._launch()) is None:
                break
        return reason

    def _launch(self) -> str | None:
        """Start a process and wait until it has its grader; the reason if it does not come up."""
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        arguments = [
            json.dumps(sys.path),
            str(theirs.fileno()),
            self._task.grader,
            str(self._task.grade_timeout),
        ]
        try:
            with theirs, self._lock:
                if self._closed:
                    return "closed"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN, *arguments],
                    # SymPy orders some sums by hash: the same grades in every session.
                    env={**os.environ, "PYTHONHASHSEED": "0"},
                    stdin=subprocess.DEVNULL,
                    # What a grader prints must not come between the driver's output.
                    stdout=2,
                    pass_fds=[theirs.fileno()],
                    # A group of its own: killed with all that the grader has started, and not by Ctrl-C.
                    start_new_session=True,
                )
            failure = (
                ours.recv_bytes().decode() if ours.poll(START_LIMIT) else f"not up after {START_LIMIT:g} s"
            )
        except EOFError:
            failure = self._how_it_ended()
        except OSError as error:
            failure = str(error)
        return failure or None

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _how_it_ended(self) -> str:
        assert self._process is not None
        with self._lock:
            self._kill()  # What it has left behind, or itself, should it only have closed the pipe.
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _discard(self) -> None:
        with self._lock:
            self._kill()
            process, self._process = self._process, None
        if process is not None:
            process.wait()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class Grader(Protocol):
    """What a row writer needs of ``GradingPool``."""

    def submit(self, key: Hashable, text: str, answer: str | None) -> None: ...

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]: ...

    def close(self) -> None: ...


class SharedPool:
    """A grading pool for several row writers, each of which gets its own grades back.

    Args:
        pool: Closed by whoever made it.
    """

    def __init__(self, pool: GradingPool) -> None:
        self._pool = pool
        self._grades: dict[str, list[tuple[Any, Grade]]] = {}

    def client(self, name: str) -> Grader:
        """The pool as the row writer of this name sees it."""
        self._grades[name] = []
        return _Client(self, name)

    def submit(self, name: str, key: Hashable, text: str, answer: str | None) -> None:
        self._pool.submit((name, key), text, answer)

    def collect(self, name: str, timeout: float) -> list[tuple[Any, Grade]]:
        """The grades of one row writer. May come back early with none.

        Raises:
            JobError: As of the pool.
        """
        if not self._grades[name]:
            for (owner, key), found in self._pool.collect(timeout):
                self._grades[owner].append((key, found))
        grades, self._grades[name] = self._grades[name], []
        return grades


@dataclass(frozen=True)
class _Client:
    shared: SharedPool
    name: str

    def submit(self, key: Hashable, text: str, answer: str | None) -> None:
        self.shared.submit(self.name, key, text, answer)

    def collect(self, timeout: float = 0.0) -> list[tuple[Any, Grade]]:
        return self.shared.collect(self.name, timeout)

    def close(self) -> None:
        """The pool goes on for the others."""
