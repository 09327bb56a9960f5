"""Where completions have their answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seer_ray.tasks.extraction import boxes, choice_letter, final_choice, final_text, last_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{5}.", ["5"]),
        (r"\boxed{1} no, \boxed{2}", ["2"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed {\left\{1, 2\right\}}", [r"\left\{1, 2\right\}"]),
        (r"\fbox{5}", ["5"]),
        (r"$\boxed{1}$ and $\boxed{2}$", ["1", "2"]),
        (r"\(\boxed{1}\), \(\boxed{2}\), or \(\boxed{3}\)", ["1", "2", "3"]),
        (r"\boxed{5} and then it was cut \boxed{6", ["5"]),
        (r"{ \boxed{5}", ["5"]),
        (r"} \boxed{5}", ["5"]),
        (r"\boxed{\boxed{5}}", [r"\boxed{5}"]),
        (r"\boxed{5} then \boxed{}", ["5"]),
        ("no box", []),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


@given(st.text(alphabet="{}\\ box", max_size=30), st.text(alphabet="{}\\a ", max_size=30))
def test_boxes_survive_any_braces(before, after):
    text = f"{before} \\boxed{{7}} {after}"
    found = boxes(text)
    # Either the box itself, or one around it that the text before it has opened.
    assert any("7" in content for _, _, content in found)
    assert [text[start:end] for start, end, _ in found] == [text[s:e] for s, e, _ in sorted(found)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps\n#### 18\n", "18"),
        ("The answer is **Paris**.", "Paris"),
        ("Answer: 3.5\nNote", "3.5"),
        ("first\nlast\n", "last"),
        ("", None),
    ],
)
def test_final_text(text, expected):
    assert final_text(text) == expected


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C", "C"),
        (" (c) ", "C"),
        (r"\text{(C)}", "C"),
        (r"\mathbf{C}", "C"),
        ("C. 12 apples", "C"),
        ("**C**", "C"),
        ("Cat", None),
        ("A cat", None),
        ("K", None),
        ("2", None),
        ("", None),
    ],
)
def test_choice_letter(answer, letter):
    assert choice_letter(answer) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"so \boxed{\text{B}}", "B"),
        ("The answer is (B).", "B"),
        ("The correct answer is therefore **B**", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B) because A is wrong", "B"),
        ("The answer is A. No, the answer is B.", "B"),
        ("The answer is option B because of A", "B"),
        ("the answer is I think\nB", "B"),
        ("The answer is I.", "I"),
        ("B", "B"),
        ("(B)", "B"),
        ("B. Paris", "B"),
        ("I think it must be (B), as a cat would", "B"),
        ("It is (A) or (B)", None),
        ("A) 1\nB) 2\nC) 3", None),
        ("A) 1\nB) 2\n\nB", "B"),
        ("A big dog", None),
        ("the answer is a number", None),
        ("", None),
    ],
)
def test_final_choice(text, letter):
    assert final_choice(text) == letter
