r"""Where a completion without its reasoning has its answer: in ``\boxed{}``, behind ``####``, "answer is"."""

from __future__ import annotations

import re
import unicodedata

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BETWEEN_BOXES = re.compile(r"[\s$]*(?:\\\)|\\\])?[\s$]*(?:,|,?\s*and|,?\s*or)[\s$]*(?:\\\(|\\\[)?[\s$]*")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_ANSWERED = (_HASHES, re.compile(r"^\W{0,4}answer\W{0,3}:\W{0,4}\w", re.IGNORECASE | re.MULTILINE))
_NEXT_QUESTION = re.compile(
    r"^\W{0,4}(?:question|problem|q|human|user|instruction|exercise)\W{0,3}:", re.IGNORECASE | re.MULTILINE
)
_ANSWER_IS = re.compile(
    r"\banswer[ \t]*(?:is[ \t]*:?|:)[ \t]*(?:\*\*)?[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE
)

_STYLED = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|sf|it)|mbox|rm|bf)\s*\{([^{}]*)\}")
_A_LETTER = (
    # A and I before another word are words, unless the word begins a reason.
    r"(?:([B-HJ]|[AI](?!\s+(?!because|since|as\b|for\b|due|which|but|with)[a-z]))(?![\w^+=]|['’]\w)"
    r"|([a-j])(?=\s*(?:[).,;:\]]|$)))"
    # Of A or B, none is chosen.
    r"(?!\)?\s*(?:or|and|nor|/|&|,)\s*\(?[A-J]\b)"
)
_BEFORE = (
    r"(?:\s+(?i:therefore|thus|then|clearly|(?:most\s+)?likely|probably|simply|indeed))?"
    r"[^\w\n]{0,8}(?:(?i:option|choice|answer|letter)\s*)?[^\w\n]{0,5}"
)
_RIGHT = (
    r"(?i:(?:(?:therefore|thus|clearly|indeed)\s+)?(?:the\s+)?"
    r"(?:only\s+|most\s+|best\s+)?(?:correct|right|best|appropriate|answer))\b(?!-|\s+of\b)"
)
_CHOSEN = [
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        "\x01([A-J])\x02",
        # "The correct answer is therefore (B)", "Answer: B", but not "the answer is I think".
        r"(?i:\banswer\b)[^.\n]{0,60}?(?i:\bis\b|\bbe\b|[:=]|\n)" + _BEFORE + _A_LETTER,
        r"(?i:\b(?:correct|right|best|final|my)\s+(?:choice|option|selection|pick)\b)[^.\n]{0,40}?(?i:\bis\b|:)"
        + _BEFORE
        + _A_LETTER,
        r"\b(?i:it(?:\s+is|'s|\s+must\s+be)|(?:choice|selection|selected|pick)\s*:)" + _BEFORE + _A_LETTER,
        r"(?i:\b(?:correct|right|best)\s+(?:answer|choice|option))\s*,?\s*\(?" + _A_LETTER,
        r"(?i:\b(?:option|choice|answer)\s*)[(\[]?([A-Ja-j])[)\]]?\s+(?:is|must be|would be|seems)\s+"
        + _RIGHT,
        r"(?<![\w'’])\(?([A-J])\)?\s+(?:is|must be)\s+" + _RIGHT,
        r"(?<!not )(?<!n't )(?<!never )\b(?i:choose|select|pick|chose|selected|go with|going with|opt for)\b"
        + _BEFORE
        + _A_LETTER,
        r"(?:答案|正确选项|答え|正解|정답)[^\nA-Za-z。]{0,12}?\(?([A-Ja-j])(?![A-Za-z])",
        r"(?:选择?|選択?|選擇)\s*:?\s*\(?([A-J])(?![A-Za-z])",
        r"(?i:\b(?:respuesta|réponse|antwort|risposta|resposta)\b|\bответ\b)[^.\n]{0,40}?(?:\b(?:es|est|ist|è|é)\b|:|-)"
        + _BEFORE
        + _A_LETTER,
    )
]
_LETTER_FIRST = re.compile(
    r"[\s\"'“‘<]*"
    r"(?i:(?:the\s+)?(?:correct\s+|final\s+)?(?:answer|option|choice|答案|选项)\s*(?:is|是)?\s*:?\s*)?"
    r"(?:[(\[]\s*([A-Ja-j])\s*[)\]](?!\s*[-+*/^=_])"
    r"|([A-Ja-j])(?=\s*$|\)(?!\s*[-+*/^=_])|[.:、。](?!\d)|,(?!\s*[A-Za-z]\b)|[!\"'”’>])"
    r"|([A-J])(?=\s+[-–—(]\s*[A-Za-z]{2}))"
)
_LETTER_LINE = re.compile(r"^\W{0,4}([A-J])\W{0,4}$")
_LETTER_MARKED = re.compile(
    r"^[^\w\n]{0,3}([A-J])[).:](?!\w)|\(([A-J])\)|(?<!not )\b(?i:option|choice)\s+([A-J])\b", re.MULTILINE
)


def own_turn(text: str) -> str:
    """What a completion says up to the next question that it goes on to ask itself."""
    answered = [found.end() for pattern in _ANSWERED if (found := pattern.search(text))]
    answered += [end for found in (boxes(text), tagged(text)) for _, end, _ in found[:1]]
    turn = _NEXT_QUESTION.search(text, min(answered)) if answered else None
    return text[: turn.start()] if turn else text


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


def tagged(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every ``<answer>...</answer>`` that is not empty, in order. Linear time."""
    found: list[tuple[int, int, str]] = []
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opened = tag
        elif opened is not None:
            if content := text[opened.end() : tag.start()].strip():
                found.append((opened.start(), tag.end(), content))
            opened = None
    return found


def final_text(text: str) -> str | None:
    r"""The answer as a piece of text: boxed, after ``####``, after "answer is", else the last line."""
    text = own_turn(text)
    if group := last_boxed(text):
        return ", ".join(group)
    if tags := tagged(text):
        return tags[-1][2]
    if (hashed := after_hashes(text)) is not None:
        return hashed
    if stated := _ANSWER_IS.findall(text):
        return stated[-1].rstrip("*").removesuffix(".").rstrip("*").strip() or None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def choice_letter(answer: str) -> str | None:
    r"""The letter A to J that an answer such as ``C``, ``(c)``, ``C. Paris`` or ``Option C`` names."""
    match = _LETTER_FIRST.match(_without_markup(answer).strip())
    return match[match.lastindex or 0].upper() if match else None


def final_choice(text: str) -> str | None:
    """The letter that a completion chooses last; None if it names none, or several and no last word."""
    text = own_turn(text)
    for find in (boxes, tagged):
        for start, end, content in reversed(find(text)):
            # A box with a number is a step to the choice, not the choice.
            text = f"{text[:start]}{_chosen(content)}{text[end:]}"
    text = _without_markup(text)
    stated = [
        (match.start(), match[match.lastindex].upper())
        for pattern in _CHOSEN
        for match in pattern.finditer(text)
        if match.lastindex
    ]
    lines = [line for line in text.splitlines() if line.strip()]
    alone = [found[1] for line in lines if (found := _LETTER_LINE.match(line))]
    if stated:
        # A letter alone in the last line has the last word, if it is not the last of a list of them.
        listed = len(lines) > 1 and _LETTER_LINE.match(lines[-2])
        return alone[-1] if not listed and _LETTER_LINE.match(lines[-1]) else max(stated)[1]
    if len(lines) == 1 and (letter := choice_letter(lines[0])):
        return letter
    if alone:
        return alone[-1]
    for part in (text, text.strip().rpartition("\n\n")[2]):
        marked = {match[match.lastindex or 0] for match in _LETTER_MARKED.finditer(part)}
        if len(marked) == 1:
            return marked.pop()
    return None


def _chosen(content: str) -> str:
    """What stands in the text in place of a box or a tag."""
    letter = content[1] if content.startswith("\x01") else choice_letter(content)
    return f" \x01{letter}\x02 " if letter else " "


def _without_markup(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    text = _STYLED.sub(r"\1", _STYLED.sub(r"\1", text))
    text = re.sub(r"\*\*\s*\(?([A-J])\)?\s*\*\*", r"(\1)", text)
    return re.sub(r"\\[()\[\],;:! ]|\\quad|[*`$]|__", "", text)


def same_text(first: str, second: str) -> bool:
    """Equality but for white space and case."""
    return " ".join(first.split()).casefold() == " ".join(second.split()).casefold()
