r"""Built-in problems: verifiable, of any length, and unsolvable without looking far back.

Each problem is a function of (name, steps, difficulty, seed, index) and nothing else. Question and solution
grow linearly with ``steps``. The solution is the ideal chain of thought, in the form that the ``math`` grader
reads (``\boxed{}``): a model can be trained on it.

``registers``: ``steps`` updates of named registers. Every update reads the register written just before,
    so that the last value depends on all of them, and a second register that was mostly set long ago: half of
    the registers are rewritten only about three times in the whole chain.
``program``: a straight-line program of ``steps`` assignments. Each variable is written once, from the one
    just before and from one that may stand anywhere earlier, and is named by a number that starts anywhere.
``lookup``: a shuffled table of ``steps`` entries, and a chain of pointers through half of them to follow from
    a given entry to the one that says ``stop``, with the values met on the way to add up.

Others ask about a long text: ``tasks.retrieval``.
"""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RETRIEVED, GeneratorConfig
from seer_ray.tasks import retrieval
from seer_ray.tasks.retrieval import WORDS, Texts

# By difficulty 1 to 5.
MODULUS = (10, 20, 50, 100, 1000)
REGISTERS = (6, 8, 12, 16, 24)
MULTIPLY_FROM = 3
"""Difficulty from which updates of registers also multiply."""
CONSTANT_SHARE = 0.15
"""Of a program's assignments that add a number instead of an earlier variable."""


@dataclass(frozen=True)
class Generated:
    """A problem with its ideal chain of thought."""

    id: str
    question: str
    answer: str
    solution: str
    document: str | None = None
    """The part of the question that is the text which it is about."""


def generate(config: GeneratorConfig, index: int, seed: int = 0, texts: Texts = WORDS) -> Generated:
    """Problem number ``index`` of the endless sequence that ``config`` and ``seed`` name.

    Args:
        texts: how long a text is, and rows of documents, for problems about a text

    Raises:
        ConfigError: no text is so short.
    """
    if config.name in RETRIEVED:
        return _retrieval(config, index, seed, texts)
    key = f"{config.name}-{config.steps}-{config.difficulty}-{seed}-{index}"
    question, answer, solution = GENERATORS[config.name](
        random.Random(key), config.steps, config.difficulty - 1
    )
    return Generated(key, question, str(answer), f"{solution}\nThe answer is \\boxed{{{answer}}}.")


def _retrieval(config: GeneratorConfig, index: int, seed: int, texts: Texts) -> Generated:
    """A question about a text, its answers a JSON list."""
    unit = config.unit[0]
    key = f"{config.name}-{config.length}{unit}-{config.difficulty}-{seed}-{index}"
    make, most = retrieval.RETRIEVAL.get(config.name), None
    if make is None:
        make = retrieval.documents(texts.rows, index)
        most = len({row.document for row in texts.rows})
    try:
        text = retrieval.fitted(
            lambda items: make(random.Random(key), items, config.difficulty - 1),
            config.length,
            texts.measure,
            most,
        )
    except ValueError as error:
        raise ConfigError(
            f"task.generator.length={config.length}: the shortest {config.name} problem of difficulty "
            f"{config.difficulty} has {error} {config.unit}; set that or more"
        ) from None
    answer = json.dumps(text.answers, ensure_ascii=False)
    return Generated(key, text.question, answer, ", ".join(text.answers), text.document)


def generate_problems(config: GeneratorConfig, count: int, seed: int = 0) -> list[Generated]:
    """The first ``count`` problems of the sequence."""
    return [generate(config, index, seed) for index in range(count)]


def registers(rng: random.Random, steps: int, level: int) -> tuple[str, int, str]:
    """Question, answer and chain of one ``registers`` problem; ``level`` is difficulty - 1."""
    modulus, names = MODULUS[level], list(string.ascii_uppercase[: REGISTERS[level]])
    rng.shuffle(names)
    cold, hot = names[: len(names) // 2], names[len(names) // 2 :]
    # Every cold register is written about three times, whatever the length: the way back grows with it.
    cold_share = min(0.5, 3 * len(cold) / steps)
    # Factors with an inverse keep every earlier mistake visible in the answer.
    factors = [n for n in range(2, min(modulus, 20)) if math.gcd(n, modulus) == 1]

    values = {name: rng.randrange(modulus) for name in sorted(names)}
    start = " ".join(f"{name}={value}" for name, value in values.items())
    last = rng.choice(hot)
    updates, chain = [], []
    for step in range(1, steps + 1):
        target = rng.choice(cold if rng.random() < cold_share else hot)
        # A term as (text, text with the value put in, value).
        near = (last, f"{values[last]}", values[last])
        if level + 1 >= MULTIPLY_FROM and rng.random() < 0.5:
            factor = rng.choice(factors)
            near = (f"{factor} * {last}", f"{factor} * {values[last]}", factor * values[last])
        kind = rng.random()
        if kind < 0.15:
            constant = rng.randrange(1, modulus)
            far = (str(constant), str(constant), constant)
        else:
            name = rng.choice([name for name in (cold if kind < 0.85 else hot) if name != last])
            far = (name, str(values[name]), values[name])
        (left, left_shown, left_value), (right, right_shown, right_value) = rng.sample([near, far], 2)
        sign = rng.choice("+-")
        raw = left_value + right_value if sign == "+" else left_value - right_value
        values[target], last = raw % modulus, target

        update = f"{step}. {target} = {left} {sign} {right}"
        updates.append(update)
        reduced = "" if 0 <= raw < modulus else f" mod {modulus} = {raw % modulus}"
        chain.append(f"{update} = {left_shown} {sign} {right_shown} = {raw}{reduced}")

    question = (
        f"There are {len(names)} registers that hold whole numbers modulo {modulus}.\n"
        f"At the start: {start}\n"
        "These updates are made in order:\n" + "\n".join(updates) + "\n"
        f"What is the value of {last} at the end? Go through the updates one by one, each with its result "
        f"from 0 to {modulus - 1}, and end with the answer in \\boxed{{}}."
    )
    return question, values[last], "\n".join(chain)


def lookup(rng: random.Random, steps: int, level: int) -> tuple[str, int, str]:
    """Question, answer and chain of one ``lookup`` problem; ``level`` is difficulty - 1."""
    modulus = MODULUS[level]
    digits = max(2 + level // 2, len(str(2 * steps)))
    labels = [f"K{number:0{digits}d}" for number in rng.sample(range(10**digits), steps)]
    path = labels[: (steps + 1) // 2]
    values = {label: rng.randrange(modulus) for label in labels}
    following = dict(zip(path, [*path[1:], "stop"], strict=True))
    # Entries off the path point anywhere: they look like the others.
    following |= {label: rng.choice(labels) for label in labels[len(path) :]}

    rng.shuffle(labels)
    table = "\n".join(f"{label}: value {values[label]}, next {following[label]}" for label in labels)
    question = (
        f"A table has {steps} entries, each with a value and the entry that comes next:\n{table}\n"
        f"Start at {path[0]} and follow the entries until one says stop. What is the sum modulo {modulus} of "
        f"the values of all entries on the way, first and last included? Name every entry with the total so "
        f"far, and end with the answer in \\boxed{{}}."
    )
    chain, total = [], 0
    for step, label in enumerate(path, 1):
        total = (total + values[label]) % modulus
        chain.append(f"{step}. {label}: value {values[label]}, total {total}, next {following[label]}")
    return question, total, "\n".join(chain)


def program(rng: random.Random, steps: int, level: int) -> tuple[str, int, str]:
    """Question, answer and chain of one ``program`` problem; ``level`` is difficulty - 1."""
    modulus = MODULUS[level]
    # A start anywhere: a variable's name does not tell its place. Names stay below x1000 as long as they can.
    start = rng.randint(1, max(1, 999 - steps))
    values: list[int] = []
    assignments, chain = [], []
    for index in range(steps):
        name = f"x{start + index}"
        if index < 2:
            value = rng.randrange(modulus)
            assignments.append(f"{name} = {value}")
            chain.append(f"{name} = {value}")
        else:
            near = (f"x{start + index - 1}", values[-1])
            constant = rng.randrange(modulus)
            far = (str(constant), constant)
            if rng.random() >= CONSTANT_SHARE:
                earlier = rng.randrange(index - 1)
                far = (f"x{start + earlier}", values[earlier])
            (left, left_value), (right, right_value) = rng.sample([near, far], 2)
            sign = rng.choice("+-") if left_value >= right_value else "+"
            result = left_value + right_value if sign == "+" else left_value - right_value
            value = result % modulus
            assignments.append(f"{name} = {left} {sign} {right}")
            # Every line has one form: the sum, then the sum reduced.
            chain.append(f"{assignments[-1]} = {left_value} {sign} {right_value} = {result} -> {value}")
        values.append(value)
    question = (
        f"A program computes with whole numbers modulo {modulus}:\n" + "\n".join(assignments) + "\n"
        f"What is x{start + steps - 1}? Go through the program line by line, each with its value from 0 to "
        f"{modulus - 1}, and end with the answer in \\boxed{{}}."
    )
    return question, values[-1], "\n".join(chain)


GENERATORS: dict[str, Callable[[random.Random, int, int], tuple[str, int, str]]] = {
    "registers": registers,
    "program": program,
    "lookup": lookup,
}
