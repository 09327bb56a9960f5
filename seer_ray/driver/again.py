"""Rows that are made again: error rows decoded once more, all rows graded by another grader."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from seer_ray.analysis.errors import kind_of
from seer_ray.config.modules import import_named
from seer_ray.config.options import ALL, RunConfig, TaskConfig
from seer_ray.driver.sources import file_of
from seer_ray.results import schema
from seer_ray.results.folder import GRADED, RunFolder
from seer_ray.tasks.grading import Grade, Grader, GradingPool, no_answer

COLUMNS = ("problem_id", "sample", "error", "worker", "attempts")
GRADES = {"correct": "correct", "score": "score", "extracted_answer": "extracted", "grade_error": "error"}
"""Column -> field of a ``Grade``."""


def retry_errors(folder: RunFolder, config: RunConfig, note: Callable[[str], None]) -> None:
    """Take the error rows out that ``results.retry_errors`` names: what follows decodes them anew.

    Raises:
        ConfigError: another process has taken the folder over.
        OSError: the disk or the object store; the same command goes on.
    """
    kinds = config.results.retry_errors
    if not kinds:
        return
    keys = []
    for batch in folder.stream(COLUMNS):
        for row in batch.filter(batch["error"].is_valid()).to_pylist():
            if ALL in kinds or kind_of(row["error"], row["worker"], row["attempts"]) in kinds:
                keys.append((row["problem_id"], row["sample"]))
    folder.withdraw(keys)
    said = "1 error row is" if len(keys) == 1 else f"{len(keys):,} error rows are"
    note(f"{said} tried again" if keys else f"no error row is of a kind to try again ({', '.join(kinds)})")


def graded_by(folder: RunFolder, task: TaskConfig) -> TaskConfig:
    """The task with the grader that the folder's rows have: of its options, or what graded them since."""
    noted = folder.read_json(GRADED)
    return replace(task, **noted["task"]) if noted else task


def regrade(folder: RunFolder, task: TaskConfig) -> None:
    """Grade all rows by another grader, each part's at once. Killed, the same call goes on where it was.

    Args:
        folder: open to write.
        task: its ``grader`` and ``grade_timeout``.

    Raises:
        ConfigError: no such grader.
        JobError: it cannot be started.
        OSError: the disk or the object store.
    """
    said = {"grader": task.grader, "grade_timeout": task.grade_timeout}
    noted = folder.read_json(GRADED)
    if not noted or noted["task"] != said or noted["done"]:
        noted = {"task": said, "id": uuid.uuid4().hex, "done": False, "source": _file(task.grader)}
        folder.write_json(GRADED, noted)
    with GradingPool(task) as pool:
        folder.rewrite(noted["id"], lambda rows: _graded(rows, task, pool))
    folder.write_json(GRADED, {**noted, "done": True})


def _file(grader: str) -> dict[str, str] | None:
    """Of a grader of the user's own, with its digest."""
    return file_of(import_named(grader, "task.grader", "function")) if ":" in grader else None


def _graded(rows: pa.Table, task: TaskConfig, pool: Grader) -> pa.Table:
    """The same rows, graded anew."""
    grades: dict[int, Grade] = {}
    names = ("error", "completion", "reasoning", "answer", "reference")
    waiting = 0
    for place, row in enumerate(rows.select(names).to_pylist()):
        # Where reasoning is not told apart, the whole completion is the answer.
        said = row["completion"] if row["reasoning"] is None and row["answer"] is None else row["answer"]
        if row["error"] is not None:
            grades[place] = Grade(None, None)
        elif said is None:
            grades[place] = no_answer(task, row["reference"])
        else:
            pool.submit(place, said, row["reference"])
            waiting += 1
    while waiting:
        for place, grade in pool.collect(1.0):
            grades[place] = grade
            waiting -= 1
    ordered = [grades[place] for place in range(rows.num_rows)]
    for column, name in GRADES.items():
        place = rows.column_names.index(column)
        field = rows.schema.field(place)
        values = [schema.clean(getattr(grade, name)) for grade in ordered]
        rows = rows.set_column(place, field, pa.array(values, field.type))
    return rows
