r"""Built-in problems over a long text, in the manner of RULER (Hsieh et al., 2024, arXiv 2404.06654).

Each problem is a function of (name, length, unit, difficulty, seed, index) alone, and as long as the length
allows: the text is made of so many items as fit. Its answers are a JSON list, graded by ``contains_all`` or,
for ``documents``, ``contains_any``.

``needle``: one magic number, of a named key, hidden among plain sentences.
``needle_keys``: the same among the numbers of other keys; from difficulty 4 on there is nothing else.
``needle_values``: a key with several numbers, all asked for.
``needle_queries``: several keys, all asked for.
``tracking``: variables that are assigned to one another in chains; which ones have a given value?
``common_words``: a numbered list in which some words come ten times as often as the others.
``frequent_words``: a text of made-up words whose frequencies fall by a power law; the three most frequent.
``documents``: a question about one of many given documents (``task.generator.documents``).
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_ADJECTIVES = """
amber ancient bitter blue brave bright broad calm clear cold cosmic crisp curious dark deep distant dry
early eager faint fancy fast firm fresh gentle golden grand green happy heavy hidden hollow honest
humble icy idle jolly keen kind large late light little lively lone loud lucky merry mild modern narrow
neat noble odd pale plain proud quick quiet rapid rare rough round royal rusty sharp shiny silent silver
simple slow small smooth soft solid steady steep still stormy strong sunny sweet swift tall tame tender
thin tidy tiny vast warm wide wild wise young
"""
_NOUNS = """
anchor apple arrow basket beacon bell bird boat bottle bridge bucket candle canyon castle cedar circle
cloud comet copper corner crown desert door dragon drum eagle engine falcon feather field flame flower
forest fountain garden gate glacier hammer harbor hill horse island jacket kettle ladder lake lamp
lantern leaf lemon lion maple market meadow mirror moon mountain needle ocean orchard owl palace paper
pebble pencil pillow planet pocket river road rocket saddle shadow ship shore spider spoon star stone
storm summer table temple thunder tiger tower tree tunnel valley village violin wagon water whale window
winter wolf yard
"""
ADJECTIVES, NOUNS = _ADJECTIVES.split(), _NOUNS.split()
PLAIN = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
"""Sentences that say nothing, over and over."""

SOME = (2, 4, 6, 8, 10)
"""By difficulty: keys, values or queries of a needle problem; assignments of a chain."""
CHAINS = (1, 1, 2, 3, 4)
"""By difficulty: chains of a ``tracking`` problem, of which one is asked for."""
ALL_KEYS = 4
"""Difficulty from which ``needle_keys`` has no plain sentences."""
COMMON, OFTEN, SELDOM = 10, 30, 3
"""Of ``common_words``: words that are asked for, how often each of them comes, and each of the others."""
ZETA = 2.0
"""Of ``frequent_words``: the n-th word comes in proportion to n to the power of minus this."""


@dataclass(frozen=True)
class Text:
    """A document and what is asked of it."""

    before: str
    document: str
    after: str
    answers: tuple[str, ...]

    @property
    def question(self) -> str:
        return f"{self.before}\n{self.document}\n{self.after}"


@dataclass(frozen=True)
class Source:
    """A row of ``task.generator.documents``."""

    document: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """What a text is measured by and made of."""

    measure: Callable[[str], int]
    """Its length."""
    rows: Sequence[Source] = ()
    """Of ``documents``."""


WORDS = Texts(lambda text: len(text.split()))

Make = Callable[[random.Random, int, int], Text]
"""(rng, number of items, difficulty - 1) -> the text. More items, more text."""


def fitted(make: Callable[[int], Text], length: int, measure: Callable[[str], int], most: int | None) -> Text:
    """The longest text that ``measure`` gives at most ``length``.

    Args:
        make: The text with so many items.
        length: In the unit of ``measure``.
        measure: Length of a text.
        most: Items that there are; None: any number.

    Raises:
        ValueError: The shortest text is longer; with its length.
    """
    best = make(1)
    if (least := measure(best.question)) > length:
        raise ValueError(str(least))
    low, high = 1, 2
    while most is None or high <= most:  # low fits, high is not known to
        text = make(high)
        if measure(text.question) > length:
            break
        best, low, high = text, high, 2 * high
    high = high if most is None else min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        text = make(middle)
        if measure(text.question) <= length:
            best, low = text, middle
        else:
            high = middle
    return best


def _keys(rng: random.Random) -> Iterator[str]:
    """Names, no two alike."""
    pairs = list(itertools.product(ADJECTIVES, NOUNS))
    rng.shuffle(pairs)
    for round_ in itertools.count():
        for adjective, noun in pairs:
            yield f"{adjective}-{noun}" + (f"-{round_}" if round_ else "")


def _number(rng: random.Random, taken: set[str]) -> str:
    """Of seven digits, no two alike."""
    while (number := str(rng.randrange(1_000_000, 10_000_000))) in taken:
        pass
    taken.add(number)
    return number


def _needle(key: str, value: str) -> str:
    return f"One of the special magic numbers for {key} is: {value}."


def _hidden(rng: random.Random, needles: Sequence[str], plain: Sequence[str]) -> str:
    """Needles at places of their own among the plain sentences."""
    places = sorted(rng.choices(range(len(plain) + 1), k=len(needles)))
    lines, at = [], 0
    for place, needle in zip(places, rng.sample(list(needles), len(needles)), strict=True):
        lines += [*plain[at:place], needle]
        at = place
    return "\n".join([*lines, *plain[at:]])


def _needles(keys: int, values: int, asked: int, others: bool) -> Make:
    """``keys`` keys with ``values`` numbers each, of which the first ``asked`` keys are asked for; among
    plain sentences, or with ``others`` among the numbers of more keys."""

    def make(rng: random.Random, items: int, level: int) -> Text:
        names, taken = _keys(rng), set[str]()
        pairs = [(next(names), _number(rng, taken)) for _ in range(keys)]
        more = [(key, _number(rng, taken)) for key, _ in pairs for _ in range(values - 1)]
        own = random.Random(rng.random())  # places must not change what is hidden
        if others:
            plain = [_needle(next(names), _number(rng, taken)) for _ in range(items)]
        else:
            plain = [PLAIN[index % len(PLAIN)] for index in range(items)]
        document = _hidden(own, [_needle(*pair) for pair in (*pairs, *more)], plain)
        wanted = [key for key, _ in pairs[:asked]]
        answers = [value for key, value in (*pairs, *more) if key in wanted]
        which = wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} and {wanted[-1]}"
        many = len(answers) > 1
        return Text(
            "Some special magic numbers are hidden within the following text. Make sure to memorize them. "
            "I will quiz you about the numbers afterwards.",
            document,
            f"What {'are all the' if many else 'is the'} special magic number{'s' * many} for {which} "
            "mentioned in the provided text?",
            tuple(answers),
        )

    return make


def needle(rng: random.Random, items: int, level: int) -> Text:
    return _needles(1, 1, 1, False)(rng, items, level)


def needle_keys(rng: random.Random, items: int, level: int) -> Text:
    return _needles(SOME[level], 1, 1, level + 1 >= ALL_KEYS)(rng, items, level)


def needle_values(rng: random.Random, items: int, level: int) -> Text:
    return _needles(1, SOME[level], 1, False)(rng, items, level)


def needle_queries(rng: random.Random, items: int, level: int) -> Text:
    return _needles(SOME[level], 1, SOME[level], False)(rng, items, level)


def tracking(rng: random.Random, items: int, level: int) -> Text:
    names = ["".join(letters) for letters in itertools.product(string.ascii_uppercase, repeat=3)]
    hops, chains, taken = SOME[level], CHAINS[level], set[str]()
    drawn = rng.sample(names, chains * (hops + 1))
    asked, answers, lines = "", tuple[str, ...](), list[tuple[float, str]]()
    for chain in range(chains):
        own, value = drawn[chain * (hops + 1) : (chain + 1) * (hops + 1)], _number(rng, taken)
        if not chain:
            asked, answers = value, tuple(own)
        said = [f"VAR {own[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(own))]
        # A chain's assignments stand in order, wherever they are.
        lines += zip(sorted(rng.random() for _ in said), said, strict=True)
    places = iter(sorted(lines))
    plain = [((index + 0.5) / items, PLAIN[index % len(PLAIN)]) for index in range(items)]
    document = "\n".join(line for _, line in sorted((*places, *plain)))
    return Text(
        "Memorize and track the chains of variable assignment hidden in the following text.",
        document,
        f"Find all variables that are assigned the value {asked} in the text above, directly or through "
        f"other variables. There are {hops + 1} of them.",
        answers,
    )


def common_words(rng: random.Random, items: int, level: int) -> Text:
    names = _keys(rng)
    common = [next(names) for _ in range(COMMON)]
    words = common * OFTEN + [next(names) for _ in range(items)] * SELDOM
    random.Random(rng.random()).shuffle(words)
    document = " ".join(f"{place}. {word}" for place, word in enumerate(words, 1))
    return Text(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the "
        "ones that appear most often.",
        document,
        f"What are the {COMMON} most common words in the above list?",
        tuple(common),
    )


def frequent_words(rng: random.Random, items: int, level: int) -> Text:
    letters = string.ascii_lowercase
    words = list(dict.fromkeys("".join(rng.choices(letters, k=6)) for _ in range(200)))
    # The three that are asked for must stand out at any length.
    shares = [rank**-ZETA for rank in range(1, len(words) + 1)]
    counts = [max(3 - rank, 0) + round(items * share) for rank, share in enumerate(shares)]
    said = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
    random.Random(rng.random()).shuffle(said)
    return Text(
        "Read the following coded text and track the frequency of each coded word. Find the three most "
        "frequently appearing coded words.",
        " ".join(said),
        "What are the three words that appear most frequently in the above coded text?",
        tuple(words[:3]),
    )


def documents(rows: Sequence[Source], index: int) -> Make:
    """The question of row ``index``, its document among those of other rows."""

    def make(rng: random.Random, items: int, level: int) -> Text:
        asked = rows[index % len(rows)]
        others = list(dict.fromkeys(row.document for row in rows if row.document != asked.document))
        rng.shuffle(others)
        own = random.Random(rng.random())
        chosen = others[: items - 1]
        chosen.insert(own.randrange(len(chosen) + 1), asked.document)
        text = "\n\n".join(f"Document {place}:\n{document}" for place, document in enumerate(chosen, 1))
        return Text(
            "Answer the question based on the given documents. Only give me the answer and do not output any "
            "other words.\n\nThe following are given documents.\n",
            text,
            f"\nQuestion: {asked.question}",
            asked.answers,
        )

    return make


RETRIEVAL: dict[str, Make] = {
    "needle": needle,
    "needle_keys": needle_keys,
    "needle_values": needle_values,
    "needle_queries": needle_queries,
    "tracking": tracking,
    "common_words": common_words,
    "frequent_words": frequent_words,
}
DOCUMENTS = "documents"
