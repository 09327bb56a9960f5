"""Line breaks that are typed as two characters, and LaTeX that only looks like them."""

from __future__ import annotations

import pytest

from seer_ray.config.compose import compose
from seer_ray.config.escapes import typed_escapes


@pytest.mark.parametrize(
    "override",
    [
        r"""sampling.stop=["\n\n"]""",
        r"sampling.stop=['\n']",
        r"sampling.stop=[\nQ:]",
        r"sampling.stop=['a', '\tb']",
        r"task.prompt={question}\n",
        r"task.prompt='{question}\nThink first, then write \boxed{}.'",
        r"task.prompt={question}\n\n\nabla",
        r"task.system='Be brief.\n\nAnd kind.'",
        r"task.few_shot=[{question: '1+1?\n', answer: '2'}]",
    ],
)
def test_a_line_break_that_is_typed_as_two_characters_is_told_of(override):
    config = compose([override])
    name = override.partition("=")[0]
    [line] = typed_escapes(config)
    assert (
        line.startswith(name + ": \\") and "is read as it is typed" in line and f"write $'{name}=...'" in line
    )


@pytest.mark.parametrize(
    "text",
    [
        r"\nabla f \neq 0, \nu \notin N, \ne, \not=",
        r"\text{m} \tfrac12 \times \theta \to \tan \tau \textbf{x} \triangle",
        r"\boxed{} \\n \\text \frac{1}{2} \rightarrow \beta",
        "a real\nline break and\ta tab",
        r"C:\\new\\table",
    ],
)
def test_latex_stays_and_is_not_told_of(text):
    config = compose()
    config.task.prompt, config.task.system, config.sampling.stop = "{question} " + text, text, [text]
    assert list(typed_escapes(config)) == []


@pytest.mark.parametrize("text", [r"\nabla \boxed{x} \text{a} \\ \n", r"\nQ:", "\n\n", "a\tb"])
def test_what_is_typed_is_what_there_is(text):
    assert compose([f"task.system='{text}'"]).task.system == text
    assert compose([f'sampling.stop=["{text}"]']).sampling.stop == [text]
