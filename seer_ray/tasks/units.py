r"""Units of answers: ``10 dollars``, ``24\text{ cm}^2``, ``5 km/h``, ``€10``, ``3 million``, ``40\%``.

A unit on one side alone is not compared; two known units must measure the same thing, and are converted.
Words that are no known unit (``42 apples``) are passed over, except those that change a number.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """What a number is counted in.

    Args:
        dimension: What it measures, as powers of base dimensions, sorted.
        factor: How many base units it is.
    """

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)


_TABLE = {
    # length, in metres
    "length": "mm millimeter:1/1000 cm centimeter:1/100 dm decimeter:1/10 m meter:1 km kilometer:1000 "
    "inch in:127/5000 foot feet ft:381/1250 yard yd:1143/1250 mile mi:201168/125",
    "mass": "mg milligram:1/1000000 g gram gm:1/1000 kg kilogram kilo:1 ton tonne:1000 "
    "lb pound:45359237/100000000 oz ounce:45359237/1600000000",
    "time": "ms millisecond:1/1000 s sec second:1 min minute:60 h hr hour:3600 day:86400 week:604800",
    # A calendar's, which are no fixed number of days.
    "months": "month:1 year yr:12 decade:120 century:1200",
    "volume": "ml milliliter cc:1/1000 l liter:1 gallon gal:473176473/125000000",
    "dollars": "dollar usd buck $:1 cent ¢:1/100",
    "euros": "euro eur €:1",
    "sterling": "gbp £:1 pence:1/100",
    "yen": "yen jpy ¥:1",
    "yuan": "yuan rmb cny:1",
    "rupees": "rupee rs inr ₹:1",
    "force": "n newton:1",
    "energy": "j joule:1 kj kilojoule:1000 ev:1/6241509074460762600 cal calorie:523/125 kwh:3600000",
    "power": "w watt:1 kw kilowatt:1000",
    "voltage": "v volt:1",
    "current": "ampere amp:1",
    "frequency": "hz hertz:1 khz:1000",
    "pressure": "pa pascal:1 kpa:1000 atm:101325",
    "temperature": "k kelvin:1",
    "celsius": "°c celsius:1",
    "fahrenheit": "°f fahrenheit:1",
    "degrees": "degree deg °:1",
    "percent": "% percent pct percentage:1",
    "clock am": "am a.m.:1",
    "clock pm": "pm p.m.:1",
}


def _table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for dimension, rows in _TABLE.items():
        names: list[str] = []
        for word in rows.split():
            name, colon, factor = word.partition(":")
            names.append(name)
            if colon:
                units |= {name: Unit(((dimension, 1),), Fraction(factor)) for name in names}
                names = []
    speed = {"mph": ("mile", "hour"), "kmh": ("km", "hour"), "kmph": ("km", "hour"), "kph": ("km", "hour")}
    return units | {name: _product([(units[a], 1), (units[b], -1)]) for name, (a, b) in speed.items()}


def _product(parts: list[tuple[Unit, int]]) -> Unit:
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for unit, exponent in parts:
        factor *= unit.factor**exponent
        for name, power in unit.dimension:
            powers[name] = powers.get(name, 0) + power * exponent
    return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)), factor)


UNITS = _table()
PERCENT, DEGREES = UNITS["percent"], UNITS["degree"]
_MONEY = ("dollars", "euros", "sterling", "yen", "yuan", "rupees")
_LITRE = Fraction(1, 1000)

MAGNITUDES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}

_CHANGING = re.compile(
    r"squared|cubed|factorial|plus|minus|over|divided|mod|modulo|remainder|r|or|and|to|than|least|most|except|not|"
    r"root|pi|x|y|below|above|under|out|between|until|through|versus|vs|if|unless|when|otherwise|st|nd|rd|th|"
    r"(?:half|halve|third|quarter|fourth|fifth|sixth|eighth|tenth|hundredth|thousandth)s?|"
    r"(?:ten|dozen|hundred|thousand|million|billion|trillion)s?"
)
"""Words that make another number, or no number, of the one before them."""

_WORD = (
    r"(?:\\text\s*\{(?:[^{}]|\{[^{}]*\})*\}|(?<![A-Za-z\\])[A-Za-z]+\.?|[°µ²³¢€£¥₹]|\\\$|\\?%"
    r"|\^\s*\\circ|\^\s*\{\s*\\circ\s*\})"
)
_TAIL = re.compile(
    rf"(?P<head>.*?[\d)}}\]|]|.*?\\(?:pi|infty))\s*"
    rf"(?P<tail>(?:{_WORD}(?:\s*\^\s*(?:\{{-?\d\}}|\d)|(?<=[a-z])[23](?!\d))?(?:\s*(?:/|\\cdot|\*|-|,))?\s*)+)"
    r"\.?$",
    re.DOTALL,
)
_PAREN_WORDS = re.compile(r"(?<=[\d}\w])\s*\(\s*(?:\\text\{)?[A-Za-z][A-Za-z .,'-]+\}?\s*\)$")
_CURRENCY = re.compile(
    r"^([-+]?)\s*(?:\\text\s*\{\s*)?(US\s*\\?\$|\\?\$|[€£¥₹]|USD|EUR|GBP|Rs\.?)\s*\}?\s*(?=[\d.\\(])",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?<=\d)(?:\^\s*\{?\s*)?(?:\\text\s*\{\s*)?(?:st|nd|rd|th)\s*\}*$")
_UNIT_FRACTION = re.compile(r"\\frac\{\\text\{([^{}]+)\}\}\{\\text\{([^{}]+)\}\}")
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{\s*)?([A-Za-z]+)\.?(?:\s*\})?"
    r"(?:\s*(?:,|and\b|\\text\s*\{\s*and\s*\}))?\s*"
)
_PARTS = re.compile(rf"(?:{_PART.pattern}){{2,}}")
_LETTER_UNITS = frozenset(["m", "g", "s", "h", "L", "l", "N", "J", "W", "V"])


@dataclass(frozen=True)
class Quantity:
    """A number and what it counts.

    Args:
        number: LaTeX.
        unit: None: there is none, or it is not known.
        factor: What the word of a magnitude multiplies the number by.
        clean: Whether all that stood beside the number was a unit or words that change nothing.
    """

    number: str
    unit: Unit | None = None
    factor: int = 1
    clean: bool = True


def quantity(latex: str, letters: bool = False) -> Quantity:
    """A number and its unit apart.

    Args:
        latex: In the form that `seer_ray.tasks.notation.to_latex` gives.
        letters: Single letters behind a space are units (``5 m``), not variables.
    """
    latex = latex.strip()
    found: Unit | None = None
    if currency := _CURRENCY.match(latex):
        found = UNITS[re.sub(r"us(?!d)|[\\. ]", "", currency[2].lower())]
        latex = currency[1] + latex[currency.end() :]
    if (total := _total(latex)) is not None:
        return total
    latex = _ORDINAL.sub("", _PAREN_WORDS.sub("", latex))
    latex = _UNIT_FRACTION.sub(r"\\text{\1/\2}", latex)
    match = _TAIL.match(latex)
    if match is None:
        return Quantity(latex, found)
    head, tail = match["head"].strip(), match["tail"]
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", re.sub(r"\\(?:text|cdot|circ)", " ", tail))]
    spaced = latex[len(match["head"]) :][:1].isspace()
    if re.search(r"(?:[-/*]|\\cdot)\s*$", tail):
        return Quantity(latex, found, clean=False)
    known = unit_of(tail)
    bare = re.sub(r"\\text\s*\{[^{}]*\}|\\?circ\}?\s*[CF]\b", "", tail)
    single = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z.])", bare))
    # km/h is a unit; m/s may be a quotient of variables.
    certain = known is not None and re.search(r"[A-Za-z]{2,}", bare) is not None
    if single and not certain and not (letters and spaced and single <= _LETTER_UNITS):
        return Quantity(latex, found)
    factor = 1
    while words and words[0] in MAGNITUDES:
        factor *= MAGNITUDES[words[0]]
        tail = re.sub(rf"{words.pop(0)}", "", tail, count=1, flags=re.IGNORECASE)
    if any(map(_CHANGING.fullmatch, words)):
        return Quantity(latex, found, clean=False)
    return Quantity(head, found or (unit_of(tail) if factor > 1 else known), factor)


def is_total(latex: str) -> bool:
    """Whether it is a sum of units of one kind, such as ``5 hours and 30 minutes``: no list."""
    return _total(latex) is not None


def _total(latex: str) -> Quantity | None:
    """``5 hours 30 minutes`` as 5.5 hours; None: it is no sum of units of one kind."""
    if not _PARTS.fullmatch(latex):
        return None
    parts = [(Fraction(number), unit_of(word)) for number, word in _PART.findall(latex)]
    units = [unit for _, unit in parts if unit is not None]
    if len(units) < len(parts) or any(unit.dimension != units[0].dimension for unit in units):
        return None
    if any(a.factor <= b.factor for a, b in itertools.pairwise(units)):
        return None
    total = (
        sum(number * unit.factor for (number, _), unit in zip(parts, units, strict=True)) / units[0].factor
    )
    return Quantity(rf"\frac{{{total.numerator}}}{{{total.denominator}}}", units[0])


def unit_of(text: str) -> Unit | None:
    r"""The unit that ``\text{ km}/\text{h}``, ``cm^2``, ``square feet`` name; None if it is not known."""
    text = (
        re.sub(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})", " ° ", text).replace(r"\cdot", " ").replace(r"\%", " % ")
    )
    text = re.sub(r"\\text|[{}()]", " ", text).replace("²", "^2").replace("³", "^3")
    text = re.sub(r"°\s*([CF])\b", r"°\1", text)
    parts: list[tuple[Unit, int]] = []
    sign, power = 1, 1
    for word, exponent in re.findall(
        r"([^\W\d_][^\W\d_.]*(?:\.m\.)?|°[CF]?|[%€£¥₹$]|[/¢])\s*\^?\s*(-?\d+)?", text
    ):
        name = word.lower()
        if name in ("/", "per", "an") or (name == "a" and parts):
            sign = -1
        elif name in ("square", "sq", "cubic", "cu"):
            power = 2 if name.startswith("s") else 3
        elif name in ("of", "points", "point"):
            continue
        else:
            unit = UNITS.get(name) or UNITS.get(name.removesuffix("s")) or UNITS.get(name.removesuffix("es"))
            unit = unit or UNITS.get(
                name.replace("metre", "meter").replace("litre", "liter").removesuffix("s")
            )
            if unit is None:
                return None
            parts.append((unit, sign * power * int(exponent or 1)))
            power = 1
    if money := [unit for unit, _ in parts if unit.dimension[0][0] in _MONEY]:
        return money[0]  # What 18 dollars a day are paid for is another question.
    return _volumes(_product(parts)) if parts else None


def _volumes(unit: Unit) -> Unit:
    """Litres as cubic lengths, so that both can be compared."""
    powers = dict(unit.dimension)
    litres = powers.pop("volume", 0)
    if not litres:
        return unit
    powers["length"] = powers.get("length", 0) + 3 * litres
    return Unit(tuple(sorted((n, p) for n, p in powers.items() if p)), unit.factor * _LITRE**litres)
