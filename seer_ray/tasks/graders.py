"""One completion against one reference answer."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.extraction import (
    after_hashes,
    choice_letter,
    final_choice,
    final_text,
    last_boxed,
    same_text,
)
from seer_ray.tasks.thinking import ReasoningParser

ANSWER_WINDOW = 4000
"""Characters at the end of a completion that are searched for an answer that is not marked: what a search of
all of a long chain costs grows with the square of its length."""


@dataclass(frozen=True)
class Grade:
    """What grading found."""

    correct: bool | None
    """None: not graded, because there is no reference, or for the reason in ``error``."""
    extracted: str | None
    """The answer that the completion gives; None: it gives none."""
    error: str | None = None


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
    return functools.partial(_grade_by_function, _load_function(spec))


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
    return Grade(None if answer is None or task.grader == "none" else False, None)


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
    r"""Mathematical equality by math-verify, of the last ``\boxed{}`` or else what its own search finds."""
    extracted, parsed = _find_math(text)
    if answer is None or extracted is None:
        return Grade(None if answer is None else False, extracted)
    reference, gold = _find_math(answer, reference=True)
    if reference is not None and _plain(reference) == _plain(extracted):
        return Grade(True, extracted)
    # No time limit here: math-verify takes what ran out of time for wrong. The grading process has one.
    return Grade(bool(_math_verify().verify(gold, parsed, timeout_seconds=None)), extracted)


def _find_math(text: str, reference: bool = False) -> tuple[str | None, list[Any]]:
    """(answer as written, as math-verify's list of what it may mean); (None, []) if there is none."""
    if group := last_boxed(text):
        return _parse_latex(group)
    hashed = after_hashes(text)
    if reference:
        text = text.replace(r"\$", "")  # A currency, not the end of a formula.
    if reference and hashed is None and not re.search(r"\$|\\\(|\\\[", text):
        # A bare answer, such as 18 or \left( 3, \frac{\pi}{2} \right).
        return _parse_latex([text])
    if hashed is not None and ("\\" in hashed or not re.search(r"[A-Za-z]{2}", hashed)):
        # LaTeX, but not 18 dollars.
        return _parse_latex([hashed])
    parsed = _parse(text[-ANSWER_WINDOW:] if hashed is None else hashed)
    # Its expressions take the markup around them along: **18** is 18**.
    shown = str(parsed[-1]).strip(" *") if parsed else hashed
    return shown or None, parsed


def _parse_latex(pieces: list[str]) -> tuple[str, list[Any]]:
    pieces = [" ".join(piece.split()).strip("$") for piece in pieces]
    return ", ".join(pieces), _parse(" and ".join(f"${piece}$" for piece in pieces))


def _parse(text: str) -> list[Any]:
    return _math_verify().parse(text, parsing_timeout=None)


def _plain(latex: str) -> str:
    r"""What is the same whoever wrote it: ``\left( \dfrac12 \right)`` as ``(\frac12)``."""
    latex = re.sub(r"\\(?:left|right)(?![A-Za-z])|\\[,!;: ]", "", latex).replace(r"\dfrac", r"\frac")
    return re.sub(r"\s+", "", latex).strip("$").rstrip(".")


@functools.cache
def _math_verify() -> Any:
    """The library, quiet. Imported at first use: it brings SymPy."""
    import math_verify

    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return math_verify


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


def _load_function(spec: str) -> Callable[[str, str], Any]:
    module_name, _, name = spec.partition(":")
    try:
        with _current_folder_on_path():
            module = importlib.import_module(module_name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            f"task.grader={spec}: module '{module_name}' cannot be imported: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        near = did_you_mean(name, dir(module))
        raise ConfigError(f"task.grader={spec}: module '{module_name}' has no function '{name}'{near}")
    return function


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """A command, unlike ``python script.py``, does not look for modules where it is run."""
    folder = os.getcwd()
    if {folder, ""} & set(sys.path):
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


GRADERS: dict[str, Grader] = {
    "math": grade_math,
    "choice": grade_choice,
    "exact": grade_exact,
    "none": grade_none,
}
