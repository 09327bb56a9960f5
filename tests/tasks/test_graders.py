"""What is right and what is wrong, on real references and real ways of answering."""

import itertools

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.grading import Grade, check_grader, grade

# References as GSM8K, MATH and AIME have them; all different.
REFERENCES = [
    "18",
    "70000",
    "204",
    "-3",
    "0.35",
    r"\left( 3, \frac{\pi}{2} \right)",
    "p - q",
    r"\frac{14}{3}",
    r"\text{Evelyn}",
    r"3\sqrt{13}",
    "6 - 5i",
    "1,-2",
    "x^5 - x^4 + x^3 - x^2 + x - 1",
    r"1 \pm \sqrt{19}",
    r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
    "5x - 7y + 11z + 4 = 0",
    r"10,\!080",
    r"\frac 59",
    r"\$32,\!348",
    r"\left(\frac{3}{5},\frac{8}{3}\right]",
    r"(-\infty, 2) \cup (3, \infty)",
    r"1\frac{4}{5}",
    r"11\sqrt2",
    "y = 2x + 4",
    r"137 \frac{1}{2}",
    r"90^\circ",
    "x \\in [-2,7]",
    "4210_{5}",
    r"50\%",
    r"\text{(C)}",
    "even",
]


def math(text, answer):
    return grade(TaskConfig(), text, answer)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(
    "form",
    [
        "so $\\boxed{%s}$.",
        "<think>\\boxed{-99}</think>\n\\[ \\boxed{ %s } \\]",
        "#### %s",
        "The answer is \\( %s \\).",
    ],
)
def test_a_reference_is_right_however_it_is_stated(reference, form):
    assert math(form % reference, reference).correct is True


def test_any_other_reference_is_wrong():
    for given, reference in itertools.permutations(REFERENCES[::2], 2):
        result = math(f"\\boxed{{{given}}}", reference)
        assert result.correct is False and result.extracted is not None, (given, reference)


@pytest.mark.parametrize(
    ("text", "answer", "correct", "extracted"),
    [
        ("16 - 3 - 4 = 9, 9 * 2 = 18. The answer is 18.", "18", True, "18"),
        ("She makes $18 every day", "18", True, "18"),
        ("**18**", "18", True, "18"),
        ("9 * 2 = 18\n#### 18", "18", True, "18"),
        ("9 * 2 = 18\n#### 18 dollars\nQuestion: 7", "18", True, "18"),
        ("#### 18\\pi", "18", False, "18\\pi"),
        ("The answer is 19. 18", "18", False, "19"),
        (r"\boxed{70,000}", "70000", True, "70,000"),
        (r"\boxed{\$18}", "18", True, r"\$18"),
        (r"\boxed{18 \text{ dollars}}", "18", True, r"18 \text{ dollars}"),
        (r"\boxed{0.5}", r"\frac{1}{2}", True, "0.5"),
        (r"\boxed{.5}", "5", False, ".5"),
        (r"\boxed{\dfrac12}", r"\frac{1}{2}", True, r"\dfrac12"),
        (r"\boxed{x = 5}", "5", True, "x = 5"),
        (r"$\boxed{1}$ and $\boxed{234}$", "1, 234", True, "1, 234"),
        (r"$\boxed{1}$ and $\boxed{234}$", "1234", False, "1, 234"),
        (r"\boxed{(1, 2)}", "(2, 1)", False, "(1, 2)"),
        (r"\boxed{5} " + "and so on " * 2000, "5", True, "5"),
        (r"\boxed{5", "5", False, None),
        ("no idea", "5", False, None),
        ("", "5", False, None),
        ("<think>It may be 5", "5", False, None),
        (r"<think>It is \boxed{5}", "5", False, None),
        (r"<think>It is \boxed{9}</think> \boxed{5}", "5", True, "5"),
        (r"It is \boxed{9}</think> \boxed{5}", "5", True, "5"),
        (r"<seed:think>It is \boxed{9}</seed:think>The value is 5.", "5", True, "5"),
        (r"[THINK]It is \boxed{5}", "5", False, None),
        (r"<think>It is \boxed{5}</think> So <think>\boxed{5}", "5", False, None),
        ("5</think>", "5", False, None),
        (r"\boxed{5}", None, None, "5"),
        # References that are themselves whole solutions.
        (r"\boxed{72}", "48/2 = 24\n48+24 = 72\n#### 72", True, "72"),
        (r"\boxed{72}", r"We get $48+24=\boxed{72}$ clips.", True, "72"),
        (r"\boxed{72}", "$72$", True, "72"),
        (r"\boxed{72}", r"\$72", True, "72"),
    ],
)
def test_math(text, answer, correct, extracted):
    assert math(text, answer) == Grade(correct, extracted)


def test_math_of_a_long_chain_without_an_answer():
    """math-verify's own search of such a text takes minutes."""
    assert math("Let \\[ x be $ " * 20_000, "5").correct is False


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("The answer is (B).", "b", Grade(True, "B")),
        ("The answer is (B).", "A", Grade(False, "B")),
        ("<think>The answer is A</think> The answer is B", "B", Grade(True, "B")),
        ("<think>The answer is A", "A", Grade(False, None)),
        ("<think>The answer is A", None, Grade(None, None)),
        ("No idea", "A", Grade(False, None)),
        ("B", None, Grade(None, "B")),
    ],
)
def test_choice(text, answer, expected):
    assert grade(TaskConfig(grader="choice"), text, answer) == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("  new\n york ", "New York", Grade(True, "new\n york")),
        ("It is big.\nThe answer is New York.", "new york", Grade(True, "New York")),
        (r"\boxed{New York}", "New York", Grade(True, "New York")),
        ("I say\nNew York", "new york", Grade(True, "New York")),
        ("<think>New York", "New York", Grade(False, None)),
        ("York", "New York", Grade(False, "York")),
        ("", "New York", Grade(False, None)),
        ("York", None, Grade(None, "York")),
    ],
)
def test_exact(text, answer, expected):
    assert grade(TaskConfig(grader="exact"), text, answer) == expected


def test_none():
    assert grade(TaskConfig(grader="none"), "5", "5") == Grade(None, None)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A grader module where the command is run, which is not on sys.path."""
    (tmp_path / "own_grader.py").write_text(
        "import re\n"
        "def right(completion, answer): return answer in completion\n"
        "def number(completion, answer):\n"
        "    found = re.search('[0-9]+', completion)\n"
        "    return found and found[0]\n"
        "def score(completion, answer): return 0.5\n"
        "def crash(completion, answer): raise KeyError('a\\nb')\n"
        "def leave(completion, answer): raise SystemExit(3)\n"
        "constant = 5\n"
    )
    (tmp_path / "broken_grader.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "answer", "expected"),
    [
        ("right", "It is so\n5", "5", Grade(True, "5")),
        ("right", "6", "5", Grade(False, "6")),
        ("right", "5", None, Grade(None, "5")),
        ("number", "It is 5 or 6", "5", Grade(True, "5")),
        ("number", "It is 6", "5", Grade(False, "6")),
        ("number", "It is", "5", Grade(False, None)),
        ("crash", "5", "5", Grade(None, None, "KeyError: 'a\\nb'")),
        ("leave", "5", "5", Grade(None, None, "SystemExit: 3")),
    ],
)
def test_a_function_as_grader(own, name, text, answer, expected):
    assert grade(TaskConfig(grader=f"own_grader:{name}"), text, answer) == expected


def test_a_function_that_returns_something_else(own):
    result = grade(TaskConfig(grader="own_grader:score"), "5", "5")
    assert result.correct is None and "returned 0.5; must be True or False" in result.error


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "mth",
            "task.grader=mth: must be one of math, choice, exact, contains_all, contains_any, f1, rouge_l, "
            "none, or module:function (did you mean 'math'?)",
        ),
        (
            "no_such_grader:f",
            "task.grader=no_such_grader:f: module 'no_such_grader' cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such_grader'",
        ),
        (
            "broken_grader:f",
            "task.grader=broken_grader:f: module 'broken_grader' cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        ),
        (
            "own_grader:rigth",
            "task.grader=own_grader:rigth: module 'own_grader' has no function 'rigth' "
            "(did you mean 'right'?)",
        ),
        (
            "own_grader:constant",
            "task.grader=own_grader:constant: module 'own_grader' has no function 'constant'",
        ),
        (":f", "task.grader=:f: module '' cannot be imported: ValueError: Empty module name"),
    ],
)
def test_a_grader_that_does_not_exist(own, spec, message):
    with pytest.raises(ConfigError) as error:
        check_grader(TaskConfig(grader=spec))
    assert str(error.value).startswith(message)
