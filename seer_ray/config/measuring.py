"""Options of jobs that measure on documents (see ``seer_ray.config.options``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seer_ray.config.fields import option, section
from seer_ray.config.options import JobConfig
from seer_ray.config.selecting import AUTO, ModelConfig

MEANS = ["1/32", "1/16", "1/8", "1/4", "1/2"]
"""Budgets that heads share, as shares of the length of the documents that they are measured on."""
PRICE_LENGTH = 1024
"""See ``GatesSharesConfig``."""


@dataclass
class HeldOutConfig(JobConfig):
    """Text, of which a share was held out when gates were trained, and which of its rows are looked at."""

    model: ModelConfig = section(ModelConfig)
    data: Any = option(None, "text, as in seer-ray distill", path=True)
    held_out: float = option(
        0.02,
        "share of the documents, as in training (evaluation.held_out); 1: all, for text never trained on",
        minimum=0.0,
        maximum=1.0,
    )
    documents: int = option(4, "longest ones of each source", minimum=1)
    length: int = option(4096, "longer documents are cut here", unit="tokens", minimum=2)
    join: bool = option(
        False, "join short documents to sequences of that length, which are then one document each"
    )
    skip: float = option(
        0.5, "share of a document's rows, from its first, that do not count", minimum=0.0, maximum=0.99
    )
    stride: int = option(7, "every so many rows count", unit="tokens", minimum=1)
    sink: bool = option(True, "always read the first block (inside the budget)")


@dataclass
class GatesEvalConfig(HeldOutConfig):
    """How good gate sets are, on held-out documents and beside other selectors."""

    command = "gates eval"

    sets: Any = option(
        None, "gate sets: folder, hub id, a list of these, or {label: folder}; None: model.gates", path=True
    )
    selectors: list[str] = option(
        ["oracle", "best", "quest", "window", "random"], "beside the gates; best: the most mass there is"
    )
    budgets: list[str] = option(["1/8", "1024"], "in tokens or as share of the document's length")
    beyond: int = option(4096, "positions from here on are also shown apart", unit="tokens", minimum=1)
    outputs: bool = option(
        True, "next-token distributions too: one pass of the model for each selector and budget"
    )
    block_size: int | None = option(
        None, "without gates, which have their own; None: 64", unit="tokens", minimum=1
    )
    allocation: str = option(
        AUTO,
        "each budget once more, shared as a file or folder of seer-ray gates shares says it; auto: as the "
        "gates say, if they say it; uniform: not at all",
        path=True,
    )
    dense_layers: int = option(
        0, "the first k layers of the sparse models stay dense (next-token distributions)", minimum=0
    )
    settings: Any = option(
        None,
        "ways to spend what may be read, beside budgets: options of selector by label, such as "
        "{mass: {budget: 4096, mass: 0.9}}, or files that hold them, as seer-ray gates shares writes them",
        path=True,
    )

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["gates", self.model.short]


@dataclass
class GatesCalibrateConfig(HeldOutConfig):
    """The temperature at which the shares of a gate set mean attention, for thresholds and masses."""

    command = "gates calibrate"

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["calibrate", self.model.short]


@dataclass
class GatesPromptsConfig(HeldOutConfig):
    """How good prefill gates (``model.prefill_gates``) are, on held-out documents as prompts."""

    command = "gates prompts"

    selectors: list[str] = option(
        ["oracle", "best", "window"],
        "beside the gates, and beside those of decoding (model.gates) averaged over a block's rows; best: "
        "the most mass there is; window: the first and the most recent blocks (A-shape); shared: the gates, "
        "as selector.prefill.shared",
    )
    densities: list[float] = option([0.5, 0.3, 0.2, 0.1], "shares of their blocks that prompts read")
    last_blocks: int = option(2, "as selector.prefill.last_blocks", minimum=0)
    outputs: bool = option(
        True, "next-token distributions too: one pass of the model for each selector and density"
    )
    allocate: int = option(
        0,
        "how layers and query heads share a density is found, on so many of the longest documents that are "
        "not held out, and written as gates that have it; it is measured beside the same density everywhere",
        minimum=0,
    )
    lengths: list[int] = option(
        [], "documents are measured cut to each of these, if they are so long; none: at length", unit="tokens"
    )
    needles: list[str] = option(
        [],
        "retrieval tasks (task.generator.name) of that length: does the question read where its answers "
        "stand? needle, needle_keys, needle_values, needle_queries",
    )
    needle_prompts: int = option(4, "of each of these tasks", minimum=1)
    block_size: int | None = option(
        None, "without prefill gates, which have their own; None: 64", unit="tokens", minimum=1
    )

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["prompts", self.model.short]


@dataclass
class GatesSharesConfig(HeldOutConfig):
    """How the layers and KV heads of a model should share a budget: more for those that need it, at the same
    number of tokens in all."""

    command = "gates shares"

    budgets: list[str] = option(
        MEANS,
        "mean budgets that are shared, in tokens or as share of the length; those between are interpolated",
    )
    price_length: int = option(
        PRICE_LENGTH,
        "what a layer's errors cost is measured with it sparse alone, at an eighth of this length: documents "
        "are cut here for it",
        unit="tokens",
        minimum=2,
    )
    selectors: list[str] = option(
        [],
        "selectors that share it, each in its own way: seer (the gates), quest, window, oracle, random; "
        "none: the gates, if there are any, else quest. An error is taken to cost what the first one's do",
    )
    block_size: int | None = option(
        None, "without gates, which have their own; None: 64", unit="tokens", minimum=1
    )

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["shares", self.model.short]
