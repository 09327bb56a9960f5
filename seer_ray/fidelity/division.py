"""From options to the division of a budget over the layers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

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


@dataclass(frozen=True)
class Allocation:
    """One way to spend a budget."""

    name: str
    """``alike``, ``shares`` or ``threshold``."""
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
    plans = plans_of(layers, budget * block, config.cap, {} if config.sink else {"sink": False})
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
    layers: Mapping[int, LayerCosts], budget: int, cap: float, others: Mapping[str, Any]
) -> list[Allocation]:
    """Every layer alike; shares of the budget; a threshold and shares that divide it.

    The last two read as much as the first, on the documents that were measured.

    Args:
        layers: costs of those that have gates.
        budget: tokens.
        cap: see ``sensitivity.measure_layers``.
        others: options of ``selector`` that were measured with, and that all plans have.
    """
    alike = [ALIKE] * len(layers)
    read = total(_only(layers, "share"), alike).read / len(layers)
    by_share, by_threshold = (allot(_only(layers, kind), read) for kind in ("share", "threshold"))
    base = median_low(setting.value for setting in by_threshold)
    shares = {layer: setting.value for layer, setting in zip(layers, by_share, strict=True)}
    divisors = {layer: base / setting.value for layer, setting in zip(layers, by_threshold, strict=True)}
    threshold, capped = float(f"{base:.3g}"), round(budget * cap)
    return [
        _plan("alike", {"budget": budget, **others}, layers, alike),
        _plan("shares", {"budget": budget, **others, "shares": by_range(shares)}, layers, by_share),
        _plan(
            "threshold",
            {"budget": capped, **others, "threshold": threshold, "shares": by_range(divisors)},
            layers,
            by_threshold,
        ),
    ]


def _only(layers: Mapping[int, LayerCosts], kind: str) -> list[dict[Allowance, Cost]]:
    """Costs of the settings of one kind."""
    return [
        {setting: cost for setting, cost in one.costs.items() if setting.kind == kind}
        for one in layers.values()
    ]


def _plan(
    name: str, selector: dict[str, Any], layers: Mapping[int, LayerCosts], chosen: Sequence[Allowance]
) -> Allocation:
    costs = {layer: one.costs[setting] for (layer, one), setting in zip(layers.items(), chosen, strict=True)}
    read, kl = total([one.costs for one in layers.values()], chosen)
    return Allocation(name, selector, read / len(layers), kl, costs)
