"""The built-in problems, checked by interpreters that know only the text of the question."""

import hashlib
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seer_ray.config.options import GeneratorConfig
from seer_ray.tasks.extraction import last_boxed
from seer_ray.tasks.generators import GENERATORS, Generated, generate, generate_problems
from seer_ray.tasks.graders import grade_math

configs = st.builds(
    GeneratorConfig,
    name=st.sampled_from(sorted(GENERATORS)),
    steps=st.integers(1, 80),
    difficulty=st.integers(1, 5),
)


def run_registers(question: str) -> tuple[dict[str, int], list[tuple[str, str, int]], int]:
    """(start, (target, expression, value) of every update, answer)"""
    modulus = int(re.search(r"modulo (\d+)", question)[1])
    start = {name: int(value) for name, value in re.findall(r"\b([A-Z])=(\d+)", question)}
    values, updates = dict(start), []
    for target, expression in re.findall(r"^\d+\. ([A-Z]) = (.+)$", question, re.MULTILINE):
        values[target] = eval(expression, {"__builtins__": {}}, values) % modulus
        updates.append((target, expression, values[target]))
    return start, updates, values[re.search(r"value of ([A-Z])", question)[1]]


def run_lookup(question: str) -> tuple[list[str], int]:
    """(path, answer)"""
    table = {
        label: (int(value), following)
        for label, value, following in re.findall(
            r"^(K\d+): value (\d+), next (\w+)$", question, re.MULTILINE
        )
    }
    label, path, total = re.search(r"Start at (K\d+)", question)[1], [], 0
    while label != "stop":
        path.append(label)
        total += table[label][0]
        label = table[label][1]
    return path, total % int(re.search(r"modulo (\d+)", question)[1])


def run_program(question: str) -> tuple[dict[str, tuple[str, int]], int]:
    """(variable -> expression and value, in order; answer)"""
    modulus = int(re.search(r"modulo (\d+)", question)[1])
    values, lines = {}, {}
    for name, expression in re.findall(r"^(x\d+) = (.+)$", question, re.MULTILINE):
        values[name] = eval(expression, {"__builtins__": {}}, values) % modulus
        lines[name] = (expression, values[name])
    return lines, values[re.search(r"What is (x\d+)", question)[1]]


SOLVERS = {
    "registers": lambda question: run_registers(question)[2],
    "program": lambda question: run_program(question)[1],
    "lookup": lambda question: run_lookup(question)[1],
}


def solve(problem: Generated, name: str) -> int:
    return SOLVERS[name](problem.question)


@settings(max_examples=60)
@given(configs, st.integers(0, 10**6), st.integers(0, 10**6))
def test_answer_is_what_the_question_says(config, index, seed):
    problem = generate(config, index, seed)
    assert problem == generate(config, index, seed)
    assert problem.answer == str(solve(problem, config.name))
    assert last_boxed(problem.solution) == [problem.answer]


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(1, 5), st.integers(0, 10**6))
def test_registers_solution_is_right_line_by_line(steps, difficulty, index):
    problem = generate(GeneratorConfig("registers", steps, difficulty), index)
    start, updates, _ = run_registers(problem.question)
    values, lines = dict(start), problem.solution.splitlines()[:-1]
    assert len(lines) == len(updates) == steps
    for number, (line, (target, expression, value)) in enumerate(zip(lines, updates, strict=True), 1):
        shown = re.sub(r"[A-Z]", lambda name: str(values[name[0]]), expression)
        raw = eval(shown)
        assert line.startswith(f"{number}. {target} = {expression} = {shown} = {raw}")
        assert line.endswith(f" = {value}")
        values[target] = value


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(1, 5), st.integers(0, 10**6))
def test_lookup_solution_walks_the_path(steps, difficulty, index):
    problem = generate(GeneratorConfig("lookup", steps, difficulty), index)
    path, answer = run_lookup(problem.question)
    assert re.findall(r"^\d+\. (K\d+):", problem.solution, re.MULTILINE) == path
    assert len(path) == (steps + 1) // 2
    assert re.findall(r"total (\d+)", problem.solution)[-1] == str(answer)


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(1, 5), st.integers(0, 10**6))
def test_program_solution_is_right_line_by_line(steps, difficulty, index):
    problem = generate(GeneratorConfig("program", steps, difficulty), index)
    lines, _ = run_program(problem.question)
    shown = problem.solution.splitlines()[:-1]
    assert len(shown) == len(lines) == steps
    for number, (line, (name, (expression, value))) in enumerate(zip(shown, lines.items(), strict=True)):
        numbers = re.sub(r"x\d+", lambda read: str(lines[read[0]][1]), expression)
        if number < 2:
            assert line == f"{name} = {value}"
        else:
            assert line == f"{name} = {expression} = {numbers} = {eval(numbers)} -> {value}"
            assert eval(numbers) >= 0


def test_program_reads_the_line_before_and_any_earlier_one():
    lines, _ = run_program(generate(GeneratorConfig("program", 400), 0).question)
    order = {name: place for place, name in enumerate(lines)}
    distances = []
    for name, (expression, _) in list(lines.items())[2:]:
        reads = sorted(order[name] - order[read] for read in re.findall(r"x\d+", expression))
        assert reads[0] == 1 and len(reads) <= 2
        distances += reads[1:]
    assert min(distances) == 2 and max(distances) > 300 and 80 < sum(distances) / len(distances) < 120


def test_every_register_update_needs_the_one_before():
    start, updates, _ = run_registers(generate(GeneratorConfig("registers", 200, 4), 0).question)
    for (target, _, _), (_, expression, _) in itertools.pairwise(updates):
        assert target in expression
    assert set(start) == {
        name for target, expression, _ in updates for name in re.findall("[A-Z]", expression)
    }


def reading_distance(steps: int) -> float:
    """Mean number of lines between a read of a register and where its value was set."""
    set_at, distances = {}, []
    _, updates, _ = run_registers(generate(GeneratorConfig("registers", steps), 0).question)
    for step, (target, expression, _) in enumerate(updates, 1):
        distances += [step - set_at.get(name, 0) for name in re.findall("[A-Z]", expression)]
        set_at[target] = step
    return sum(distances) / len(distances)


def test_registers_look_back_in_proportion_to_the_length():
    assert reading_distance(2000) > 5 * reading_distance(200) > 5 * 10


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_lengths_are_linear_in_steps(name):
    short, long = (generate(GeneratorConfig(name, steps), 0) for steps in (200, 2000))
    assert 8 < len(long.question) / len(short.question) < 12
    assert 8 < len(long.solution) / len(short.solution) < 12


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_other_seed_index_or_difficulty_is_another_problem(name):
    problems = [generate(GeneratorConfig(name, 24, d), i, s) for d in (1, 2) for i in (0, 1) for s in (0, 1)]
    assert len({problem.question for problem in problems}) == len({problem.id for problem in problems}) == 8
    assert generate_problems(GeneratorConfig(name), 3) == [
        generate(GeneratorConfig(name), i) for i in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "digest"),
    [("registers", "c39a684e34481c03"), ("lookup", "c908a49d5b2fb758"), ("program", "76aeda486c9373eb")],
)
def test_problems_stay_what_they_are(name, digest):
    """Results of one release are to be compared with those of the next."""
    texts = "".join(
        p.question + p.solution
        for d in range(1, 6)
        for p in generate_problems(GeneratorConfig(name, 24, d), 2)
    )
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_the_math_grader_reads_the_solution(name):
    for problem in generate_problems(GeneratorConfig(name, 20, 5), 3):
        assert grade_math(problem.solution, problem.answer).correct is True
        assert grade_math(problem.solution, str(int(problem.answer) + 1)).correct is False
