"""Speculation: whole passes of chains at a length, by what drafts and how much, beside dense and sparse
decoding in the same rounds; from which context on it pays; and what its acceptance would mean on a GPU."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from seer_ray.bench import chains
from seer_ray.bench.device_model import H200, QWEN3_8B, speculated
from seer_ray.bench.show import numbers, show
from seer_ray.bench.steps import ROUNDS, free_memory
from seer_ray.bench.timing import seconds
from seer_ray.config.fields import MOST_DRAFTED
from seer_ray.config.options import EngineConfig, ModelConfig, SelectorConfig
from seer_ray.config.selecting import PACKAGED
from seer_ray.config.speculating import AUTO, OFF
from seer_ray.engine import SamplingParams
from seer_ray.models.load import LoadedModel, load_model

if TYPE_CHECKING:
    from rich.console import Console

DRAFTS = (2, 4, 6)
"""Tokens drafted, where the option does not say."""
TOKENS = 48
"""Of each chain, in a round."""
WARM = {False: 8, True: 64}
"""The same before the clock runs; of ``auto``, which measures first."""
BLOCKS = {"reasoner": 8, "smollm2": 16}
"""Of the gates of models that come with this package; of others 64."""
BASE = "dense"
MODELLED = tuple((rows, 32768, budget) for rows in (1, 16) for budget in (2048, 4096))


@dataclass(frozen=True)
class Contender:
    """A way to decode."""

    selector: str
    speculate: str = OFF
    drafter: str = "selector"

    @property
    def name(self) -> str:
        if self.speculate == OFF:
            return self.selector
        drafter = {"selector": self.selector, "ngram": "ngram", "both": f"ngram+{self.selector}"}[
            self.drafter
        ]
        return f"{drafter}, {self.speculate}"


@dataclass
class Taken:
    """By a contender, over the rounds."""

    seconds: list[float] = field(default_factory=list)
    """A token of every row, each round."""
    drafted: list[int] = field(default_factory=lambda: [0] * MOST_DRAFTED)
    accepted: list[int] = field(default_factory=lambda: [0] * MOST_DRAFTED)
    draft_s: float = 0.0
    verify_s: float = 0.0

    @property
    def by_place(self) -> list[float]:
        """Share of draft tokens at each place that became tokens."""
        return [round(own / all, 3) for own, all in zip(self.accepted, self.drafted, strict=True) if all]


def add_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--drafts", type=numbers, default=DRAFTS, help=f"tokens drafted {DRAFTS}, and auto")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"of each chain and round ({TOKENS})")
    parser.add_argument("--temperature", type=float, default=0.6, help="of the chains (0.6, top-p 0.95)")


def contenders(drafts: list[int], gates: bool) -> list[Contender]:
    """Dense first. Without trained gates, none that needs them."""
    selectors = [*(["seer"] if gates else []), "quest", "window"]
    first = selectors[0]
    lengths = [*map(str, drafts), AUTO]
    return [
        Contender(BASE),
        Contender(first),
        *(Contender(name, length) for name in selectors for length in lengths),
        *(Contender(BASE, length, "ngram") for length in lengths),
        *(Contender(first, length, "both") for length in lengths),
    ]


def bench_speculate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        ValueError: an option makes no sense.
    """
    if max(options.drafts) > MOST_DRAFTED:
        raise ValueError(f"--drafts {max(options.drafts)}: {MOST_DRAFTED} at most")
    name = options.model
    gates = name if name in PACKAGED else None
    loaded = load_model(ModelConfig(name=name, dtype=options.dtype, gates=gates))
    ways, found = contenders(options.drafts, gates is not None), []
    for context in options.context:
        if context + chains.ROOM > loaded.max_context:
            raise ValueError(f"--context {context}: {name} has room for {loaded.max_context - chains.ROOM}")
        for batch, taken in _measured(loaded, ways, context, options):
            found.append(_said(taken, batch, context, options.budget))
            _show(console, found[-1])
    pays = _pays(found)
    show(
        console,
        "Faster than dense decoding from this context on",
        ("way", *(f"batch {batch}" for batch in pays)),
        [(way.name, *(pays[batch].get(way.name) or "–" for batch in pays)) for way in ways[1:]],
    )
    best = max(found, key=lambda one: one["context"])["acceptance_by_place"].get(f"{ways[1].name}, 4", [])
    modelled = [speculated(H200, QWEN3_8B, *case, best) for case in MODELLED] if best else []
    if modelled:
        title = (
            f"{QWEN3_8B.name} on an {H200.name} by bytes and launches, acceptance as {name} has it: not run"
        )
        show(console, title, tuple(modelled[0]), [tuple(one.values()) for one in modelled])
    return {
        "model": name,
        "dtype": options.dtype,
        "new_tokens": options.tokens,
        "temperature": options.temperature,
        "passes": found,
        "pays_from": pays,
        "modelled": {"device": H200.name, "model": QWEN3_8B.name, "cases": modelled},
    }


def _measured(
    loaded: LoadedModel, ways: list[Contender], context: int, options: argparse.Namespace
) -> Iterator[tuple[int, dict[str, Taken]]]:
    """Of each batch size, everything in every round; prompts are computed once."""
    tokens = chains.text_tokens(loaded, context + 1)
    prompts: dict[str, chains.Prefilled] = {}
    for way in ways:
        if way.selector != BASE and way.selector not in prompts:
            settings = _settings(Contender(way.selector, "1"), loaded, options, 1, context)
            prompts[way.selector] = chains.prefill(loaded, settings, _selector(way, options), tokens)
    prompts[BASE] = prompts[ways[1].selector]
    for batch in options.batch:
        taken = {way.name: Taken() for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                free_memory()
                settings = _settings(way, loaded, options, batch, context)
                sampling = SamplingParams(
                    settings.max_length or loaded.max_context, temperature=options.temperature, top_p=0.95
                )
                _run(
                    chains.decoding(
                        loaded, settings, _selector(way, options), prompts[way.selector], batch, sampling
                    ),
                    WARM[way.speculate == AUTO],
                    options.tokens,
                    taken[way.name],
                )
        yield batch, taken


def _settings(
    way: Contender, loaded: LoadedModel, options: argparse.Namespace, batch: int, context: int
) -> EngineConfig:
    return EngineConfig(
        block_size=BLOCKS.get(options.model, 64),
        max_batch=batch,
        max_length=chains.room(loaded, context),
        speculate=way.speculate,
        drafter=way.drafter,
    )


def _selector(way: Contender, options: argparse.Namespace) -> SelectorConfig:
    return SelectorConfig(name=way.selector, budget=options.budget)


def _run(engine: Any, warm: int, tokens: int, taken: Taken) -> None:
    """So many tokens of each chain, on average; a pass of speculation may bring a few more."""
    rows = len(engine.scheduler.running)

    def on(count: int) -> int:
        before = made = engine.stats()["new_tokens"]
        while made - before < count * rows:
            engine.step(tell=False)
            made = engine.stats()["new_tokens"]
        return int(made - before)

    on(warm)
    before, counts = engine.stats(), _counts(engine)
    made = 0

    def timed() -> None:
        nonlocal made
        made = on(tokens)

    with torch.inference_mode():
        spent = seconds(timed)
    taken.seconds.append(spent * rows / made)
    after = engine.stats()
    taken.draft_s += after.get("draft_s", 0.0) - before.get("draft_s", 0.0)
    taken.verify_s += after.get("verify_s", 0.0) - before.get("verify_s", 0.0)
    for own, then, now in zip((taken.drafted, taken.accepted), counts, _counts(engine), strict=True):
        for place in range(MOST_DRAFTED):
            own[place] += now[place] - then[place]


def _counts(engine: Any) -> tuple[list[int], list[int]]:
    """Drafted and accepted by place, over all chains."""
    drafts = [sequence.drafts for sequence in engine.scheduler.running]
    return tuple(
        [sum(getattr(each, name)[place] for each in drafts) for place in range(MOST_DRAFTED)]
        for name in ("drafted", "accepted")
    )  # type: ignore[return-value]


def _said(taken: dict[str, Taken], batch: int, context: int, budget: int) -> dict[str, Any]:
    medians = {name: median(one.seconds) for name, one in taken.items()}
    drafting = {name: one for name, one in taken.items() if any(one.drafted)}
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "ms_per_token": {name: round(value * 1e3, 2) for name, value in medians.items()},
        "over_dense": {name: round(medians[BASE] / value, 2) for name, value in medians.items()},
        "acceptance_by_place": {name: one.by_place for name, one in drafting.items()},
        "acceptance": {
            name: round(sum(one.accepted) / sum(one.drafted), 3) for name, one in drafting.items()
        },
        "draft_share": {
            name: round(one.draft_s / (one.draft_s + one.verify_s), 3)
            for name, one in drafting.items()
            if one.verify_s
        },
    }


def _pays(found: list[dict[str, Any]]) -> dict[int, dict[str, int | None]]:
    """By batch and contender, the context from which on it is faster than dense decoding."""
    ratios: dict[int, dict[str, dict[int, float]]] = {}
    for one in found:
        for name, ratio in one["over_dense"].items():
            ratios.setdefault(one["batch"], {}).setdefault(name, {})[one["context"]] = ratio
    return {
        batch: {name: chains.crossing(of) for name, of in names.items() if name != BASE}
        for batch, names in ratios.items()
    }


def _show(console: Console, found: dict[str, Any]) -> None:
    title = f"Batch {found['batch']}, context {found['context']}, budget {found['budget']}"
    rows = [
        (
            name,
            time,
            found["over_dense"][name],
            found["acceptance"].get(name, ""),
            " ".join(f"{share:.2f}" for share in found["acceptance_by_place"].get(name, ())),
            found["draft_share"].get(name, ""),
        )
        for name, time in found["ms_per_token"].items()
    ]
    heads = ("way", "ms / token", "x dense", "accepted", "by place", "time of drafts")
    show(console, title, heads, rows)
