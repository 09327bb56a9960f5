"""The options of a model, and of what its layers read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from seer_ray.config.fields import option, section
from seer_ray.config.layouts import LAYOUTS
from seer_ray.config.secrets import redacted
from seer_ray.config.selectors import OWN, SELECTORS

PACKAGED = ("reasoner", "smollm2")
"""Models and gates that are called so wherever a job runs, whatever files of these names are there."""


@dataclass
class ModelConfig:
    name: str = option(
        "reasoner",
        "hub id, folder, GGUF file, 'reasoner' (the small model of this package), or 'smollm2' (of the extra "
        "smollm)",
        path=True,
    )
    revision: str | None = option(None, "hub revision of the model")
    tokenizer: str | None = option(None, "tokenizer, if not the model's own: hub id or folder", path=True)
    dtype: str = option(
        "auto",
        "weights, and KV cache unless engine.kv_dtype says otherwise; auto: as stored, float32 for GGUF; on "
        "a CPU the fastest that holds what is stored: bfloat16 as it is, float16 as float32",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("auto", "auto (a GPU where there is one), cpu, cuda or cuda:N", bits=True)
    gates: str | None = option(
        None,
        "attention gates: hub id, folder, .pth file, or 'reasoner', 'smollm2' (those of that model)",
        path=True,
    )
    prefill_gates: str | None = option(
        None,
        "gates of sparse prefill (SeerAttention), see selector.prefill: hub id, folder, .pth file, or "
        "'smollm2' (those of that model)",
        path=True,
    )
    trust_remote_code: bool = option(False, "run Python code that comes with the model")

    @property
    def short(self) -> str:
        """The name's last part, for names of folders."""
        return PurePosixPath(redacted(self.name).replace("\\", "/")).name.removesuffix(".gguf")


@dataclass
class PrefillConfig:
    """Which KV blocks the blocks of a prompt read, by its prefill gates. Without density, threshold and mass:
    all. The rows and the keys of a block share a decision; decoding is another matter."""

    density: float | None = option(
        None,
        "share of the blocks below the diagonal that is read; 1: all of them",
        above=0.0,
        maximum=1.0,
    )
    threshold: float | None = option(
        None, "every block whose share of the gate's scores is above this", minimum=0.0, maximum=1.0
    )
    mass: float | None = option(
        None, "the fewest blocks whose shares of the gate's scores sum to this", above=0.0, maximum=1.0
    )
    last_blocks: int = option(2, "so many blocks of rows at a prompt's end are dense", minimum=0)
    sink: bool = option(True, "always read the first block")
    shared: bool = option(
        False, "the query heads of a KV head share a decision, by their largest scores: fewer reads on a GPU"
    )

    @property
    def asked(self) -> tuple[str, ...]:
        """The options that say how much is read."""
        return tuple(name for name in ("density", "threshold", "mass") if getattr(self, name) is not None)


@dataclass
class SelectorConfig:
    """Which KV blocks a decode step reads."""

    name: str = option(
        "dense",
        "how blocks are ranked: "
        + "; ".join(f"{name}, {traits.help}" for name, traits in SELECTORS.items())
        + f"; or one of your own, {OWN}",
        choices=tuple(SELECTORS),
        own=OWN,
    )
    budget: int = option(
        2048,
        "KV that attention may read per KV head and step, forced blocks included",
        unit="tokens",
        minimum=1,
    )
    threshold: float | None = option(
        None,
        "instead of a fixed count: every block whose share of the block scores is above this; budget caps it",
        minimum=0.0,
        maximum=1.0,
    )
    mass: float | None = option(
        None,
        "instead of a fixed count: the fewest blocks whose shares of the block scores sum to this; budget "
        "caps it",
        above=0.0,
        maximum=1.0,
    )
    fraction: float = option(
        0.0,
        "the budget grows with length: so large a share of the KV there is, where that is more than budget; "
        "0: it does not grow",
        minimum=0.0,
        maximum=1.0,
    )
    sink: bool = option(True, "always read the first block (inside the budget)")
    dense_layers: int = option(0, "the first k layers stay dense", minimum=0)
    layers: dict[str, str] = option(
        {},
        "selector of single layers, by index or range, e.g. {'0-2': dense, '17': quest}",
        choices=tuple(SELECTORS),
        own=OWN,
    )
    shares: dict[str, float] = option(
        {},
        "of single layers, by index or range, e.g. {'0-2': 0.5}: what they may read as a multiple of the "
        "others; it multiplies budget and fraction, or, where there is a threshold, divides that, and where "
        "there is a mass, what it leaves out",
        above=0,
    )
    head_shares: dict[str, list[float]] = option(
        {},
        "of the KV heads of single layers, e.g. {'0-2': [0.5, 1.5]}: what each may read as a multiple of its "
        "layer's share",
        above=0,
    )
    sparse_prefill: bool = option(
        False, "prompts too: the tokens of a block share the blocks that their mean score picks"
    )
    prefill: PrefillConfig = section(PrefillConfig)

    @property
    def amount(self) -> str:
        """What a layer may read, in short, for names: ``1024``, ``t0.01``, ``m0.9``."""
        if self.threshold is not None:
            return f"t{self.threshold:g}"
        return str(self.budget) if self.mass is None else f"m{self.mass:g}"


@dataclass
class LayoutConfig:
    """Which layers are anchors and which are cheap."""

    ratio: str | None = option(
        None, "so many cheap layers for each anchor: a whole number, 0: anchors only, inf: no anchor"
    )
    phase: str = option(
        "last", "where the anchor stands among the layers of one ratio: first, last, or a place from 0"
    )
    repeat: list[str] = option([], "what layers do, over and over, e.g. [gated, gated, dense]")
    named: str | None = option(None, "which layers are anchors, by the name of a set", choices=tuple(LAYOUTS))


@dataclass
class PlanConfig(LayoutConfig):
    """What each layer does, counted over those with full attention: some are anchors, the others cheap.

    ``selector.dense_layers`` and ``selector.layers`` come after it, for single layers.
    """

    anchors: int | None = option(None, "so many anchors: the first of plan.ranking", minimum=1)
    ranking: list[int] = option(
        [], "layers, those first that lose most where they are sparse: see seer-ray gates shares"
    )
    cheap: str = option(
        "gated",
        "what cheap layers do: gated (as the options of selector say), dense, or another selector, with a "
        "budget of its own in tokens if it has one: window:1024",
    )
    anchor: str = option("dense", "what anchors do, as plan.cheap")
    equal_at: int | None = option(
        None,
        "at this length a step reads as much as with selector.budget in every layer: layers without a budget "
        "of their own pay for the anchors. None: they have selector.budget",
        unit="tokens",
        minimum=1,
    )
