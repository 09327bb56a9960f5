"""Whether an answer is the reference answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sympy

from seer_ray.tasks.answers import Answer, Collection, Leaf, Value, plain, read
from seer_ray.tasks.notation import to_latex
from seer_ray.tasks.symbolic import as_set, equal, same_set
from seer_ray.tasks.units import DEGREES, PERCENT

MAX_LENGTH = 1000
"""Characters of an answer that is read: what is longer is right only if it is the reference as it stands."""


def same_answer(reference: str, given: str) -> bool:
    """Whether an answer is right.

    Args:
        reference: The reference answer, as data sets have it.
        given: The answer, as it was written.
    """
    if max(len(reference), len(given)) > MAX_LENGTH:
        return "".join(reference.split()) == "".join(given.split())
    gold_text, given_text = to_latex(reference), to_latex(given)
    if plain(gold_text) == plain(given_text) != "":
        return True
    golds = read(reference, letters=not _has_letters(given_text), reference=True)
    answers = read(given, letters=not _has_letters(gold_text))
    return any(_same(gold, answer) for gold in golds for answer in answers)


def _has_letters(latex: str) -> bool:
    """Whether there are variables in it."""
    return (
        re.search(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", re.sub(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+", "", latex))
        is not None
    )


def _same(gold: Answer, given: Answer) -> bool:
    if isinstance(gold, Leaf) and isinstance(given, Leaf):
        return _same_leaf(gold, given) or _same_region(gold, given)
    if isinstance(gold, Leaf) or isinstance(given, Leaf):
        one = next(answer for answer in (gold, given) if isinstance(answer, Collection))
        other = gold if one is given else given
        alone = one.kind in ("set", "list") and len(one.items) == 1 and not isinstance(other, Collection)
        if alone and (_same(one.items[0], other) if one is gold else _same(other, one.items[0])):
            return True
        return _same_region(gold, given)
    if gold.kind == given.kind == "tuple":
        return gold.brackets == given.brackets and _in_order(gold.items, given.items)
    return _same_collection(gold, given) or _same_region(gold, given)


def _same_collection(gold: Collection, given: Collection) -> bool:
    kinds = {gold.kind, given.kind}
    if kinds == {"set", "tuple"}:
        return False
    if "tuple" in kinds:
        bracketed = gold if gold.kind == "tuple" else given
        if bracketed.brackets != "()":
            return False
        ordered = gold.kind == "tuple" or _named(gold.items)
        return _in_order(gold.items, given.items) if ordered else _matched(gold.items, given.items)
    if bool(_named(gold.items)) != bool(_named(given.items)):
        # x = 1, y = 2 and 1, 2
        return _in_order(gold.items, given.items)
    a, b = (_distinct(side.items) if side.kind == "set" else side.items for side in (gold, given))
    return _matched(a, b)


def _named(items: Sequence[Answer]) -> bool:
    """Whether the items are the values of different things."""
    names = {item.name for item in items if isinstance(item, Leaf) and item.name}
    return len(names) == len(items) > 1


def _in_order(gold: Sequence[Answer], given: Sequence[Answer]) -> bool:
    return len(gold) == len(given) and all(_same(a, b) for a, b in zip(gold, given, strict=True))


def _matched(gold: Sequence[Answer], given: Sequence[Answer]) -> bool:
    """Each item of one with its own of the other."""
    left = list(given)
    for item in gold:
        match = next((place for place, other in enumerate(left) if _same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


def _distinct(items: Sequence[Answer]) -> list[Answer]:
    found: list[Answer] = []
    for item in items:
        if not any(_same(other, item) for other in found):
            found.append(item)
    return found


def _same_leaf(gold: Leaf, given: Leaf) -> bool:
    if gold.words and given.words:
        return gold.plain.casefold() == given.plain.casefold()
    if gold.plain == given.plain:
        return True
    if gold.name and given.name and gold.name.casefold() != given.name.casefold():
        if not any(len(re.sub(r"\W", "", name)) > 3 and name.isalpha() for name in (gold.name, given.name)):
            return _same_relations(gold, given)
    elif gold.relation is not None and given.relation is not None and _same_relations(gold, given):
        return True
    if gold.relation is not None and given.relation is not None and not (gold.name and given.name):
        return False
    return any(_same_value(a, b) for a in gold.values for b in given.values)


def _same_relations(gold: Leaf, given: Leaf) -> bool:
    if gold.relation is None or given.relation is None:
        return False
    return equal(gold.relation, given.relation)


def _same_value(gold: Value, given: Value) -> bool:
    rounded = gold.rounded or given.rounded
    if gold.unit == given.unit or not (gold.unit and given.unit):
        if equal(gold.expr, given.expr, rounded):
            return True
        one = gold.unit or given.unit
        if gold.unit == given.unit or one not in (PERCENT, DEGREES):
            return False
        # 12.5 % is 1/8, and 60 degrees are π/3.
        a, b = (_of_one(value) if value.unit == one else value.expr for value in (gold, given))
        return equal(a, b, rounded)
    if gold.unit.dimension != given.unit.dimension:
        return False
    return equal(gold.expr * _rational(gold), given.expr * _rational(given), rounded)


def _rational(value: Value) -> Any:
    assert value.unit is not None
    return sympy.Rational(value.unit.factor.numerator, value.unit.factor.denominator)


def _of_one(value: Value) -> Any:
    try:
        return value.expr / 100 if value.unit == PERCENT else value.expr * sympy.pi / 180
    except TypeError:  # A ratio.
        return value.expr


def _same_region(gold: Answer, given: Answer) -> bool:
    r"""``x \ge 5`` and ``[5, \infty)``: as sets of numbers, where both are."""
    if all(isinstance(answer, Leaf) and answer.relation is not None for answer in (gold, given)):
        return False
    kinds = {answer.kind if isinstance(answer, Collection) else "" for answer in (gold, given)}
    if kinds <= {"set", "list"} and not any(_infinite(answer) for answer in (gold, given)):
        return False
    a = _region(gold)
    b = _region(given) if a is not None else None
    return a is not None and b is not None and same_set(a, b)


def _infinite(answer: Answer) -> bool:
    if isinstance(answer, Collection):
        return answer.kind == "tuple" or any(_infinite(item) for item in answer.items)
    return answer.relation is not None or _set_of(answer) is not None


def _set_of(leaf: Leaf) -> Any:
    return leaf.values[0].expr if leaf.values and isinstance(leaf.values[0].expr, sympy.Set) else None


def _region(answer: Answer) -> Any:
    """The set of numbers that an answer describes; None: it describes none."""
    if isinstance(answer, Leaf):
        if answer.relation is not None and not isinstance(answer.relation, sympy.Equality):
            return as_set(answer.relation)
        return _set_of(answer)
    if answer.kind == "list":
        parts = [_region(item) for item in answer.items]
        if any(part is None for part in parts):
            return None
        related = all(isinstance(item, Leaf) and item.relation is not None for item in answer.items)
        both = related and answer.joint != "or"
        return sympy.Intersection(*parts) if both else sympy.Union(*parts)
    values = [item.values[0].expr for item in answer.items if isinstance(item, Leaf) and item.values]
    if len(values) < len(answer.items) or not all(
        isinstance(value, sympy.Expr) and value.is_extended_real for value in values
    ):
        return None
    if answer.kind == "set":
        return sympy.FiniteSet(*values)
    # (15, -29) is a point.
    if len(values) != 2 or (values[0] < values[1]) is not sympy.true:
        return None
    return sympy.Interval(*values, answer.brackets[0] == "(", answer.brackets[1] == ")")
