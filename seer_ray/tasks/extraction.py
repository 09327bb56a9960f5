r"""Where a completion without its reasoning has its answer: in ``\boxed{}``, behind ``####``, "answer is"."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BETWEEN_BOXES = re.compile(r"[\s$]*(?:\\\)|\\\])?[\s$]*(?:,|,?\s*and|,?\s*or)[\s$]*(?:\\\(|\\\[)?[\s$]*")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ANSWER_IS = re.compile(
    r"\banswer[ \t]*(?:is[ \t]*:?|:)[ \t]*(?:\*\*)?[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE
)

_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+\s*")
_LETTER_FIRST = re.compile(r"\W*([A-Ja-j])\s*(?=$|[^\w\s'’])")
_LETTER_ANSWER = re.compile(
    # "The correct answer is therefore (B)", "Answer: **B**", but not "the answer is I think".
    r"(?i:\banswer\b)[^.\n]{0,60}?(?i:\bis\b|:)\W{0,10}(?i:(?:option|choice)\s+)?\W{0,5}"
    r"([A-HJ]|I(?!\s+[a-z]))(?![\w'’])"
)
_LETTER_LINE = re.compile(r"^\W{0,4}([A-J])\W{0,4}$", re.MULTILINE)
_LETTER_MARKED = re.compile(r"(?:^|(?<=\s))[(*]{0,3}([A-J])[).:*](?!\w)|\(([A-J])\)", re.MULTILINE)


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""(start, end, content) of every complete, outermost, non-empty ``\boxed{}``, in order. Linear time."""
    found: list[tuple[int, int, str]] = []
    open_braces: list[tuple[int, int] | None] = []
    for match in _BOX.finditer(text):
        token = match[0]
        if token.endswith("{") and token != "\\{":
            open_braces.append((match.start(), match.end()) if len(token) > 1 else None)
        elif token == "}" and open_braces:
            box = open_braces.pop()
            if box is None or not (content := text[box[1] : match.start()].strip()):
                continue
            while found and found[-1][0] > box[0]:
                found.pop()
            found.append((box[0], match.end(), content))
    return found


def last_boxed(text: str) -> list[str]:
    r"""The content of the last ``\boxed{}``, and of those that "and", "or" or a comma joins to it."""
    group: list[str] = []
    start = 0
    for box_start, box_end, content in reversed(boxes(text)):
        if group and not _BETWEEN_BOXES.fullmatch(text[box_end:start]):
            break
        group.insert(0, content)
        start = box_start
    return group


def after_hashes(text: str) -> str | None:
    """``18`` of the last line ``#### 18``."""
    found = _HASHES.findall(text)
    return found[-1] if found else None


def final_text(text: str) -> str | None:
    r"""The answer as a piece of text: boxed, after ``####``, after "answer is", else the last line."""
    if group := last_boxed(text):
        return ", ".join(group)
    if (hashed := after_hashes(text)) is not None:
        return hashed
    if stated := _ANSWER_IS.findall(text):
        return stated[-1].rstrip("*").removesuffix(".").rstrip("*").strip() or None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def choice_letter(answer: str) -> str | None:
    r"""The letter A to J that an answer such as ``C``, ``(c)``, ``\text{C}`` or ``C. Paris`` begins with."""
    match = _LETTER_FIRST.match(_LATEX_COMMAND.sub("", answer))
    return match[1].upper() if match else None


def final_choice(text: str) -> str | None:
    """The letter that a completion chooses; None if it names none, or several and no last word."""
    if group := last_boxed(text):
        return choice_letter(group[-1])
    if stated := _LETTER_ANSWER.findall(text):
        return stated[-1]
    if alone := _LETTER_LINE.findall(text):
        return alone[-1]
    marked = {match[1] or match[2] for match in _LETTER_MARKED.finditer(text)}
    return marked.pop() if len(marked) == 1 else None


def same_text(first: str, second: str) -> bool:
    """Equality but for white space and case."""
    return " ".join(first.split()).casefold() == " ".join(second.split()).casefold()
