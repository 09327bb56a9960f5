"""The inside of a grading process: rows come in by a pipe, grades go out. It ends with the pipe.

Started by ``GradingPool`` as a plain ``python -c``, not through ``multiprocessing``, which would import the
driver's main script again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import logging
import os
import sys
import warnings
from multiprocessing.connection import Connection

from seer_ray.config.errors import ConfigError
from seer_ray.tasks.graders import GRADERS, guarded, make_grader

MEMORY = 4 << 30
"""Bytes of address space of the built-in graders: a completion may ask SymPy for ``9^{9^{9^9}}``."""
START_LIMIT = 300.0
"""Seconds for a process to start; a ``module:function`` may import much."""
GRACE = 2.0
"""Seconds after the time limit at which a process ends itself, should its parent not have done so."""


def main(descriptor: int, spec: str, time_limit: float) -> None:
    """Serve one parent.

    Args:
        descriptor: The pipe's file descriptor.
        spec: ``task.grader``.
        time_limit: Seconds for one row.
    """
    os.set_inheritable(descriptor, False)
    pipe: Connection[bytes, bytes] = Connection(descriptor)
    if spec in GRADERS:
        _quiet_and_small()
    else:
        # Where the user's module may be. If the folder is gone, the import says what is missing.
        with contextlib.suppress(FileNotFoundError):
            sys.path.append(os.getcwd())
    # When the parent ends, however it ends, the pipe does too.
    with contextlib.suppress(EOFError, OSError):
        _serve(pipe, spec, time_limit)
    os._exit(0)  # Without waiting for threads that a grader may have left behind.


def _serve(pipe: Connection[bytes, bytes], spec: str, time_limit: float) -> None:
    with open(os.devnull, "w") as nowhere:

        def end_after(seconds: float) -> None:
            # By a C thread: a process whose parent is gone ends even if a grader holds the interpreter.
            faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=nowhere)

        end_after(START_LIMIT)
        try:
            grader = make_grader(spec)
        except ConfigError as error:
            pipe.send_bytes(str(error).encode())
            return
        if spec in GRADERS:
            guarded(grader, r"\boxed{1}", "2")  # Imports SymPy: not in the time of the first row.
        faulthandler.cancel_dump_traceback_later()
        pipe.send_bytes(b"")
        while True:
            text, answer = json.loads(pipe.recv_bytes())
            end_after(time_limit)
            grade = guarded(grader, text, answer)
            faulthandler.cancel_dump_traceback_later()
            pipe.send_bytes(json.dumps(dataclasses.asdict(grade)).encode())


def _quiet_and_small() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
