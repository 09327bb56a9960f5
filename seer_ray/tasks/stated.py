r"""The mathematical answer of a completion: boxed, behind ``####``, in ``<answer>``, after "answer is",
else the last number or formula.

What is taken is taken whole, up to where prose begins: ``5 hours 30 minutes`` is not its 5.
"""

from __future__ import annotations

import re

from seer_ray.tasks.extraction import after_hashes, last_boxed, own_turn, tagged
from seer_ray.tasks.units import MAGNITUDES, UNITS, quantity

WINDOW = 4000
"""Characters at the end of a completion that are searched for an answer that is not marked."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE_BOX = re.compile(r"\s*([^\s{$\\]|\\(?!\)|\])[A-Za-z]+)([^\n$]*?)(?=\$|\\\)|\\\]|[.,;]?\s|[.,;]?$)")
_STATEMENT = re.compile(
    r"(?:\banswers?\b[*_`]{0,3}(?:\s+(?:to|of|for|in)\b[^.:\n]{1,80}?)?(?:\s+(?:therefore|then|thus|here|now))?"
    r"\s*(?:\bis\b|\bare\b|\bequals\b|[:：=])|\bfinal answer\b[*_`]{0,3}[ \t]*(?=\n)"
    r"|答案[是为為]?|答え[はが]?|정답[은]?)"
    r"[\s:：*_`]*",
    re.IGNORECASE,
)
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)"
    # A dollar sign before a digit may be money: a formula ends tightly and before no digit.
    r"|(?<![\\\w])\$(?P<d>(?![\s$])(?:\\.|[^$\n\\])*?(?<![\s\\]))\$(?!\d)|(?<![\\\w])\$\s(?P<e>[^$\n]+?)\s\$(?!\d)",
    re.DOTALL,
)
_SENTENCE = re.compile(r"[.!?。](?=\s|$|\*|\")|\n")
_PROSE = re.compile(
    r"[\s,]+(?:because|since|as|which|where|so|when|if|for|with|that|after|by|at|on|but|i\s+hope|hence|thus)\b|\s[(\[]?i\.e\.",
    re.IGNORECASE,
)
_FILLERS = re.compile(
    r"(?:(?:clearly|therefore|thus|then|hence|simply|just|indeed|now|also|the|an?|number|value|integer|equal|to|of|"
    r"found|given|by|be|exactly|total|is|just|likely)\s+)+(?=\S*[\d$\\√π∞½¼¾])",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:whether|if|check|maybe|suppose|assume|let|try|wait|might|perhaps|could)\b", re.IGNORECASE
)
_MATHS = r"\d+\-*/^=<>()\[\]{}|!%°√∛∜π∞±×·÷−–—≤≥≠$€£¥₹\\_.,:⁰¹²³⁴-⁹⁺⁻₀-₉½⅓⅔¼¾⅕-⅞'′"
_TOKEN = re.compile(rf"(?=\S*[\d½⅓⅔¼¾⅕-⅞π∞])(?:[A-Za-z]{{0,2}}[{_MATHS}])+[A-Za-z]{{0,2}}[*_`.,;:!?'\")]*")
_UNIT_POWER = re.compile(r"[A-Za-z]{1,3}\^?\{?[23²³]\}?[.,;:!?]*")
_OPERATOR = re.compile(r"[-+*/=<>^±×·÷−–≤≥≠]|\\[a-z]+")
_VARIABLE = re.compile(r"[b-zB-HJ-Z]")
_AFTER = frozenset((*MAGNITUDES, "percent", "squared", "cubed", "factorial"))


def math_answer(completion: str) -> str | None:
    """The answer as it is written; None: the completion gives none."""
    text = own_turn(completion)
    if group := last_boxed(text):
        return ", ".join(_bare(piece) for piece in group)
    if boxed := list(_BOX.finditer(text)):
        bare = _BARE_BOX.match(text, boxed[-1].end())
        return (
            bare[1] + bare[2] if bare else None
        )  # A box that was cut off is no answer, and no other was meant.
    if (hashed := after_hashes(text)) is not None:
        return _shown(hashed)
    if tags := tagged(text):
        return _shown(tags[-1][2])
    text = text[-WINDOW:]
    return _stated(text) or _last(text)


def reference_answer(answer: str) -> str:
    """The answer of a reference, which may be a whole solution."""
    if last_boxed(answer) or (
        re.search(r"\$|\\\(|\\\[", answer) and len(re.findall(r"[A-Za-z]{2,}", answer)) > 12
    ):
        return math_answer(answer) or answer
    if (hashed := after_hashes(answer)) is not None:
        # GSM8K's, which is a number.
        return re.sub(r"(?<=\d),(?=\d{3})", "", hashed)
    return answer


def _bare(latex: str) -> str:
    return " ".join(latex.split()).strip("$").strip()


def _shown(text: str) -> str:
    """Without the marks around it, and without words after a plain number."""
    text = " ".join(_FORMULA.sub(_inside, text).split()).strip("*_` ").rstrip(".,;:")
    found = quantity(text)
    plain = found.factor == 1 and re.fullmatch(r"-?[\d,.]*\d", found.number)
    return found.number if plain and "\\" not in text and "%" not in text else text


def _inside(formula: re.Match[str]) -> str:
    return f" {next(group for group in formula.groups() if group is not None)} "


def _stated(text: str) -> str | None:
    """What the last "answer is" says."""
    for statement in reversed(list(_STATEMENT.finditer(text))):
        clause = _FILLERS.sub("", _clause(text[statement.end() :]), count=1).strip()
        if re.match(r"(?:not|n't|none|neither)\b", clause):
            continue
        if clause := _shown(clause):
            return clause
    return None


def _clause(text: str) -> str:
    """Up to where the sentence ends or goes on as prose; what stands in formulas is not looked into."""
    end = 0
    while True:
        formula = _FORMULA.search(text, end)
        limit = formula.start() if formula else len(text)
        stops = [
            stop.start() for pattern in (_SENTENCE, _PROSE) if (stop := pattern.search(text, end, limit))
        ]
        if stops:
            return text[: min(stops)]
        if formula is None:
            return text
        end = formula.end()


def _last(text: str) -> str | None:
    """The last formula or number, if it is not merely supposed in a sentence that was cut off."""
    formulas = list(_FORMULA.finditer(text))
    number = _last_number(text, [formula.span() for formula in formulas])
    start = max(number[0] if number else -1, formulas[-1].start() if formulas else -1)
    if start < 0:
        return None
    sentence = _SENTENCE.split(text.rstrip())[-1]
    if sentence.strip(" *_`$)") and len(sentence) > len(text.rstrip()) - start and _SUPPOSED.search(sentence):
        return None
    if number and number[0] == start:
        return number[1]
    return _bare(_inside(formulas[-1]))


def _last_number(text: str, taken: list[tuple[int, int]]) -> tuple[int, str] | None:
    """(where, the last number in plain text with all that belongs to it)."""
    masked = list(text)
    for start, end in taken:
        masked[start:end] = "\0" * (end - start)
    words = [(m.start(), m.end(), m[0].strip('*_`"')) for m in re.finditer(r"[^\s\0]+", "".join(masked))]
    last = next((i for i in reversed(range(len(words))) if _TOKEN.fullmatch(words[i][2])), None)
    if last is None:
        return None
    if last and _UNIT_POWER.fullmatch(words[last][2]) and _TOKEN.fullmatch(words[last - 1][2]):
        last -= 1  # 24 cm^2
    first, final = last, last
    while first > 0 and _joined(words, first):
        first -= 1 if not _compound(words, first) else 2
    while final + 1 < len(words) and _goes_on(words, final):
        final += 1
    if first and words[first - 1][2].lower() == "not":
        return None
    run = " ".join(word for _, _, word in words[first : final + 1]).strip("=").strip().rstrip(".,;:!?'\"")
    if run.count(")") > run.count("("):
        run = run.rstrip(")")
    right = run.rpartition("=")[2].strip()
    if re.search(r"\d", right) and not re.search(r"[A-Za-z]", right):
        run = right
    currency = re.fullmatch(r"([-+−]?)[$€£¥₹]([\d,.]+)", run)
    return words[first][0], currency[1] + currency[2] if currency else run


def _joined(words: list[tuple[int, int, str]], index: int) -> bool:
    """Whether a word belongs to what stands before it."""
    before, word = words[index - 1][2], words[index][2]
    if _OPERATOR.fullmatch(before):
        return index > 1
    if _OPERATOR.fullmatch(word):
        return bool((_TOKEN.fullmatch(before) and before[-1] not in ".,;:!?") or _VARIABLE.fullmatch(before))
    if re.fullmatch(r"-?\d+", before) and re.match(r"\d+/\d+|\d{3}(?!\d)", word):
        return True  # 1 1/4, 10 000
    if before.startswith(("(", "[", "{")) and before.endswith(",") and before.count("(") > before.count(")"):
        return True
    return _compound(words, index)


def _compound(words: list[tuple[int, int, str]], index: int) -> bool:
    """Whether a number follows another and its unit, 5 hours 30, or ends a range, 10 to 12."""
    if index < 2 or not re.fullmatch(r"[\d.,]*\d", words[index - 2][2]):
        return False
    unit = words[index - 1][2].strip(",").lower()
    ends = unit == "to" and (index < 3 or words[index - 3][2].lower() != "from")
    return ends or unit in UNITS or unit.removesuffix("s") in UNITS


def _goes_on(words: list[tuple[int, int, str]], index: int) -> bool:
    word, after = words[index][2], words[index + 1][2].strip(".,;:!?").lower()
    if word[-1] in ".,;:!?":
        return False
    if _OPERATOR.fullmatch(word):
        return True
    following = words[index + 2][2] if index + 2 < len(words) else ""
    return (
        after in _AFTER
        or (
            _OPERATOR.fullmatch(after) is not None
            and _VARIABLE.fullmatch(following.strip(".,;:!?")) is not None
        )
        or (after == "or" and following.strip(".").lower() in ("more", "less", "fewer", "greater"))
        or (word == "or" and after in ("more", "less", "fewer", "greater"))
    )
