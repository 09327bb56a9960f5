"""From outcomes to committed rows: graded beside the job, written in parts; those whose grades take long and
unfinished chains in logs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from seer_ray.cluster.assignments import Outcome
from seer_ray.config.options import RunConfig
from seer_ray.config.secrets import hidden, redacted
from seer_ray.driver.outage import Outage
from seer_ray.driver.rendered import Prompts
from seer_ray.engine.reading import CompletionReader
from seer_ray.engine.request import Completion, TokenLogprobs
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.engine.trace import Trace
from seer_ray.results.folder import RunFolder
from seer_ray.results.progress import ProgressLog
from seer_ray.results.selections import Recording
from seer_ray.results.ungraded import UngradedRows, key_of
from seer_ray.tasks.forms import in_form
from seer_ray.tasks.grading import Grade, Grader, GradingPool, no_answer
from seer_ray.tasks.thinking import ReasoningParser

Row = dict[str, Any]


class RowWriter:
    """Grades, collects and commits. Called from the job's loop; waits for no grader.

    Args:
        folder: Where rows go.
        log: Brings the tokens of unfinished chains to disk.
        late: Brings rows to disk whose grades take long; those of earlier sessions are graded first.
        config: The job's.
        prompts: Those of requests that are not committed.
        parser: Token ids to text, reasoning and answer.
        thinking: Counts thinking tokens.
        note: Told, in a line each, what a person should know.
        pool: What grades; None: a pool of its own.
        clock: Seconds, from any moment on.

    Raises:
        ConfigError: There is no such grader.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: ProgressLog,
        late: UngradedRows,
        config: RunConfig,
        prompts: Prompts,
        parser: ReasoningParser,
        thinking: ThinkingRules,
        note: Callable[[str], None],
        pool: Grader | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._log, self._late, self._config = folder, log, late, config
        self._prompts, self._parser = prompts, parser
        self._reader = CompletionReader(parser, thinking)
        self._clock = clock
        self._pool: Grader = pool or GradingPool(config.task)
        self._ungraded: dict[str, Row] = {}
        self._seen: set[str] = set()  # of those, what was there when the log was last written
        self._fresh: list[Row] = []
        self._waiting: dict[str, Row] = {}  # for their commit, by request id
        self._traces: dict[str, list[bytes]] = {}  # of those that were recorded
        self._due = self._flush_due = 0.0
        results = config.results
        self._outage = Outage(folder, results.part_interval, results.max_outage, note, clock)
        self._texts: dict[int, str] = {}
        for row in late.take():
            self._grade(f"{row['problem_id']}/{row['sample']}", row)
        log.forget(self._ungraded)

    @property
    def pending(self) -> int:
        """Rows that are not committed yet."""
        return len(self._ungraded) + len(self._waiting)

    @property
    def unsaved(self) -> int:
        """Those of them that are on no disk."""
        return self.pending - len(self._late)

    @property
    def to_grade(self) -> int:
        """Rows that wait for their grades."""
        return len(self._ungraded)

    def add(self, outcome: Outcome, plan: str) -> None:
        """A request is done; ``plan`` is the readable form of the layer plan that decoded it."""
        completion, row = outcome.completion, self._row(outcome, plan)
        if any(outcome.trace):
            self._traces[completion.request.id] = outcome.trace
        self._grade(completion.request.id, row)

    def graded(self, seconds: float = 0.0) -> list[Row]:
        """Rows that got their grades since the last call; waits up to ``seconds`` for one.

        Raises:
            JobError: The grader cannot be started. Rows without a grade stay uncommitted.
        """
        self._collect(seconds)
        return self.fresh()

    def fresh(self) -> list[Row]:
        """Rows that got their grades and that nobody has been told of."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def write(self, everything: bool = False) -> None:
        """Brings to disk what is due, or everything that is graded.

        Raises:
            NotWritten: The disk or the object store refused for too long.
            FolderGone: There is no folder any more.
        """
        results, now = self._config.results, self._clock()
        try:
            if (everything or now >= self._due) and self._folder.kept_rows:
                self._prompts.write()
                self._folder.take_in()
            while self._waiting and (everything or now >= self._due or self._full()):
                self._commit(dict(list(self._waiting.items())[: results.part_rows]))
                self._outage.over()
            if everything or now >= self._flush_due:
                self._flush_due = now + results.progress_interval
                self._prompts.write()
                self._note_late(everything)
                self._log.flush()
                if not self._waiting:
                    self._outage.over()
        except OSError as error:
            if self._outage.remote and (everything or len(self._waiting) >= results.part_rows):
                with contextlib.suppress(OSError):  # they stay in memory
                    self._keep()
            self._due = self._flush_due = now + self._outage.failed(error)
            if everything:
                raise self._outage.final(error) from error

    @property
    def next_try(self) -> float | None:
        """When storage that is away, and may come back by itself, is tried again; None: it is not away."""
        away = self._outage.remote and self._outage.failures and not self._outage.given_up
        return self._due if away else None

    def finish(self, patience: float = math.inf) -> list[Row]:
        """Waits so many seconds for the grades that are still out and commits all that have theirs, and notes
        the others; the rows that got their grades.

        Raises:
            JobError: Rows cannot be graded.
        """
        end = self._clock() + patience
        try:
            while self._ungraded and (left := end - self._clock()) > 0:
                self._collect(min(1.0, left))
        finally:
            self.write(everything=True)
        return self.fresh()

    def close(self) -> None:
        """Ends the graders."""
        self._pool.close()

    def _collect(self, seconds: float) -> None:
        for id, grade in self._pool.collect(seconds if self._ungraded else 0.0):
            self._graded(id, grade)

    def _grade(self, id: str, row: Row) -> None:
        """Hand a row in to be graded, if there is anything to grade."""
        self._ungraded[id] = row
        if row["finish_reason"] == "error":
            self._graded(id, Grade(None, None))
        elif row["answer"] is None:
            self._graded(id, no_answer(self._config.task, row["reference"]))
        else:
            self._pool.submit(id, row["answer"], row["reference"])

    def _graded(self, id: str, grade: Grade) -> None:
        row = self._ungraded.pop(id)
        row |= {"correct": grade.correct, "score": grade.score}
        row |= {"extracted_answer": grade.extracted, "grade_error": grade.error}
        if not self._waiting and not self._outage.failures:
            self._due = self._clock() + self._config.results.part_interval
        self._waiting[id] = row
        self._fresh.append(row)

    def _full(self) -> bool:
        return len(self._waiting) >= self._config.results.part_rows and not self._outage.failures

    def _keep(self) -> None:
        """Rows that wait leave the memory for this machine's disk; so do their tokens."""
        rows = dict(self._waiting)
        self._folder.keep(rows.values())
        self._let_go(rows)

    def _note_late(self, everything: bool) -> None:
        """Brings rows to disk that have waited for their grades since the last time, or all."""
        waiting = {id: row for id, row in self._ungraded.items() if key_of(row) not in self._late}
        rows = {id: row for id, row in waiting.items() if everything or id in self._seen}
        if rows:
            self._record(rows)
            self._late.add(rows.values())
            self._release(rows)
        self._seen = waiting.keys() - rows.keys()
        self._late.tidy()

    def _commit(self, rows: dict[str, Row]) -> None:
        there = self._folder.committed() if self._outage.failures else set()
        self._record(rows)
        self._prompts.write()
        self._folder.commit(r for r in rows.values() if (r["problem_id"], r["sample"]) not in there)
        self._let_go(rows)

    def _record(self, rows: dict[str, Row]) -> None:
        """Writes what those rows attended that are recorded."""
        for id in rows.keys() & self._traces.keys():
            row = rows[id]
            prompt = self._prompts[row["problem_id"]].tokens
            recording = Recording(
                Trace(row["prompt_tokens"], self._traces[id]),
                [self._parser.spell([token]) for token in prompt],
                [self._parser.spell([token]) for token in row["token_ids"]],
            )
            self._folder.write_selection(key_of(row), recording)

    def _let_go(self, rows: dict[str, Row]) -> None:
        """Of rows that are on a disk, graded."""
        self._release({id: row for id, row in rows.items() if key_of(row) not in self._late})
        self._late.forget(map(key_of, rows.values()))
        for id in rows:
            del self._waiting[id]

    def _release(self, rows: dict[str, Row]) -> None:
        """What was needed until rows were on a disk."""
        self._log.forget(rows)
        for id, row in rows.items():
            self._traces.pop(id, None)
            self._prompts.close(row["problem_id"])

    def _row(self, outcome: Outcome, plan: str) -> Row:
        completion, request = outcome.completion, outcome.completion.request
        counters = completion.counters
        prompt = self._prompts[request.problem]
        failed = completion.finish_reason == "error"
        error = completion.error
        if error is not None and outcome.worker is not None:  # the engine speaks of the row
            error = prompt.problem.at(error)
        # Workers read what they finish.
        said = completion.reading or self._reader.read(completion, request)
        return {
            "problem_id": request.problem,
            "sample": request.sample,
            "seed": request.seed,
            "prompt": prompt.text,
            "asked": prompt.problem.asked.note,
            "completion": said.text,
            "reasoning": said.reasoning,
            "answer": said.answer,
            "token_ids": completion.tokens,
            "logprobs": self._logprobs(completion),
            "finish_reason": completion.finish_reason,
            "reference": prompt.problem.answer,
            "inputs": prompt.problem.inputs,
            "in_form": None if failed else in_form(prompt.form, said.answer),
            "prompt_tokens": len(request.prompt),
            "completion_tokens": len(completion.tokens),
            "thinking_tokens": said.thinking_tokens,
            "thinking_forced": said.thinking_forced,
            "attended_kv": counters.attended_kv,
            "available_kv": counters.available_kv,
            "attended_kv_layers": list(counters.attended_layers) or None,
            "drafted": list(counters.drafted) or None,
            "accepted": list(counters.accepted) or None,
            "draft_kv": counters.draft_kv if counters.drafted else None,
            "queued_s": counters.queued_s,
            "prefill_s": counters.prefill_s,
            "first_token_s": counters.first_token_s or None,
            "decode_s": counters.decode_s,
            "preemptions": completion.preemptions,
            "attempts": outcome.attempts,
            "worker": outcome.worker,
            "model": redacted(self._config.model.name),
            "selector": plan,
            "error": hidden(error),
            "finished_at": datetime.now(UTC),
        }

    def _logprobs(self, completion: Completion) -> list[dict[str, Any]] | None:
        """As the column has them."""
        if not completion.logprobs:
            return None
        found = []
        for token, (chosen, top) in zip(
            completion.tokens, map(TokenLogprobs.parse, completion.logprobs), strict=True
        ):
            likely = [{"token_id": id, "token": self._spelled(id), "logprob": of} for id, of in top]
            said = {"token_id": token, "token": self._spelled(token), "logprob": chosen, "top": likely}
            found.append(said)
        return found

    def _spelled(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self._parser.spell_token(token)
        return self._texts[token]
