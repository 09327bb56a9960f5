"""In which form a prompt asks for the answer, and who keeps to it."""

from __future__ import annotations

import pytest

from seer_ray.tasks.forms import asked_form, in_form


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        (r"What is 1+1? Put your final answer within \boxed{}.", "box"),
        ("End with a line '#### 18'.", "hashes"),
        ("Write it as <answer>...</answer>.", "tag"),
        ("Finish with 'Answer: X', where X is a letter.", "line"),
        ("The last line must be of the form Answer: $LETTER", "line"),
        ('Finish with "the answer is (X)".', "sentence"),
        ("What is the answer?", None),
    ],
)
def test_asked_form(prompt: str, form: str | None) -> None:
    assert asked_form([{"role": "user", "content": prompt}]) == form


def test_examples_of_the_assistant_ask_for_nothing() -> None:
    shown = {"role": "assistant", "content": r"\boxed{3}"}
    assert (
        asked_form([{"role": "user", "content": "1+2?"}, shown, {"role": "user", "content": "1+1?"}]) is None
    )
    assert asked_form([{"role": "system", "content": r"Use \boxed{}."}, shown]) == "box"


@pytest.mark.parametrize(
    ("form", "answer", "kept"),
    [
        ("box", r"So it is \boxed{2}.", True),
        ("box", "The answer is 2.", False),
        ("box", r"\boxed{}", False),
        ("hashes", "1+1\n#### 2", True),
        ("hashes", "2", False),
        ("tag", "<answer>2</answer>", True),
        ("line", "**Answer:** B", True),
        ("line", "B", False),
        ("sentence", "So the answer is **(B)**.", True),
        ("box", None, False),
        (None, r"\boxed{2}", None),
    ],
)
def test_in_form(form: str | None, answer: str | None, kept: bool | None) -> None:
    assert in_form(form, answer) is kept
