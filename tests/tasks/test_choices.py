"""Which letter a completion chooses: the last that is stated wins, and an article is no choice."""

import pytest

from seer_ray.config.options import TaskConfig
from seer_ray.tasks.extraction import choice_letter, final_choice
from seer_ray.tasks.grading import Grade, grade

CHOSEN = {
    "A": [
        "A is correct.",
        "A is correct, B is wrong",
        "the answer is a.",
        "정답: A",
        "correct answer: (A)",
        "The correct option is A.",
        "Answer: A.",
        "Answer: A",
        "Answer: A)",
        "A",
        "The answer is A because it fits",
        "The answer is A, because it fits",
    ],
    "B": [
        "<answer>B</answer>",
        "<answer>(B) 42</answer>",
        "<answer>\nB\n</answer>",
        "(B)",
        "**B**",
        "\\boxed{\\text{(B)}}",
        "\\boxed{\\textbf{(B)}\\ 42}",
        "\\boxed{B}",
        "\\boxed{(B)}",
        "Answer: A\nWait, Answer: B",
        "\\boxed{A}. But rechecking, the answer is B.",
        "The answer cannot be A, so it must be B; the answer is B",
        "I choose B.",
        "I would not choose A, I choose B",
        "answer: b",
        "Respuesta: B",
        "La respuesta correcta es B",
        "正解はB",
        "A) 1\nB) 2\nC) 3\n\nB) 2",
        "Choice B is right",
        "Hence (B) is correct",
        "B",
        "b",
        "b)",
        "(b)",
        "I think B is the answer.",
        "Answer: B\n\nQuestion: What?\nAnswer: C",
        "Answer: [B]",
        "Answer: 'B'",
        '{"answer": "B"}',
        "The answer is Option B.",
        "The answer is: Option B",
        "Selected: B",
        "\\boxed{\\text{Option B}}",
        "\\boxed{\\text{B. 42}}",
        "\\boxed{\\mathbf{B}}",
        "This matches choice (B).",
        "So the answer is B, not C.",
        "The answer, then, is B",
        "The right answer's letter is B",
    ],
    "C": [
        "Option C is correct",
        "Option C is correct.",
        "answer: c",
        "答案：C",
        "答案是C。",
        "答案为 (C)",
        "正确答案是：C",
        "故选：C",
        "选C",
        "C) 42",
        "C. 42",
        "The answer is A. Actually no. The correct answer is C.",
        "The answer is B. \\boxed{C}",
        "I would select option (C)",
        "The answer is (C) because A is wrong",
        "The answer is **C**.",
        "The answer is C: 42",
        "**Answer: C**",
        "Answer:\n\nC",
        "**Answer**\nC",
        "Final answer: $\\text{C}$",
        "Final Answer: \\(\\boxed{C}\\)",
        "The final answer is $C$",
        "the answer is c.",
        "the answer is (c)",
        "Die richtige Antwort ist C.",
        "The answer would be C",
        "答案：Ｃ",
        "答案：（C）",
        "The answer is $\\boxed{42}$, which is option C.",
        "... which corresponds to option C.",
        "\\textbf{Answer: } \\text{C}",
        "Therefore, **(C)** is the answer",
        "Correct Answer: **C) 42**",
        "### Answer\n\n**C**",
        "### Final Answer: C",
        "So it is C.",
    ],
    "D": [
        "So $\\boxed{42}$.\n\nAnswer: D",
        "因此，答案选 D。",
        "The correct choice is: D.",
        "Option A is incorrect. Option B is not correct. Option D is the right answer.",
        "We pick (D)",
        "ANSWER: D",
        "Answer is D",
        "So the answer is D",
        "La bonne réponse est D.",
        "$\\boxed{D}$ is 42",
        "Thus, the correct answer is option (D) 42.",
        "Answer: D\n\nI hope this helps! A",
        "Answer: (D) 7, since A gives 3",
        "The answer is D\n\nLet me know if you have questions.",
    ],
    "E": ["Therefore, the best option is (E).", "My answer is E"],
    "I": ["The answer is I"],
}

NONE = [
    "A dog is an animal",
    "The answer is A dog",
    "none of A or B",
    "The answer is none of A or B",
    "It is none of A or B.",
    "The answer is not A.",
    "The answer is either A or B.",
    "The answer is A or B.",
    "Answer: A and C",
    "the answer is a number",
    "Answer - D",
    "A) 1\nB) 2\nC) 3\nThe answer is 2",
    "The answer is I think 5",
    "\\boxed{42}",
    "\\boxed{a+b}",
    "\\boxed{C_4}",
    "\\boxed{b=3}",
    "\\boxed{e^2}",
    "\\boxed{B, C}",
    "\\boxed{A cat}",
    "A: 1\nB: 2",
    "Let A be the set. Then A is right-angled.",
    "I am sure. I is wrong",
    "Answer: None",
    "Answer: unknown",
]

LETTERS = {
    "(B)": "B",
    "B. text": "B",
    "B) text": "B",
    "B": "B",
    "b": "B",
    "Option B": "B",
    "option (b)": "B",
    "Choice B": "B",
    "Answer: B": "B",
    "[B]": "B",
    "答案：B": "B",
    "B: text": "B",
    "B、text": "B",
    "B,": "B",
    "B, C": None,
    "A cat": None,
    "Be": None,
    "B.5": None,
    "B - Paris": "B",
    "B (Paris)": "B",
    "\\textbf{(B)}\\ 42": "B",
    "**B**": "B",
    "'B'": "B",
    "(B) 42": "B",
    "A and B": None,
    "AB": None,
    "K": None,
    "(b) + 1": None,
    "B text": None,
    "Ｂ": "B",
    "<B>": "B",
    "B。": "B",
    "B.": "B",
    "Ⓑ": "B",
    "the answer is B": "B",
    "Choice: (C)": "C",
}


@pytest.mark.parametrize(
    ("letter", "text"), [(letter, text) for letter, texts in CHOSEN.items() for text in texts]
)
def test_what_is_chosen(letter, text):
    assert final_choice(text) == letter


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_choice(text):
    assert final_choice(text) is None


@pytest.mark.parametrize(("answer", "letter"), LETTERS.items())
def test_the_letter_of_a_reference_or_a_box(answer, letter):
    assert choice_letter(answer) == letter


@pytest.mark.parametrize("reference", ["D", "(D)", "D. 42", r"\text{(D)}", "d", "Option D"])
def test_a_box_with_a_number_is_not_the_choice(reference):
    text = r"So the sum is $\boxed{42}$." + "\n\nAnswer: D"
    assert grade(TaskConfig(grader="choice"), text, reference) == Grade(True, "D")
