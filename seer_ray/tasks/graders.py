"""One completion against one reference answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.modules import import_named
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.extraction import choice_letter, final_choice, final_text, same_text
from seer_ray.tasks.references import found_in, normalised, references, rouge_l, token_f1
from seer_ray.tasks.stated import math_answer, reference_answer
from seer_ray.tasks.thinking import ReasoningParser


@dataclass(frozen=True)
class Grade:
    """What grading found."""

    correct: bool | None
    """None: not graded, because there is no reference, or for the reason in ``error``."""
    extracted: str | None
    """The answer that the completion gives; None: it gives none."""
    error: str | None = None
    score: float | None = None
    """In 0..1, of graders that give parts of a point; None: ``correct`` says it all."""


Grader = Callable[[str, str | None], Grade]
"""(completion without its reasoning, reference answer) -> grade. May raise, hang or crash: ``GradingPool``
holds that off."""


def make_grader(spec: str) -> Grader:
    """The grader that ``task.grader`` names.

    Raises:
        ConfigError: Unknown name, or a ``module:function`` that cannot be imported.
    """
    if spec in GRADERS:
        return GRADERS[spec]
    if ":" not in spec:
        raise ConfigError(
            f"task.grader={spec}: must be one of {', '.join(GRADERS)}, or module:function"
            f"{did_you_mean(spec, GRADERS)}"
        )
    return functools.partial(_grade_by_function, import_named(spec, "task.grader", "function"))


def check_grader(task: TaskConfig) -> None:
    """Refuse a grader that does not exist before any work is done.

    Raises:
        ConfigError: As `make_grader`.
    """
    make_grader(task.grader)


def grade(task: TaskConfig, text: str, answer: str | None) -> Grade:
    """The grade of one completion, in this process and without a time limit (``GradingPool`` has one).

    Its reasoning is told apart by the marks that are known, as the text is all there is. An exception of the
    grader becomes ``Grade.error``.

    Raises:
        ConfigError: As `make_grader`.
    """
    said = ReasoningParser().parse_text(text).answer
    return no_answer(task, answer) if said is None else guarded(_cached_grader(task.grader), said, answer)


def no_answer(task: TaskConfig, answer: str | None) -> Grade:
    """The grade of a completion whose reasoning did not end."""
    if answer is None or task.grader == "none":
        return Grade(None, None)
    correct = None if task.grader in UNDECIDED else False
    return Grade(correct, None, score=0.0 if task.grader in SCORED else None)


def guarded(grader: Grader, text: str, answer: str | None) -> Grade:
    """The grader's verdict, or its exception as an error."""
    try:
        return grader(text, answer)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # math-verify's own timeout and sys.exit() are no Exceptions.
        return Grade(None, None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


_cached_grader = functools.lru_cache(maxsize=8)(make_grader)


def grade_none(text: str, answer: str | None) -> Grade:
    """No grade."""
    return Grade(None, None)


def grade_exact(text: str, answer: str | None) -> Grade:
    """The final answer, or the whole text, is the reference but for space and case."""
    extracted = final_text(text)
    if answer is not None and same_text(text, answer):
        extracted = text.strip()
    if answer is None or extracted is None:
        return Grade(None if answer is None else False, extracted)
    return Grade(same_text(extracted, answer), extracted)


def grade_choice(text: str, answer: str | None) -> Grade:
    """The letter A to J that the completion settles on."""
    extracted = final_choice(text)
    return Grade(None if answer is None else extracted == choice_letter(answer), extracted)


def grade_math(text: str, answer: str | None) -> Grade:
    r"""Mathematical equality of the last ``\boxed{}``, or else of the answer that is stated last."""
    extracted = math_answer(text)
    if answer is None or extracted is None:
        return Grade(None if answer is None else False, extracted)
    # Brings SymPy, which only this grader needs.
    from seer_ray.tasks.equality import same_answer

    return Grade(same_answer(reference_answer(answer), extracted), extracted)


def grade_contains_all(text: str, answer: str | None) -> Grade:
    """The share of the references that stand in the text; right with all of them."""
    if answer is None:
        return Grade(None, None)
    wanted = references(answer)
    found = found_in(text, wanted)
    return Grade(len(found) == len(wanted), ", ".join(found) or None, score=len(found) / len(wanted))


def grade_contains_any(text: str, answer: str | None) -> Grade:
    """One of the references stands in the text."""
    if answer is None:
        return Grade(None, None)
    found = found_in(text, references(answer))
    return Grade(bool(found), found[0] if found else None, score=float(bool(found)))


def grade_f1(text: str, answer: str | None) -> Grade:
    """Words in common with the nearest reference; right if it is that one but for case, articles, marks."""
    said = text.strip() or None
    if answer is None or said is None:
        return Grade(None if answer is None else False, said, score=None if answer is None else 0.0)
    wanted = references(answer)
    correct = normalised(said) in map(normalised, wanted)
    return Grade(correct, said, score=1.0 if correct else token_f1(said, wanted))


def grade_rouge_l(text: str, answer: str | None) -> Grade:
    """ROUGE-L against the nearest reference; a summary is neither right nor wrong."""
    said = text.strip() or None
    if answer is None:
        return Grade(None, said)
    return Grade(None, said, score=0.0 if said is None else rouge_l(said, references(answer)))


def _grade_by_function(function: Callable[[str, str], Any], text: str, answer: str | None) -> Grade:
    """A user's verdict: right or wrong, or the answer (to be compared as text), or None for no answer."""
    if answer is None:
        return Grade(None, final_text(text))
    verdict = function(text, answer)
    if verdict is None:
        return Grade(False, None)
    if isinstance(verdict, str):
        return Grade(same_text(verdict, answer), verdict)
    if hasattr(verdict, "item"):  # The bool of NumPy or torch.
        verdict = verdict.item()
    if isinstance(verdict, bool):
        return Grade(verdict, final_text(text))
    raise TypeError(
        f"the grader returned {verdict!r}; must be True or False, the extracted answer, or None for no answer"
    )


GRADERS: dict[str, Grader] = {
    "math": grade_math,
    "choice": grade_choice,
    "exact": grade_exact,
    "contains_all": grade_contains_all,
    "contains_any": grade_contains_any,
    "f1": grade_f1,
    "rouge_l": grade_rouge_l,
    "none": grade_none,
}
SCORED = ("contains_all", "contains_any", "f1", "rouge_l")
"""Graders that give scores, and take several references."""
UNDECIDED = ("rouge_l",)
"""Those by which nothing is right or wrong."""
