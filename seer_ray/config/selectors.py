"""The selectors that there are: what the rest of the system must know of one without importing it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from seer_ray.config.errors import ConfigError, did_you_mean
from seer_ray.config.modules import import_named

OWN = "module:Class"
"""How a selector is named that is not in the table."""


@dataclass(frozen=True)
class Traits:
    """Of one selector."""

    implementation: str | None
    """``module:class`` of a ``selectors.base.Selector``; None: every block is read."""
    help: str
    """One line for people who choose."""
    colours: tuple[str, str]
    """Of its lines in plots, on a light and on a dark page. After Okabe and Ito, "Color Universal Design"
    (2008), darkened where thin lines need it."""
    marker: str
    """Of its points in plots, as matplotlib names it."""
    gates: bool = False
    """Needs a trained gate in each of its layers."""
    threshold: bool = False
    """The softmax of its scores estimates the attention of blocks: a threshold can be compared with it, and a
    mass be summed of it."""
    reads_all_keys: bool = False
    """Saves nothing: it is a measure of others, and its steps are neither captured nor used for prompts."""
    benchmarked: bool = False
    """A contender in benchmarks of whole decode steps."""

    @property
    def sparse(self) -> bool:
        return self.implementation is not None


SELECTORS: dict[str, Traits] = {
    "dense": Traits(None, "all blocks", ("#4a5563", "#aab4c0"), "s", benchmarked=True),
    "seer": Traits(
        "seer_ray.selectors.seer:Seer",
        "a trained gate (SeerAttention-R)",
        ("#0072b2", "#4db1f0"),
        "o",
        gates=True,
        threshold=True,
        benchmarked=True,
    ),
    "quest": Traits(
        "seer_ray.selectors.quest:Quest",
        "a bound of q·k from each block's smallest and largest keys",
        ("#d55e00", "#ff8a3d"),
        "^",
        threshold=True,
        benchmarked=True,
    ),
    "oracle": Traits(
        "seer_ray.selectors.oracle:Oracle",
        "the true attention of every block: the best that selection could do",
        ("#00875f", "#35c79a"),
        "D",
        threshold=True,
        reads_all_keys=True,
    ),
    "window": Traits(
        "seer_ray.selectors.window:Window",
        "the most recent blocks",
        ("#b0568d", "#e091c0"),
        "v",
        benchmarked=True,
    ),
    "random": Traits("seer_ray.selectors.random:Random", "chance: the floor", ("#8a6d00", "#d9b83a"), "X"),
}
"""By name, in the order of plots and of lists of choices."""


def traits_of(name: str, option: str = "selector.name") -> Traits:
    """Of a selector of the table, or of one of the user's own, whose class may have ``traits``.

    Args:
        name: of ``SELECTORS``, or ``module:Class``
        option: for errors

    Raises:
        ConfigError: there is none.
    """
    if name in SELECTORS:
        return SELECTORS[name]
    if ":" not in name:
        names = ", ".join(SELECTORS)
        raise ConfigError(f"{option}={name}: must be one of {names}, or {OWN}{did_you_mean(name, SELECTORS)}")
    return _own_traits(name, option)


@cache
def _own_traits(name: str, option: str) -> Traits:
    kind = import_named(name, option, "class")
    own = getattr(kind, "traits", Traits(name, "of your own", ("#6b5b95", "#b8a9e0"), "P"))
    return replace(own, implementation=name)


def short_name(name: str) -> str:
    """Of a selector in a plan's code: ``my.module:TopK2`` is ``topk2_``, told from the budget behind it."""
    if name in SELECTORS:
        return name
    word = name.rpartition(":")[2].lower()
    return f"{word}_" if word[-1:].isdigit() else word
