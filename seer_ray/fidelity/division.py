"""From options to the division of a budget over the layers of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median_low
from typing import Any, Literal

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import GatesSharesConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.allotment import Cost, allot, by_range, total
from seer_ray.fidelity.evaluate import OnPass, check_length, out_of_memory_explained
from seer_ray.fidelity.quality import Rows
from seer_ray.fidelity.sensitivity import ALIKE, Allowance, LayerCosts, measure_layers
from seer_ray.models.gates import load_gates, read_settings
from seer_ray.models.load import load_model

KINDS: tuple[Literal["share", "threshold", "mass"], ...] = ("share", "threshold", "mass")


@dataclass(frozen=True)
class Allocation:
    """One way to spend a budget."""

    name: str
    """``alike``, ``shares``, ``threshold`` or ``mass``; the last three also as ``shares_heads``."""
    selector: dict[str, Any]
    """Options of ``selector`` that say it."""
    read: float
    """KV tokens per KV head and step, mean over the layers that have gates."""
    kl: float
    """Sum over layers, each alone: what to expect of the next token's KL, nats."""
    layers: dict[int, Cost]


@dataclass(frozen=True)
class Division:
    """What was measured, on what, and what follows."""

    gates: str
    block_size: int
    documents: list[Document]
    layers: dict[int, LayerCosts]
    plans: list[Allocation]

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for document in self.documents)

    @property
    def ranking(self) -> list[int]:
        """As ``plan.ranking``: layers with gates, those first that cost most where they alone are sparse."""
        return sorted(self.layers, key=lambda layer: (-self.layers[layer].kl, layer))


def divide(config: GatesSharesConfig, progress: OnPass = lambda *_: None) -> Division:
    """All that ``seer-ray gates shares`` finds out.

    Raises:
        ConfigError: an option is wrong, or the model, the gates or the data cannot be had or do not fit
            together.
    """
    source = check_shares(config)
    block = read_settings(source).block_size
    budget = config.budget // block
    if budget < 2:
        raise ConfigError(f"budget={config.budget}: must be at least two blocks, {2 * block} tokens")
    loaded = load_model(config.model)
    check_length(config, loaded, block)
    gates = load_gates(source, loaded.hf_config, block, torch.float32, loaded.device)
    documents = longest_documents(config, loaded, block, held_out=False)
    rows = Rows(config.skip, config.stride)
    for document in documents:
        length = len(document.tokens)
        if int(rows.of(length, torch.device("cpu"))[0]) < budget * block:
            raise ConfigError(
                f"budget={config.budget}: a document of {document.source} has {length} tokens, of which those"
                f" from {int(config.skip * length)} on are looked at; the first read all there is anyway;"
                " set a smaller budget, a larger length or skip, or join=true"
            )
    done, passes = 0, len(documents) * (1 + sum(gate is not None for gate in gates))

    def count(text: str) -> None:
        nonlocal done
        progress(done, passes, text)
        done += 1

    with out_of_memory_explained(config, documents, loaded.device):
        layers = measure_layers(
            loaded.model,
            documents,
            gates,
            budget,
            cap=config.cap,
            sink=config.sink,
            rows=rows,
            progress=count,
        )
    others = {} if config.sink else {"sink": False}
    plans = plans_of(layers, budget * block, config.cap, others, config.heads)
    return Division(source, block, documents, layers, plans)


def check_shares(config: GatesSharesConfig) -> str:
    """What can be checked before anything is loaded; where the gates are.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    if config.model.gates is None:
        raise ConfigError("model.gates: not set; name the gates whose budget is to be divided")
    return config.model.gates


def plans_of(
    layers: Mapping[int, LayerCosts], budget: int, cap: float, others: Mapping[str, Any], heads: bool = False
) -> list[Allocation]:
    """Every layer alike; shares of the budget; a threshold, and a mass, with shares that divide them.

    The others read as much as the first, on the documents that were measured.

    Args:
        layers: costs of those that have gates.
        budget: tokens.
        cap: see ``sensitivity.measure_layers``.
        others: options of ``selector`` that were measured with, and that all plans have.
        heads: the same three once more, divided over the KV heads of the layers too.
    """
    by_layer = {layer: [one.costs] for layer, one in layers.items()}
    alike = [ALIKE] * len(by_layer)
    read = total([costs for (costs,) in by_layer.values()], alike).read / len(by_layer)
    plans = [_plan("alike", {"budget": budget, **others}, by_layer, alike)]
    by_head = {layer: one.heads for layer, one in layers.items()}
    for units, suffix in [(by_layer, ""), *([(by_head, "_heads")] if heads else [])]:
        everyone = [costs for each in units.values() for costs in each]
        for kind in KINDS:
            chosen = allot([_only(costs, kind) for costs in everyone], read)
            base = float(f"{median_low(setting.value for setting in chosen):.3g}")
            options: dict[str, Any] = {"budget": budget if kind == "share" else round(budget * cap), **others}
            if kind != "share":
                options[kind] = base
            shares = by_range(
                {layer: [_share(one, base) for one in own] for layer, own in _by_layer(units, chosen)}
            )
            if units is by_head:
                options["head_shares"] = shares
            else:
                options["shares"] = {layers: share for layers, (share,) in shares.items()}
            plans.append(_plan(("shares" if kind == "share" else kind) + suffix, options, units, chosen))
    return plans


def _share(setting: Allowance, base: float) -> float:
    """What it is as a multiple of what others may read; see ``models.limits``."""
    if setting.kind == "share":
        return setting.value
    return base / setting.value if setting.kind == "threshold" else (1 - base) / (1 - setting.value)


def _only(costs: Mapping[Allowance, Cost], kind: str) -> dict[Allowance, Cost]:
    """Of the settings of one kind."""
    return {setting: cost for setting, cost in costs.items() if setting.kind == kind}


def _by_layer(
    units: Mapping[int, Sequence[Mapping[Allowance, Cost]]], chosen: Sequence[Allowance]
) -> Iterator[tuple[int, list[Allowance]]]:
    """The settings of each layer, of one after the other."""
    left = iter(chosen)
    for layer, each in units.items():
        yield layer, list(islice(left, len(each)))


def _plan(
    name: str,
    selector: dict[str, Any],
    units: Mapping[int, Sequence[Mapping[Allowance, Cost]]],
    chosen: Sequence[Allowance],
) -> Allocation:
    costs = {}
    for layer, settings in _by_layer(units, chosen):
        whole = total(units[layer], settings)
        costs[layer] = Cost(whole.read / len(settings), whole.loss)
    reads = [cost.read for cost in costs.values()]
    return Allocation(name, selector, sum(reads) / len(reads), sum(c.loss for c in costs.values()), costs)
