r"""An answer as what it is: a value, words, a list, a set, a tuple or an interval, a relation.

All of it is read, or none: what LaTeX does not explain has no value, and is compared as text alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from sympy import Symbol, Tuple

from seer_ray.tasks.notation import to_latex
from seer_ray.tasks.symbolic import parse
from seer_ray.tasks.units import Quantity, Unit, is_total, quantity


@dataclass(frozen=True)
class Value:
    """One value that an answer may have, a SymPy object, exact where it was written exactly.

    Args:
        rounded: It was written with a decimal point.
    """

    expr: Any
    unit: Unit | None = None
    rounded: bool = False


@dataclass(frozen=True)
class Leaf:
    r"""An answer that is no collection.

    Args:
        plain: As text that can be compared, whoever wrote it.
        words: It is made of words.
        name: What it is said to be the value of, ``x`` in ``x = 5``.
        values: The exact one, and what is said to be near it; none: it is words, or cannot be read.
        relation: All of it, if it is an equation or an inequality.
    """

    plain: str
    words: bool = False
    name: str | None = None
    values: tuple[Value, ...] = ()
    relation: Any = None


@dataclass(frozen=True)
class Collection:
    """Several answers: a list has no brackets and no order, a set no order, a tuple or interval both.

    Args:
        joint: What stands between the items of a list.
    """

    kind: Literal["list", "set", "tuple"]
    brackets: str
    items: tuple[Answer, ...]
    joint: Literal["", "and", "or"] = ""


Answer = Leaf | Collection

_ALIASES = {
    "allrealnumbers": r"\mathbb{R}",
    "allreals": r"\mathbb{R}",
    "realnumbers": r"\mathbb{R}",
    "nosolution": r"\emptyset",
    "nosolutions": r"\emptyset",
    "norealsolution": r"\emptyset",
    "norealsolutions": r"\emptyset",
    "emptyset": r"\emptyset",
}
_OPEN = re.compile(r"\\\{|\\begin\{\w+\}|[({\[]")
_CLOSE = re.compile(r"\\\}|\\end\{\w+\}|[)}\]]")
_STEP = re.compile(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+|\\?.", re.DOTALL)
_JOINTS = re.compile(
    r"(?P<comma>[,;])|(?P<word>\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))"
)
MAX_SIGNS = 4
r"""Of ``\pm`` in one answer: each doubles it."""
_COMMAS = re.compile(r"[,;]")
_EQUALS = re.compile(r"(?<![<>!])=")
_BRACKETS = {r"\{": (r"\}",), "(": (")", "]"), "[": (")", "]")}
_THOUSANDS = re.compile(
    r"(?:[^,;=]*=\s*)?[-+]?(?:\\?[$€£¥₹])?\s*\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])(?:\s*[^\d,;]*)"
)
_LISTED = re.compile(r"\d{3}(?:,\d{3})*,(?!000)\d{3}")
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
_FRENCH = re.compile(r"([\[\]])([^\[\](){},;]+[,;][^\[\](){},;]+)([\[\]])")
_INEQUALITY = re.compile(r"<|>|\\(?:le|ge|neq)(?![A-Za-z])")
_BASED = re.compile(r"\(?(\d+)\)?\s*_\s*\{?\s*(?:\\text\{\s*)?(?:base\s*)?(\w+)\s*\}*")
_BASES = {
    word: str(base)
    for base, word in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2)
}
_LABEL = re.compile(
    r"\\text\s*\{[^{}]*(?::|=|\bis)\s*\}\s*|"
    r"(?i:approximately|about|roughly|exactly)\s+(?=[\d\\$-])|"
    r"(?i:(?:the\s+)?(?:final\s+)?answer(?:\s+is\s*:?|\s*:)\s*)"
)
_NEAR = re.compile(r"\\(?:approx|sim|doteq)(?![A-Za-z])")


def read(text: str, letters: bool = False, reference: bool = False) -> list[Answer]:
    """What an answer may mean, the likeliest first: a comma may stand in a number or in a list.

    Args:
        text: As it was written, without the box or the dollar signs around it.
        letters: As in `seer_ray.tasks.units.quantity`.
        reference: Of two readings, only the one that data sets mean.
    """
    latex = _tidy(to_latex(text))
    if is_total(latex):
        return [_leaf(latex, letters)]
    joined = _GROUPS.sub(lambda match: match[0].replace(",", ""), latex)
    if _THOUSANDS.fullmatch(latex):
        if reference:
            return [_collect(latex if _LISTED.fullmatch(latex) else joined, letters)]
        return [_collect(joined, letters), _collect(latex, letters)]
    if re.fullmatch(r"-?0,\d+", latex):
        return [_collect(latex.replace(",", "."), letters)]
    if not reference and re.fullmatch(r"-?\d+,\d+", latex):
        return [_collect(latex, letters), _collect(latex.replace(",", "."), letters)]
    # In 1,000, 2,000 the commas without a space are within numbers.
    return [
        _collect(joined if re.search(r"\d,\s|\d\s*(?:\\text\{\s*)?(?:and|or)\b", latex) else latex, letters)
    ]


def plain(latex: str) -> str:
    r"""What is the same whoever wrote it: ``\left( \dfrac12 \right)`` as ``(\frac12)``."""
    latex = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", latex)
    latex = re.sub(r"(?<!\\)\{(\w)\}", r"\1", latex).replace("–", "-")
    return re.sub(r"\s+(?!\d)|(?<!\d)\s+", "", latex).strip("$*`.")


def _tidy(latex: str) -> str:
    latex = re.sub(r"\\?\$(?=\d|\\|\.)", "\\\\$", latex.strip(' *`"'))
    latex = re.sub(r"(?<!\\)\$", " ", re.sub(r"\\[()\[\]](?![A-Za-z])", " ", latex))
    latex = latex.replace(r"\boxed", "").strip().rstrip(".,;").strip()
    if plain(latex).casefold() in _ALIASES:
        return _ALIASES[plain(latex).casefold()]
    latex = re.sub(r"^\\text\s*\{\s*\((\w)\)\s*\}$", r"\1", latex)
    return _FRENCH.sub(_from_french, _LABEL.sub("", latex))


def _from_french(match: re.Match[str]) -> str:
    if match[1] == "[" and match[3] == "]":
        return match[0]
    return f"{'(' if match[1] == ']' else '['}{match[2]}{')' if match[3] == '[' else ']'}"


def _split(latex: str, separator: re.Pattern[str]) -> tuple[list[str], list[re.Match[str]]]:
    """Pieces between separators that stand in no bracket, and the separators."""
    pieces, joints, depth, start, index = [], [], 0, 0, 0
    while index < len(latex):
        if match := (_OPEN.match(latex, index) or _CLOSE.match(latex, index)):
            if not depth and (joint := separator.match(latex, index)):
                match = joint
            else:
                depth += 1 if _OPEN.match(latex, index) else -1
                index = match.end()
                continue
        elif not depth and (joint := separator.match(latex, index)):
            match = joint
        else:
            step = _STEP.match(latex, index)
            index = step.end() if step else index + 1
            continue
        pieces.append(latex[start:index])
        joints.append(match)
        start = index = match.end()
    return [*pieces, latex[start:]], joints


def _collect(latex: str, letters: bool) -> Answer:
    """A list, or what is no list."""
    pieces, joints = _split(latex, _JOINTS)
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    if len(pieces) < 2:
        found = _items(pieces[0] if pieces else latex, letters)
        return found[0] if len(found) == 1 else Collection("list", "", tuple(found))
    words = [re.sub(r"[^a-z]|text", "", joint["word"].lower()) for joint in joints if joint["word"]]
    items = [item for piece in pieces for item in _items(piece, letters)]
    return Collection("list", "", tuple(items), "or" if "or" in words else "and" if words else "")


def _items(latex: str, letters: bool) -> list[Answer]:
    r"""One piece of a list: two answers if it has a ``\pm``."""
    if not 0 < len(re.findall(r"\\(?:pm|mp)(?![A-Za-z])", latex)) <= MAX_SIGNS:
        return [_item(latex, letters)]
    first = re.search(r"\\pm(?![A-Za-z])", latex)
    if "\\mp" in latex or first is None:
        plus = latex.replace(r"\pm", "+").replace(r"\mp", "-")
        minus = latex.replace(r"\pm", "-").replace(r"\mp", "+")
        return [_item(plus, letters), _item(minus, letters)]
    before, after = latex[: first.start()], latex[first.end() :]
    return [answer for sign in "+-" for answer in _items(before + sign + after, letters)]


def _item(latex: str, letters: bool) -> Answer:
    latex = re.sub(r"^\s*\+\s*", "", latex.strip())
    latex = re.sub(r"([=(,])\s*\+", r"\1", latex)
    if member := re.match(r"[A-Za-z](?:_\w)?\s*\\in(?![A-Za-z])\s*", latex):
        latex = latex[member.end() :]
    sides, _ = _split(latex, _EQUALS)
    if len(sides) == 2 and (group := _group(sides[1].strip(), letters)) is not None:
        return group
    return _group(latex, letters) or _leaf(latex, letters)


def _group(latex: str, letters: bool) -> Collection | None:
    """A set, a tuple or an interval; None: it is neither."""
    opening = next((bracket for bracket in _BRACKETS if latex.startswith(bracket)), None)
    if opening is None:
        return None
    size = len(opening)
    inside, closing = latex[size:-size].strip(), latex[-size:]
    if closing not in _BRACKETS[opening] or not _balanced(inside):
        return None
    if opening == r"\{":
        condition = re.split(r"\\mid(?![A-Za-z])|\||:", inside, maxsplit=1)
        if len(condition) == 2 and _INEQUALITY.search(condition[1]):
            return Collection("list", "", (_collect(condition[1].strip(), letters),))
    pieces, _ = _split(inside, _COMMAS)
    items = [item for piece in pieces if piece.strip() for item in _items(piece, letters)]
    if size == 2:
        return Collection("set", "{}", tuple(items))
    return Collection("tuple", opening + closing, tuple(items)) if len(items) > 1 else None


def _balanced(text: str) -> bool:
    depth, index = 0, 0
    while index < len(text):
        if match := _OPEN.match(text, index):
            depth += 1
        elif match := _CLOSE.match(text, index):
            depth -= 1
            if depth < 0:
                return False
        index = match.end() if match else index + 1 + (text[index] == "\\")
    return depth == 0


def _leaf(latex: str, letters: bool) -> Leaf:
    text = plain(latex)
    if _INEQUALITY.search(latex):
        return Leaf(text, relation=parse(latex))
    words = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", latex).strip()
    if re.fullmatch(r"\(?[^\W\d_](?:[^\W\d_]|[\s'’.&/()-])+", words) and re.search(r"[^\W\d_]{2}", words):
        short = len(words) < 4 and words.isalpha() and words == latex
        return Leaf(re.sub(r"[\s.()]", "", words), True, values=_values(latex) if short else ())
    sides, _ = _split(latex, _EQUALS)
    right = sides[-1].strip()
    exact, *near = (part.strip() for part in _NEAR.split(right))
    if near and len(sides) == 1 and _is_name(exact):
        # x ≈ 1.41
        return Leaf(text, name=plain(exact), values=_read_value(near[-1], letters))
    values = (*_read_value(exact, letters), *(v for part in near for v in _read_value(part, letters)))
    if len(sides) == 1:
        return Leaf(text, values=values)
    left = sides[0].strip()
    if _is_name(left):
        return Leaf(text, name=plain(left), values=values, relation=parse(f"{left} = {exact}"))
    if len(sides) == 2 and _is_name(exact):
        return Leaf(text, name=plain(exact), values=_read_value(left, letters), relation=parse(latex))
    # An equation that is solved for 0 says nothing of 0.
    return Leaf(text, values=() if plain(right) == "0" else values, relation=parse(f"{left} = {exact}"))


def _is_name(latex: str) -> bool:
    r"""Whether it is what a value is given for: ``x``, ``f(x)``, ``\angle ABC``, ``\text{Area}``."""
    outside = re.sub(
        r"\([^()]*\)|\{[^{}]*\}|_\w|\^\{?-1\}?|'", "", re.sub(r"\\text\s*\{[^{}]*\}", "a", latex)
    )
    return bool(outside.strip()) and re.search(r"[-+*/^\d<>]|\\(?:cdot|times|div|sqrt)", outside) is None


def _read_value(latex: str, letters: bool) -> tuple[Value, ...]:
    based = _BASED.fullmatch(latex)
    base = _BASES.get(based[2], based[2]) if based else ""
    if based and base.isdigit() and int(max(based[1])) < int(base):
        # Digits of another base are compared as digits.
        return _values(based[1], Unit(((f"base {base}", 1),)))
    # The degrees of a function's argument are part of it.
    found = (
        Quantity(latex) if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", latex) else quantity(latex, letters)
    )
    if not found.clean:
        return ()
    values = _values(found.number, found.unit)
    if found.factor == 1:
        return values
    return tuple(Value(value.expr * found.factor, value.unit, value.rounded) for value in values)


def _values(latex: str, unit: Unit | None = None) -> tuple[Value, ...]:
    latex = re.sub(r"(\d\.\d+)\s*\\ldots$", r"\1", latex.strip())
    rounded = re.search(r"\d\.\d", latex) is not None
    expr = _ratio(latex) if re.fullmatch(r"[^:]+(?::[^:]+)+", latex) else parse(latex)
    return () if expr is None else (Value(expr, unit, rounded),)


def _ratio(latex: str) -> Any:
    """A ratio as a tuple of its terms; a time of day with a head of its own."""
    terms = [parse(term) for term in latex.split(":")]
    if any(term is None for term in terms):
        return None
    clock = re.fullmatch(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?", latex.strip())
    return Tuple(*([Symbol("clock")] if clock else []), *terms)
