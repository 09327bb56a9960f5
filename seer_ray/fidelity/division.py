"""From what each KV head costs to how the heads of a model share a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import GatesSharesConfig
from seer_ray.config.selectors import SELECTORS
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.allotment import allot, total
from seer_ray.fidelity.budget import Budget
from seer_ray.fidelity.evaluate import (
    BLOCK_SIZE,
    GATES,
    OnPass,
    check_length,
    check_names,
    counted,
    out_of_memory_explained,
)
from seer_ray.fidelity.quality import Rows, selectors_of
from seer_ray.fidelity.sensitivity import LayerCosts, Price, ladder, measure_layers, price_layers
from seer_ray.models.allocation import Allocation
from seer_ray.models.gates import load_gates, read_settings
from seer_ray.models.limits import LEAST
from seer_ray.models.load import load_model
from seer_ray.models.patch import attention_shape
from seer_ray.selectors.base import Selector

SHARING = tuple(name for name, traits in SELECTORS.items() if traits.sparse)


@dataclass(frozen=True)
class Spent:
    """A mean budget of a selector, shared."""

    selector: str
    budget: int
    """Tokens."""
    read: float
    """KV tokens per KV head and step, on the documents that were measured."""
    kl: float
    """Sum over heads, each alone: what to expect of the next token's KL, nats."""
    uniform: float
    """The same where every head has the budget."""
    layers: list[float]
    """KV tokens read in each layer that has a price, mean over its heads."""


@dataclass(frozen=True)
class Division:
    """What was measured, on what, and what follows."""

    gates: str | None
    block_size: int
    documents: list[Document]
    prices: dict[int, Price]
    """By layer."""
    allocations: dict[str, Allocation]
    """By selector."""
    spent: list[Spent]

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for document in self.documents)

    @property
    def ranking(self) -> list[int]:
        """As ``plan.ranking``: layers that select, those first that cost most where they alone are sparse."""
        return sorted(self.prices, key=lambda layer: (-self.prices[layer].kl, layer))


class Shared(NamedTuple):
    """What ``share`` finds."""

    prices: dict[int, Price]
    """By layer."""
    costs: dict[str, dict[int, LayerCosts]]
    """By selector and layer."""
    allocations: dict[str, Allocation]
    """By selector."""


def divide(config: GatesSharesConfig, progress: OnPass = lambda *_: None) -> Division:
    """All that ``seer-ray gates shares`` finds out.

    Raises:
        ConfigError: an option is wrong, or the model, the gates or the data cannot be had or do not fit
            together.
    """
    names = check_shares(config)
    source = config.model.gates
    block = config.block_size or BLOCK_SIZE if source is None else read_settings(source).block_size
    loaded = load_model(config.model)
    check_length(config, loaded, block)
    gates = None
    if source is not None:
        gates = load_gates(source, loaded.hf_config, block, torch.float32, loaded.device)
    documents = longest_documents(config, loaded, block, held_out=False)
    shape = attention_shape(loaded.model)
    selectors = {name: selectors_of(name, shape, gates) for name in names}
    means = [Budget.parse(text).blocks(config.length, block) for text in config.budgets]
    layers = next(iter(selectors.values()))
    passes = len(documents) * (1 + sum(one is not None for one in layers) + len(layers))
    with out_of_memory_explained(config, documents, loaded.device):
        found = share(
            loaded.model,
            documents,
            selectors,
            means,
            price_length=config.price_length,
            block=block,
            sink=config.sink,
            rows=Rows(config.skip, config.stride),
            progress=counted(passes, progress),
        )
    spent = [
        one for name in names for one in spending(name, found.costs[name], found.allocations[name], block)
    ]
    return Division(source, block, documents, found.prices, found.allocations, spent)


def check_shares(config: GatesSharesConfig) -> list[str]:
    """What can be checked before anything is loaded; the selectors that share.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    names = list(config.selectors) or [GATES if config.model.gates is not None else "quest"]
    check_names("selectors", names, SHARING)
    if config.model.gates is None and (needy := [name for name in names if SELECTORS[name].gates]):
        raise ConfigError(f"selectors: {needy[0]} needs gates, and model.gates is not set; name them")
    if config.model.gates is not None and config.block_size is not None:
        raise ConfigError(f"block_size={config.block_size}: the gates have their own; leave it out")
    if not config.budgets:
        raise ConfigError("budgets=[]: name at least one, such as 1/8 or 1024")
    for text in config.budgets:
        if Budget.parse(text).blocks(config.length, 1) >= config.length:
            raise ConfigError(f"budgets={text}: length={config.length} is no longer; set a larger length")
    return names


def share(
    model: Any,
    documents: Sequence[Document],
    selectors: Mapping[str, Sequence[Selector | None]],
    means: Sequence[int],
    *,
    price_length: int,
    block: int,
    sink: bool,
    rows: Rows,
    progress: Callable[[str], None] = lambda _: None,
) -> Shared:
    """What layers' errors and heads cost, and how these share mean budgets; see ``measure_layers``.

    Args:
        selectors: by name; the first one's errors are those whose KL is measured.
        means: mean budgets, in blocks.
        price_length: see ``GatesSharesConfig``.
    """
    short = [replace(document, tokens=document.tokens[:price_length]) for document in documents]
    alike: dict[str, Any] = {"block": block, "sink": sink, "rows": rows, "progress": progress}
    plain = max(LEAST, min(len(document.tokens) for document in short) // 8 // block)
    prices = price_layers(model, short, next(iter(selectors.values())), plain, **alike)
    longest = max(len(document.tokens) for document in documents)
    means = sorted({max(LEAST + 1, mean) for mean in means})
    blocks = sorted({*ladder(-(-longest // block)), *means})
    costs = measure_layers(model, documents, selectors, prices, blocks=blocks, **alike)
    shared = {name: allocate(by_layer, means, block) for name, by_layer in costs.items()}
    return Shared(prices, costs, shared)


def allocate(layers: Mapping[int, LayerCosts], means: Sequence[int], block: int) -> Allocation:
    """The heads' parts of each mean budget, with the least loss at as many reads as if all had that.

    Args:
        layers: what their heads cost.
        means: mean budgets in blocks, ascending, at each of which heads were measured.
        block: tokens a block.
    """
    heads = [costs for one in layers.values() for costs in one.heads]
    number = len(next(iter(layers.values())).heads)
    tokens = []
    for mean in means:
        read = total(heads, [mean] * len(heads)).read / len(heads)
        chosen = [blocks * float(block) for blocks in allot(heads, read)]
        tokens.append(tuple(tuple(chosen[at : at + number]) for at in range(0, len(chosen), number)))
    return Allocation(tuple(layers), tuple(mean * block for mean in means), tuple(tokens))


def spending(name: str, layers: Mapping[int, LayerCosts], allocation: Allocation, block: int) -> list[Spent]:
    """What an allocation's own budgets come to, on the documents that it was found on."""
    found = []
    for budget, tokens in zip(map(int, allocation.budgets), allocation.tokens, strict=True):
        costs = [
            total(one.heads, [round(each / block) for each in own])
            for one, own in zip(layers.values(), tokens, strict=True)
        ]
        alike = sum(head[budget // block].loss for one in layers.values() for head in one.heads)
        reads = [cost.read / allocation.kv_heads for cost in costs]
        kl = sum(cost.loss for cost in costs)
        found.append(Spent(name, budget, sum(reads) / len(reads), kl, alike, reads))
    return found
