"""What is to be solved: rows of a dataset, or of a built-in generator, as problems."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean, one_line
from seer_ray.config.options import ColumnsConfig, GeneratorConfig, TaskConfig
from seer_ray.tasks.asked import COMPLETIONS, URLS, USUAL, Asked, column_settings, parse_settings
from seer_ray.tasks.documents import find_document
from seer_ray.tasks.extraction import choice_letter
from seer_ray.tasks.generators import generate
from seer_ray.tasks.graders import SCORED
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.prompts import build_messages, check_template, raw_prompt
from seer_ray.tasks.references import references
from seer_ray.tasks.retrieval import DOCUMENTS, WORDS, Source, Texts
from seer_ray.tasks.sources import Row, WrittenFloat, read_rows
from seer_ray.tasks.table import ProblemTable
from seer_ray.tasks.values import as_id, as_text, check_unicode, column_value, has_column

MAX_DIGITS = 400
"""Of a whole number that is written out."""
LONGEST_ERROR = 500
"""Characters of what is wrong with a row; it may quote the row."""
GENERATED = 8
"""Built-in problems, if the task has no limit."""

Fields = dict[str, Any] | ConfigError
"""A row, or what is wrong with it."""


def load_problems(task: TaskConfig, tokens: Callable[[str], int] | None = None) -> ProblemTable:
    """The task's problems, in the order of the data or of ``task.shuffle``. They are read as a stream.

    A shuffle sorts by a hash of seed and id: the same on every machine, and what a row's rank is does not
    depend on its place in the file. For the built-in problems it is the seed of the generator.

    A row that cannot be asked is a problem with an error, under its id, or its file and line if the id is at
    fault.

    Args:
        task: Which, and how they are asked.
        tokens: Tokens of a text, where ``task.generator.unit`` asks for them.

    Raises:
        ConfigError: What is wrong with the data as a whole, or with every row; names the option, or the file
            and line.
    """
    check_template(task)
    shuffled = task.shuffle is not None and task.data is not None
    columns = task.columns if task.data is not None else ColumnsConfig(keep=task.columns.keep)

    def rows() -> Iterator[Row]:
        if task.data is None:
            return _generated(task, tokens)
        # Without a shuffle, what is beyond the limit need not be read.
        found = read_rows(task.data, task.subset, task.split)
        return found if shuffled else itertools.islice(found, task.limit)

    stream, first = _first(rows(), task)
    batch = _is_batch(first)
    if batch:
        if columns.sampling is not None:
            raise ConfigError(
                f"task.columns.sampling={columns.sampling}: a batch has its settings in body; leave it out"
            )
        columns = replace(columns, messages=columns.messages or "messages")
    if columns.messages is not None and task.prompt != TaskConfig.prompt:
        raise ConfigError(
            f"task.prompt={task.prompt!r}: the rows of {task.data} are whole chats; leave it out"
        )
    id_column = columns.id or ("id" if "id" in first or batch else None)
    table, kept = ProblemTable(), _Kept(columns, task)
    ranks = list[bytes]()
    for number, (where, row) in enumerate(stream):
        row = _from_batch(row, columns, where) if batch else row
        kept.look(row)
        id, row = _identified(number, where, row, id_column)
        table.append(_problem(id, row, columns, task, where))
        if shuffled:
            ranks.append(hashlib.sha256(f"{task.shuffle}/{id}".encode()).digest())
    kept.check()
    if table.ambiguous:
        _refuse_twice(rows(), batch, columns, id_column, task)
    if shuffled:
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        table = table.chosen(array("Q", order[: task.limit]))
    if table.survey.failed == len(table):
        raise ConfigError(str(table[0].error))
    if table.survey.failed and task.on_bad_row == "refuse":
        bad = next(problem for problem in table if problem.error)
        more = f", and {table.survey.failed - 1} more" if table.survey.failed > 1 else ""
        raise ConfigError(f"{bad.error}{more}; mend it, or make error rows: task.on_bad_row=error-row")
    return table


def _first(rows: Iterator[Row], task: TaskConfig) -> tuple[Iterator[Row], dict[str, Any]]:
    """All rows, and the first that has columns."""
    before, first = [], dict[str, Any]()
    for row in rows:
        before.append(row)
        if isinstance(row[1], dict):
            first = row[1]
            break
    if not before:
        raise ConfigError(f"task.data={task.data}: has no rows")
    return itertools.chain(before, rows), first


def _generated(task: TaskConfig, tokens: Callable[[str], int] | None) -> Iterator[Row]:
    texts = Texts(tokens or WORDS.measure, tuple(_sources(task.generator)))
    for index in range(task.limit or GENERATED):
        made = generate(task.generator, index, task.shuffle or 0, texts)
        document = {"document": made.document} if made.document is not None else {}
        yield made.id, {"id": made.id, "question": made.question, "answer": made.answer, **document}


def _sources(generator: GeneratorConfig) -> Iterator[Source]:
    """The rows of ``task.generator.documents``.

    Raises:
        ConfigError: The option is missing, or a row is.
    """
    option = f"task.generator.documents={generator.documents}"
    if generator.name != DOCUMENTS:
        if generator.documents is not None:
            raise ConfigError(f"{option}: means nothing with task.generator.name={generator.name}")
        return
    if generator.documents is None:
        raise ConfigError(f"task.generator.documents: name the documents of task.generator.name={DOCUMENTS}")
    for where, row in read_rows(generator.documents, None, "train", "task.generator.documents"):
        if isinstance(row, ConfigError):
            raise row
        values = {name: column_value(row, name, option, where) for name in ("document", "question", "answer")}
        answers = references(reference_text(values["answer"], option, where) or "")
        document, question = (as_text(values[name], option, where) for name in ("document", "question"))
        yield Source(document, question, tuple(answers))


def _identified(number: int, where: str, row: Fields, column: str | None) -> tuple[str, Fields]:
    """A row's id, and the row, or what is wrong with its id."""
    if column is None:
        return str(number), row
    if isinstance(row, dict):
        option = f"task.columns.id={column}"
        try:
            return as_id(column_value(row, column, option, where), option, where), row
        except ConfigError as error:
            return where, error
    return where, row


def _refuse_twice(
    rows: Iterator[Row], batch: bool, columns: ColumnsConfig, column: str | None, task: TaskConfig
) -> None:
    """Raises ConfigError: an id that two rows have. Reads the data once more."""
    places = dict[str, list[str]]()
    for number, (where, row) in enumerate(rows):
        row = _from_batch(row, columns, where) if batch else row
        places.setdefault(_identified(number, where, row, column)[0], []).append(where)
    twice = {id: where for id, where in places.items() if len(where) > 1}
    if twice:
        first = "; ".join(f"'{id}' in {' and '.join(where[:2])}" for id, where in list(twice.items())[:3])
        raise ConfigError(
            f"task.data={task.data}: {len(twice)} ids are not unique: {first}; "
            f"name another column by task.columns.id"
        )


def _problem(id: str, row: Fields, columns: ColumnsConfig, task: TaskConfig, where: str) -> Problem:
    try:
        if isinstance(row, ConfigError):
            raise row
        return _asked(id, row, columns, task, where)
    except ConfigError as error:
        return Problem(id, (), None, one_line(error, LONGEST_ERROR))
    except RecursionError:
        return Problem(id, (), None, f"{where}: nested too deep")


def _asked(id: str, row: dict[str, Any], columns: ColumnsConfig, task: TaskConfig, where: str) -> Problem:
    asked, answer = _settings(row, columns, where), None
    raw = raw_prompt(row["body"]["prompt"], where) if asked.url == COMPLETIONS else None
    messages = build_messages(row, columns, task, where) if raw is None else ()
    option = f"task.columns.answer={columns.answer}"
    if columns.answer is not None and (task.grader != "none" or has_column(row, columns.answer)):
        read = reference_text if task.grader in SCORED else answer_text
        answer = read(column_value(row, columns.answer, option, where), option, where)
    if task.grader == "choice" and answer is not None and choice_letter(answer) is None:
        raise ConfigError(
            f"task.grader=choice: the answer in {where} is {answer!r}, not a letter from A to J"
        )
    if isinstance(raw, str):
        check_unicode(raw, "the prompt", where)
    for message in messages:
        check_unicode(message["role"] + message["content"], "the prompt", where)
    check_unicode(answer or "", option, where)
    document, column = None, task.document or ("document" if task.data is None else None)
    if column is not None and (task.document is not None or column in row):
        if raw is not None:
            raise ConfigError(f"task.document={column}: {where} is a raw prompt, which has no columns")
        document = find_document(
            row, task, column, messages, lambda each: build_messages(each, columns, task, where), where
        )
    kept = _kept(row, columns, where)
    place = where if task.data is not None else ""
    return Problem(id, messages, answer, None, kept, asked, raw, document, place)


def _kept(row: dict[str, Any], columns: ColumnsConfig, where: str) -> str | None:
    """What the results have of the row itself, as a JSON object; None: nothing is asked for."""
    if not columns.keep:
        return None
    there = [name for name in columns.keep if has_column(row, name)]
    values = {name: column_value(row, name, f"task.columns.keep={name}", where) for name in there}
    text = json.dumps({name: values.get(name) for name in columns.keep}, ensure_ascii=False, default=str)
    check_unicode(text, "task.columns.keep", where)
    return text


class _Kept:
    """Looks whether each column that is kept is in some row."""

    def __init__(self, columns: ColumnsConfig, task: TaskConfig) -> None:
        self._missing, self._task = list(columns.keep), task
        self._first: dict[str, Any] | None = None

    def look(self, row: Fields) -> None:
        if isinstance(row, dict):
            self._first = row if self._first is None else self._first
            if self._missing:
                self._missing = [name for name in self._missing if not has_column(row, name)]

    def check(self) -> None:
        """Raises ConfigError: a column that no row has."""
        if self._missing and self._first is not None:
            name, there = self._missing[0], ", ".join(self._first)
            raise ConfigError(
                f"task.columns.keep={name}: no row of task.data={self._task.data} has it; there are {there}"
                f"{did_you_mean(name, self._first)}"
            )


def _settings(row: dict[str, Any], columns: ColumnsConfig, where: str) -> Asked:
    """What the row asks for itself."""
    if _is_batch(row):
        url, body = row.get("url", URLS[0]), row["body"]
        if url not in URLS:
            raise ConfigError(f"{where}: url={url}: must be {' or '.join(URLS)}")
        content = "prompt" if url == COMPLETIONS else "messages"
        if not isinstance(body, dict) or body.get(content) is None:
            raise ConfigError(
                f"{where}: not a line of an OpenAI batch: must have custom_id and body.{content}"
            )
        if row.get("method", "POST") != "POST":
            raise ConfigError(f"{where}: method={row['method']}: must be POST")
        return parse_settings(body, where, "body", url)
    if columns.sampling is None:
        return USUAL
    option = f"task.columns.sampling={columns.sampling}"
    return column_settings(column_value(row, columns.sampling, option, where), option, where)


def reference_text(value: Any, option: str, where: str) -> str | None:
    """As ``answer_text``, but several references are a JSON list (``tasks.references``)."""
    if isinstance(value, list):
        texts = [text for item in value if (text := answer_text(item, option, where)) is not None]
        return json.dumps(texts, ensure_ascii=False) if texts else None
    return answer_text(value, option, where)


def answer_text(value: Any, option: str = "task.columns.answer", where: str = "the row") -> str | None:
    """A reference answer as text: 18.0 as ``18``, a list as its elements; None, NaN, blank: no answer.

    Raises:
        ConfigError: It is a struct or no text; names the option and where it stands.
    """
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        return ", ".join(filter(None, (answer_text(item, option, where) for item in value))) or None
    if isinstance(value, float | Decimal):
        return _number_text(value, option, where)
    return None if value is None else as_text(value, option, where).strip() or None


def _number_text(value: float | Decimal, option: str, where: str) -> str | None:
    """A number as it was written, or with as few digits as say which it is; whole numbers as such."""
    text = (
        value.text
        if isinstance(value, WrittenFloat)
        else format(value, "f")
        if isinstance(value, Decimal)
        else str(value)
    )
    exact = Decimal(text)
    if exact.is_nan():
        return None
    if not exact.is_finite():
        return as_text(float(exact), option, where)
    whole = exact.adjusted() < MAX_DIGITS and exact == exact.to_integral_value()
    return format(exact, ".0f") if whole else text


def _is_batch(row: dict[str, Any]) -> bool:
    """Whether a row is a line of OpenAI's batch input format."""
    return "custom_id" in row and "body" in row


def _from_batch(row: Fields, columns: ColumnsConfig, where: str) -> Fields:
    """A line of OpenAI's batch format as a row: id, messages, metadata and, if there is one, the answer."""
    if isinstance(row, ConfigError):
        return row
    if not _is_batch(row):
        return ConfigError(f"{where}: not a line of an OpenAI batch: must have custom_id and body")
    body = row["body"] if isinstance(row["body"], dict) else {}
    metadata = body.get("metadata")
    flat = {**body, **(metadata if isinstance(metadata, dict) else {}), **row, "id": row["custom_id"]}
    flat["messages"] = body.get("messages")
    if columns.answer is not None and not has_column(flat, columns.answer):
        flat[columns.answer] = None
    return flat
