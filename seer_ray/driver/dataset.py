"""Which problems a run is about: a run goes on with the same ones, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import RETRIEVED, RunConfig
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.datasets import load_problems
from seer_ray.tasks.problem import Problem
from seer_ray.tasks.sources import is_path
from seer_ray.tasks.table import ProblemTable, Survey
from seer_ray.tracking.tracker import Dataset

FILE = "dataset.json"
_MESSAGE = {name: {"type": "string", "required": True} for name in ("role", "content")}
COLUMNS = {
    "id": {"type": "string", "required": True},
    "messages": {"type": "array", "items": {"type": "object", "properties": _MESSAGE}, "required": True},
    "answer": {"type": "string", "required": False},
}
"""Of a ``Problem``, as MLflow's schemas have them."""


def read_problems(config: RunConfig) -> ProblemTable:
    """The run's problems; built-in texts that are measured in tokens bring the model's tokenizer along.

    Raises:
        ConfigError: What is wrong with the data as a whole, or with every row; no such tokenizer.
    """
    made = config.task.generator
    if config.task.data is not None or made.name not in RETRIEVED or made.unit != "tokens":
        return load_problems(config.task)
    # Brings transformers along: a run that is done needs it in this case only.
    from seer_ray.models.load import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    return load_problems(
        config.task, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
    )


def asked_key(config: RunConfig) -> str:
    """The same for runs that ask the same problems."""
    counted = config.task.generator.unit == "tokens"
    return repr((config.task, config.model)) if counted else repr(config.task)


def describe(problems: Sequence[Problem], config: RunConfig) -> Dataset:
    """The dataset as MLflow shows it."""
    task = config.task
    made = task.generator
    size = f"{made.length} {made.unit}" if made.name in RETRIEVED else f"{made.steps} steps"
    source = task.data or f"built-in problems: {made.name}, {size}"
    return Dataset(task.name, Survey.of(problems).digest, source, len(problems), _kind(task.data), COLUMNS)


def _kind(data: str | None) -> str:
    """What MLflow calls such a source."""
    if data is None:
        return "code"
    if "://" in data:
        return data.partition("://")[0]
    return "local" if is_path(data) else "hugging_face"


def refuse_other_data(folder: RunFolder, problems: Sequence[Problem], config: RunConfig) -> None:
    """Notes the problems in the run folder, or compares them with those noted there.

    Raises:
        ConfigError: They have changed since the run was begun.
    """
    now = {"digest": Survey.of(problems).digest, "problems": len(problems)}
    then = folder.read_json(FILE)
    if then is None:
        folder.write_json(FILE, now)
    elif then != now and then != {**now, "digest": Survey.of(_with_float_answers(problems)).digest}:
        raise ConfigError(
            f"task.data={config.task.data}: its {now['problems']} problems are not the {then['problems']} "
            f"that {folder.uri} was begun with; restore the data, or give the run another name"
        )


def refuse_unknown_requests(problems: Sequence[Problem], config: RunConfig) -> None:
    """
    Raises:
        ConfigError: A chain that is to be recorded is of no problem, or of no sample; or rows have samples of
            their own where samples are taken until a problem is decided.
    """
    own = Survey.of(problems).own_samples
    if config.sequential.enabled and own is not None:
        raise ConfigError(
            f"sequential.enabled=true: problem '{own[0]}' asks for n={own[1]} samples; "
            "take n out, or leave the option"
        )
    if not config.engine.record_requests:
        return
    known = {f"{problem.id}/{n}" for problem in problems for n in range(problem.samples(config.samples))}
    for name in config.engine.record_requests:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(
                f"engine.record_requests={name}: must be problem/sample, one of the {len(known)} chains of "
                f"the run{near}"
            )


def _with_float_answers(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The problems as earlier versions read numbers: 0.10 as 0.1. A folder that they began goes on."""
    for problem in problems:
        try:
            number = float(problem.answer or "")
        except ValueError:
            yield problem
        else:
            answer = str(int(number)) if number.is_integer() else str(number)
            yield replace(problem, answer=answer)
