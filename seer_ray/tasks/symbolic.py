r"""LaTeX as SymPy objects, by math-verify's parser, and whether two of them are equal.

math-verify rounds to six decimals and cuts off what is below its precision, which makes small numbers all the
same: numbers are compared here, relatively, and exactly where both were written exactly; expressions by their
values at points, and by math-verify where that says nothing.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.logic import And
from math_verify import verify
from sympy import Basic, Expr, Float, I, Integer, MatrixBase, Rational, Set, Symbol
from sympy.core.function import AppliedUndef
from sympy.core.relational import Equality, Relational

for _name in ("math_verify", "latex2sympy2_extended"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

TOLERANCE = Rational(1, 10**6)
"""Of a number that was written with a decimal point: of 1, and of the number itself."""
_DIGITS = 50
_EXACT = 1e-40
_POINTS = (Rational(1337, 500), Rational(-1741, 1000), Rational(617, 1000), Rational(4219, 1000))

_NUMBER = re.compile(r"(-?)(\d{1,4000}(?:\.\d{1,4000})?)")
_FRACTION = re.compile(r"(-?)(?:\\frac\{(-?\d{1,99})\}\{(-?\d{1,99})\}|(\d{1,99})\s*/\s*(\d{1,99}))")
_LATEX = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="none", equations=False
)
_UNREAD = re.compile(
    # Words between numbers, a subscript of a number, a prime, a placeholder.
    r"\\text|\d\s*[A-Za-z]+\s+\d|(?<![A-Za-z\\{])[A-Za-z]{4,}(?!\})|\d\s*_|'|\\ldots|\?|\\quad"
)


@functools.lru_cache(maxsize=512)
def parse(latex: str) -> Any:
    """The SymPy object that all of the LaTeX means, decimals as rationals; None: it cannot be read."""
    latex = latex.strip()
    # Most answers, without the parser.
    if match := _NUMBER.fullmatch(latex):
        return Rational(match[2]) * (-1 if match[1] else 1)
    if match := _FRACTION.fullmatch(latex):
        above, below = int(match[2] or match[4]), int(match[3] or match[5])
        return Rational(above, below) * (-1 if match[1] else 1) if below else None
    latex = re.sub(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?", r"(\\frac{\1\\pi}{180})", latex)
    latex = re.sub(r"(\d+(?:\.\d+)?)\s*\\?%", r"\\frac{\1}{100}", latex)
    if not latex or _UNREAD.search(latex):
        return None
    try:
        found = latex2sympy(latex, is_real=True, convert_degrees=False, normalization_config=_LATEX)
        if not isinstance(found, Basic | MatrixBase):
            return None
        if found.has(sympy.UnevaluatedExpr):
            found = found.doit()
        exact = {number: Rational(str(number)) for number in found.atoms(Float)}
        return found.xreplace(exact | {Symbol("i", real=True): I})
    except Exception:  # Whatever ANTLR, the converter and SymPy raise.
        return None


def equal(gold: Any, given: Any, rounded: bool = False) -> bool:
    """Whether two objects are mathematically the same.

    Args:
        gold: The reference.
        given: The answer.
        rounded: One of them was written with a decimal point: six digits have to agree.
    """
    if isinstance(gold, MatrixBase) or isinstance(given, MatrixBase):
        return (
            isinstance(gold, MatrixBase)
            and isinstance(given, MatrixBase)
            and gold.shape == given.shape
            and all(equal(a, b, rounded) for a, b in zip(gold.flat(), given.flat(), strict=True))
        )
    if _is_relation(gold) or _is_relation(given):
        return _is_relation(gold) and _is_relation(given) and _same_relation(gold, given)
    if isinstance(gold, Set) or isinstance(given, Set):
        return isinstance(gold, Set) and isinstance(given, Set) and same_set(gold, given)
    if isinstance(gold, sympy.Tuple) or isinstance(given, sympy.Tuple):
        return _same_ratio(gold, given, rounded)
    if not isinstance(gold, Expr) or not isinstance(given, Expr):
        return bool(gold == given)
    if gold.free_symbols or given.free_symbols or gold.atoms(AppliedUndef) or given.atoms(AppliedUndef):
        return _same_expression(gold, given, rounded)
    return _same_number(gold, given, rounded)


def same_set(gold: Set, given: Set) -> bool:
    """Whether two sets have the same elements."""
    try:
        return bool(gold == given or gold.symmetric_difference(given).is_empty)
    except Exception:  # Sets that SymPy cannot tell apart are not the same.
        return False


def as_set(relation: Any) -> Set | None:
    """What solves an inequality of one variable."""
    if len(relation.free_symbols) != 1:
        return None
    try:
        parts = relation.args if isinstance(relation, And) else (relation,)
        return sympy.Intersection(*(_ray(part) or part.as_set() for part in parts))
    except Exception:  # SymPy cannot solve it.
        return None


def _ray(relation: Any) -> Set | None:
    """What ``x < 5`` says, without SymPy's solver, which takes long; None: it is not so simple."""
    if not isinstance(relation.lhs, Symbol):
        relation = relation.reversed
    bound = relation.rhs
    if not isinstance(relation.lhs, Symbol) or not bound.is_number or not bound.is_extended_real:
        return None
    below, above = relation.rel_op in ("<", "<="), relation.rel_op in (">", ">=")
    is_open = len(relation.rel_op) == 1
    if below:
        return sympy.Interval(-sympy.oo, bound, True, is_open)
    return sympy.Interval(bound, sympy.oo, is_open, True) if above else None


def _is_relation(value: Any) -> bool:
    return isinstance(value, Relational | And)


def _same_number(gold: Expr, given: Expr, rounded: bool) -> bool:
    if gold == given:
        return gold not in (sympy.nan, sympy.zoo)
    if isinstance(gold, Rational) and isinstance(given, Rational):
        return rounded and abs(gold - given) <= TOLERANCE * min(Integer(1), max(abs(gold), abs(given)))
    a, b = gold.evalf(_DIGITS), given.evalf(_DIGITS)
    if not (a.is_finite and b.is_finite and a.is_number and b.is_number):
        return bool(a == b and a in (sympy.oo, -sympy.oo))
    difference = abs(a - b)
    if rounded:
        return bool(difference <= TOLERANCE * min(1, max(abs(a), abs(b))) * (1 + Rational(1, 10**9)))
    if difference > _EXACT * max(abs(a), abs(b)):
        # What cancels out is left with noise.
        return bool(0 in (a, b) and difference < _EXACT and sympy.simplify(gold - given) == 0)
    exact = (gold - given).doit()
    return bool(exact == 0) if exact.is_Rational else True


def _same_expression(gold: Expr, given: Expr, rounded: bool) -> bool:
    """By their values at points, which is quick and tells small coefficients apart; else by math-verify."""
    agreed = 0
    if (
        not (gold.atoms(AppliedUndef) | given.atoms(AppliedUndef))
        and not gold.has(*_BOUND)
        and not given.has(*_BOUND)
    ):
        symbols = sorted(gold.free_symbols | given.free_symbols, key=str)
        for shift in range(3):
            at = {symbol: _POINTS[(place + shift) % 4] + place // 4 for place, symbol in enumerate(symbols)}
            a, b = _value(gold, at), _value(given, at)
            if a is None or b is None:
                continue
            if abs(a - b) > (1e-6 if rounded else 1e-12) * max(abs(a), abs(b)):
                return False
            agreed += 1
    return agreed > 1 or bool(verify(gold, given, timeout_seconds=None))


_BOUND = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative, sympy.floor, sympy.ceiling)


def _value(expression: Expr, at: dict[Any, Any]) -> Any:
    """The value at a point; None: there is none, or it is not real where the expression is."""
    try:
        value = expression.subs(at).evalf(20)
    except Exception:  # A pole, or a function that SymPy has no values of.
        return None
    if not value.is_number or not value.is_finite or (value.has(I) and not expression.has(I)):
        return None
    return value


def _same_ratio(gold: Any, given: Any, rounded: bool) -> bool:
    """Two ratios, or a ratio of two terms and a number. A time of day is the same only to itself."""
    if isinstance(gold, sympy.Tuple) and isinstance(given, sympy.Tuple):
        if len(gold) != len(given):
            return False
        if all(equal(a, b, rounded) for a, b in zip(gold, given, strict=True)):
            return True
        if Symbol("clock") in (gold[0], given[0]) or 0 in (gold[0], given[0]):
            return False
        return all(equal(a / gold[0], b / given[0], rounded) for a, b in zip(gold, given, strict=True))
    ratio, number = (gold, given) if isinstance(gold, sympy.Tuple) else (given, gold)
    if len(ratio) != 2 or ratio[0] == Symbol("clock") or ratio[1] == 0 or not isinstance(number, Expr):
        return False
    return equal(ratio[0] / ratio[1], number, rounded)


def _same_relation(gold: Any, given: Any) -> bool:
    if gold.free_symbols != given.free_symbols:
        return False
    if isinstance(gold, Equality) and isinstance(given, Equality):
        factor = _factor(gold, given)
        return factor is not None or bool(verify(gold, given, timeout_seconds=None))
    if not isinstance(gold, Equality) and not isinstance(given, Equality):
        a, b = as_set(gold), as_set(given)
        if a is not None and b is not None:
            return same_set(a, b)
        if isinstance(gold, Relational) and isinstance(given, Relational):
            factor = _factor(gold, given)
            same_way = gold.rel_op == given.rel_op
            turned = gold.rel_op == given.reversed.rel_op
            return factor is not None and bool((factor > 0 and same_way) or (factor < 0 and turned))
        return bool(verify(gold, given, timeout_seconds=None))
    return False


def _factor(gold: Relational, given: Relational) -> Any:
    """What one side minus the other is multiplied by from one relation to the other; None: by no constant."""
    try:
        ratio = sympy.simplify((given.lhs - given.rhs) / (gold.lhs - gold.rhs))
    except Exception:  # Sides that have no difference, such as sets.
        return None
    return ratio if ratio.is_number and ratio.is_finite and ratio != 0 else None
