r"""Notation that a LaTeX parser does not know, as LaTeX: Unicode, plain text, TeX's shorthands, styles.

``½``, ``√2``, ``10⁻³``, ``1e-05``, ``pi/2``, ``\frac12``, ``\sqrt(2)``, ``0.\overline{3}``, ``\mathrm{i}``.
What has no meaning of its own (spaces, sizes of brackets) goes; what is not understood stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵏᵐᵗ", "0123456789+-=()nixykmt", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₓₖₘᵢⱼ", "0123456789+-=()nxkmij", strict=True))
_SUPER, _SUB = "".join(_SUPERSCRIPTS), "".join(_SUBSCRIPTS)

_SYMBOLS = {
    **dict.fromkeys("−‐‑﹣", "-"),
    **dict.fromkeys("×✕⨯", r"\times "),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    **dict.fromkeys("∗﹡", "*"),
    "÷": r"\div ",
    **dict.fromkeys("⁄∕", "/"),
    "±": r"\pm ",
    "∓": r"\mp ",
    "∞": r"\infty ",
    **dict.fromkeys("≤⩽≦", r"\le "),
    **dict.fromkeys("≥⩾≧", r"\ge "),
    "≠": r"\neq ",
    **dict.fromkeys("≈≃≅", r"\approx "),
    "∈": r"\in ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    **dict.fromkeys("∖⧵", r"\setminus "),
    **dict.fromkeys("∅⌀", r"\emptyset "),
    **{letter: rf"\mathbb{{{plain}}}" for letter, plain in zip("ℝℤℕℚℂ", "RZNQC", strict=True)},
    **dict.fromkeys("⟨〈", "("),
    **dict.fromkeys("⟩〉", ")"),
    **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("′’‘", "'"),
    **dict.fromkeys("″“”", "''"),
    **dict.fromkeys("…⋯", r"\ldots "),
    "、": ", ",
    "。": ".",
    "∶": ":",
    "∣": r"\mid ",
    "∨": r"\lor ",
    "∧": r"\land ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
}
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad\ufe0e\ufe0f]")
_ROOTS = {"√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)")
_FUNCTIONS = r"arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|gcd|lcm|binom"

_SPACES = re.compile(
    r"(?<!\\)\\[,;:!> ]|\\(?:quad|qquad|displaystyle|textstyle|thinspace|enspace|hfill)(?![A-Za-z])|~"
)
_SIZES = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?")
_ALIASES = [
    (re.compile(rf"\\(?:{old})(?![A-Za-z])"), new)
    for old, new in (
        ("[dtc]frac", r"\\frac"),
        ("[dt]binom", r"\\binom"),
        ("varnothing|emptyset", r"\\emptyset "),
        ("geqslant|geqq|geq|ge", r"\\ge "),
        ("leqslant|leqq|leq|le", r"\\le "),
        ("neq|ne", r"\\neq "),
        ("gt", ">"),
        ("lt", "<"),
        ("land|wedge", r" \\text{and} "),
        ("lor|vee", r" \\text{or} "),
        ("langle|lparen", "("),
        ("rangle|rparen", ")"),
        ("lbrace", r"\\{"),
        ("rbrace", r"\\}"),
        ("lbrack", "["),
        ("rbrack", "]"),
        ("dots|cdots|dotsc|dotsb", r"\\ldots "),
        ("smallsetminus|backslash", r"\\setminus "),
        ("pounds|textsterling", "£"),
        ("euro|texteuro", "€"),
        ("degree|textdegree", r"^\\circ "),
        ("percent", r"\\%"),
        ("bmod", r"\\mod "),
        ("log_\\{?e\\}?", r"\\ln "),
        ("surd", r"\\sqrt "),
        ("lg", r"\\log_{10} "),
        ("arsinh|arcsinh", r"\\operatorname{arsinh}"),
        ("Reals", r"\\mathbb{R}"),
        ("imath", "i"),
        ("simeq|cong", r"\\approx "),
        ("vert|lvert|rvert", "|"),
        ("mathbb R", r"\\mathbb{R}"),
        ("mathbb Z", r"\\mathbb{Z}"),
    )
]
_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|normal|sf|tt)?|mbox|hbox|mathrm|mathsf|mathtt|operatorname\*?|rm|bf)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_RM_GROUP = re.compile(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}")
_BOLD = re.compile(r"\\(?:mathbf|mathit|boldsymbol|bm|vec|overrightarrow)\s*\{([^{}]*)\}")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|,\\!|\\[,;: ]|[ \u00a0\u2009\u202f])\d{3})+(?![\d/])")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")
_MIXED = re.compile(
    r"(?<![\d.^_/])(-?)(\d{1,30})\s*"
    r"(?:\\frac\{(\d{1,30})\}\{(\d{1,30})\}|\s(\d{1,30})\s*/\s*(\d{1,30}))(?![\d.^!])"
)
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\\\d.])(\d+\.?\d*|\.\d+)\s?[eE]([-+]?\d{1,6})(?![\w.^])")
_REPEATING = re.compile(
    r"(?<!\d)(\d{0,30})\.(\d{0,30})(?:\\(?:overline|bar|dot)\s*\{(\d{1,30})\}|\((\d{1,30})\))"
)
_REPEATED = re.compile(r"(?<!\d)(\d{0,30})\.(\d{0,6}?)(\d{1,6}?)\3{2,}\d?\s*(?:\\ldots|\.\.\.)")
_DOTTED = re.compile(r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?")


def to_latex(text: str) -> str:
    """The answer in LaTeX that latex2sympy reads, if it is mathematics; words stay words."""
    text = _from_unicode(_INVISIBLE.sub("", text))
    text = _GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _DECIMAL_COMMA.sub(".", text)
    text = _SPACES.sub(" ", text)
    text = _SIZES.sub("", text)
    text = _RM_GROUP.sub(r"\\mathrm{\1}", text)
    text = _TEXT.sub(_unstyled, text)
    text = _BOLD.sub(r"\1", text)
    for pattern, new in _ALIASES:
        text = pattern.sub(new, text)
    text = _from_plain(text)
    text = _arguments(text)
    text = _numbers(text)
    return " ".join(text.split())


def _from_unicode(text: str) -> str:
    text = re.sub(
        f"([{_SUPER}]+)⁄([{_SUB}]+)",
        lambda m: rf"\frac{{{_plain(m[1], _SUPERSCRIPTS)}}}{{{_plain(m[2], _SUBSCRIPTS)}}}",
        text,
    )
    text = re.sub(f"[{_SUPER}]+", lambda m: f"^{{{_plain(m[0], _SUPERSCRIPTS)}}}", text)
    text = re.sub(f"[{_SUB}]+", lambda m: f"_{{{_plain(m[0], _SUBSCRIPTS)}}}", text)
    text = re.sub(r"(\d)\u0305", r"\\overline{\1}", text).replace("}\\overline{", "")
    # Between two numbers a dash makes a range, which is no number; anywhere else it is a minus.
    text = re.sub("(?<!\\d)[–—]|[–—](?!\\d)", "-", text).replace("—", "–")
    return "".join(map(_character, text)) if not text.isascii() else text


def _character(char: str) -> str:
    if char.isascii() or char == "–":
        return char
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    if char in _ROOTS:
        return _ROOTS[char]
    if unicodedata.category(char) == "No" and "⁄" in (parts := unicodedata.normalize("NFKC", char)):
        above, _, below = parts.partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}" if below else char
    plain = unicodedata.normalize("NFKC", char)
    if len(plain) == 1 and (greek := _GREEK.fullmatch(unicodedata.name(plain, ""))):
        name = greek[2].lower().replace("lamda", "lambda")
        return f"\\{name if greek[1] == 'SMALL' else name.capitalize()} "
    return plain if plain == char else "".join(map(_character, plain))


def _plain(text: str, table: dict[str, str]) -> str:
    return "".join(table[char] for char in text)


def _unstyled(match: re.Match[str]) -> str:
    r"""``\mathrm{i}`` and ``\text{13}`` bare, a function by its name, other words in ``\text{}``."""
    inside = re.sub(r"[{}]", "", match[1]).strip()
    upright = re.match(r"\\(?:textrm|mathrm|operatorname|rm)", match[0]) is not None
    if not re.search(r"[^\W\d]", inside) or (upright and inside in ("i", "e", "d")):
        return f" {inside} "
    # After a number it is a unit: min, sec, m.
    if upright and not re.search(r"[\d})]\s*$", match.string[: match.start()]):
        if re.fullmatch(_FUNCTIONS, inside):
            return f"\\{inside} "
        if len(inside) == 1:
            return f" {inside} "
    return rf"\text{{ {inside} }}"


def _from_plain(text: str) -> str:
    pieces = re.split(r"(\\text\{[^{}]*\})", text)
    for index in range(0, len(pieces), 2):
        piece = pieces[index]
        piece = re.sub(r"<=|=<(?!=)", r"\\le ", piece).replace(">=", r"\ge ").replace("!=", r"\neq ")
        piece = (
            piece.replace("**", "^").replace("+/-", r"\pm ").replace("+-", r"\pm ").replace("...", r"\ldots ")
        )
        piece = re.sub(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty ", piece)
        piece = re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi ", piece)
        piece = re.sub(rf"(?<![A-Za-z\\])({_FUNCTIONS})(?=\s*[(\[{{^_\d]|\s[a-z](?![a-z]))", r"\\\1", piece)
        pieces[index] = re.sub(r"(?<=\d)(?:i)(?![A-Za-z])", " i", piece)
    return "".join(pieces)


def _arguments(text: str) -> str:
    r"""The arguments of ``\frac``, ``\binom`` and ``\sqrt`` in braces, as TeX takes them."""
    out, rest = "", text
    while match := re.search(r"\\(frac|binom|sqrt)(?![A-Za-z])\s*(\[[^\[\]]*\])?", rest):
        out += rest[: match.start()] + "\\" + match[1] + (match[2] or "")
        rest = rest[match.end() :]
        for _ in range(1 if match[1] == "sqrt" else 2):
            argument, rest = _argument(rest, match[1] == "sqrt")
            out += f"{{{_arguments(argument)}}}" if argument else ""
    # An exponent's sign belongs to it: 10^-5.
    return re.sub(r"\^\s*(-\d+)", r"^{\1}", re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", out + rest))


def _argument(text: str, root: bool) -> tuple[str, str]:
    text = text.lstrip()
    if text[:1] == "{" or (root and text[:1] == "("):
        close = _closing(text)
        return (text[1:close], text[close + 1 :]) if close else ("", text)
    # √10 is the root of ten, \frac34 three quarters.
    match = re.match(
        r"\\sqrt(?:\[\d\])?\s*\d+|\d+(?:\.\d+)?|\\?[A-Za-z]+" if root else r"\\[A-Za-z]+|\w", text
    )
    if match is None:
        return "", text
    end = match.end() if not match[0].isalpha() else 1
    return text[:end], text[end:]


def _closing(text: str) -> int:
    """Where the bracket closes that the text begins with; 0: nowhere."""
    opening, closing = text[0], {"(": ")", "{": "}"}[text[0]]
    depth = 0
    for index, char in enumerate(text):
        depth += (char == opening) - (char == closing)
        if not depth:
            return index
    return 0


def _numbers(text: str) -> str:
    text = _DOTTED.sub(r"\\overline{\1\2\3}", text)
    text = _REPEATING.sub(lambda m: _repeating(m[1], m[2], m[3] or m[4]), text)
    text = _REPEATED.sub(lambda m: _repeating(m[1], m[2], m[3]), text)
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text).replace("^{+", "^{")
    text = re.sub(r"(?<=\d)\s*[x]\s*(?=10\s*\^)", r" \\times ", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    text = re.sub(r"(?<=\d)\.(?![\d.])", "", text)
    return _MIXED.sub(_mixed, text)


def _repeating(whole: str, head: str, period: str) -> str:
    value = Fraction(
        int((whole + head + period) or 0) - int((whole + head) or 0),
        10 ** len(head + period) - 10 ** len(head),
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _mixed(match: re.Match[str]) -> str:
    whole, above, below = int(match[2]), int(match[3] or match[5]), int(match[4] or match[6])
    if not 0 < above < below:
        return match[0]
    return rf"{match[1]}\frac{{{whole * below + above}}}{{{below}}}"
