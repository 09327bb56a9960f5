"""From options to the temperatures of a gate set: its shares of the blocks fitted to attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seer_ray.config.errors import ConfigError
from seer_ray.config.measuring import GatesCalibrateConfig
from seer_ray.corpora.documents import Document, parse_sources
from seer_ray.corpora.load import longest_documents
from seer_ray.fidelity.calibration import LEVELS, Ranked, TemperatureFit
from seer_ray.fidelity.evaluate import OnPass, check_length, out_of_memory_explained
from seer_ray.fidelity.passes import DensePass, Layer, Pages
from seer_ray.fidelity.quality import Rows
from seer_ray.models.gates import load_gates, read_settings
from seer_ray.models.load import load_model
from seer_ray.models.patch import attention_shape, forward_tokens, patch_attention, rope_tables
from seer_ray.selectors.seer import Seer

BEFORE, AFTER = "temperature 1", "fitted"


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and on what."""

    gates: str
    """Where the set was."""
    block_size: int
    documents: list[Document]
    layers: dict[int, TemperatureFit]
    """Of each layer that has a gate."""

    @property
    def tokens(self) -> int:
        return sum(len(document.tokens) for document in self.documents)

    @property
    def temperatures(self) -> list[tuple[float, ...]]:
        """Of each layer that has a gate, and of its KV heads; four digits."""
        return [
            tuple(float(f"{each:.4g}") for each in fit.temperatures) for _, fit in sorted(self.layers.items())
        ]

    def by_layer(self) -> list[dict[str, Any]]:
        """Predicted and kept mass by layer, ``selector`` (``BEFORE``, ``AFTER``) and level."""
        rows = []
        for (layer, fit), temperatures in zip(sorted(self.layers.items()), self.temperatures, strict=True):
            for label, heads in ((BEFORE, [1.0] * len(temperatures)), (AFTER, temperatures)):
                for level, predicted, kept in zip(LEVELS, *fit.figures(heads), strict=True):
                    row = {"layer": layer, "selector": label, "level": level}
                    rows.append(row | {"predicted": predicted, "kept": kept})
        return rows

    def table(self) -> list[dict[str, Any]]:
        """The same, mean over layers."""
        rows = self.by_layer()
        table = []
        for label in (BEFORE, AFTER):
            for level in LEVELS:
                own = [row for row in rows if (row["selector"], row["level"]) == (label, level)]
                means = {name: sum(row[name] for row in own) / len(own) for name in ("predicted", "kept")}
                table.append({"selector": label, "level": level} | means)
        return table


def check_calibration(config: GatesCalibrateConfig) -> str:
    """What can be checked before anything is loaded; where the gates are.

    Raises:
        ConfigError: names the option.
    """
    parse_sources(config.data)
    if config.model.gates is None:
        raise ConfigError("model.gates: not set; name the gates whose temperature is to be fitted")
    return config.model.gates


def calibrate(config: GatesCalibrateConfig, progress: OnPass = lambda *_: None) -> Calibration:
    """All that ``seer-ray gates calibrate`` finds out; one dense pass of the model for each document.

    Raises:
        ConfigError: an option is wrong, or the model, the gates or the data cannot be had or do not fit
            together.
    """
    source = check_calibration(config)
    block = read_settings(source).block_size
    loaded = load_model(config.model)
    check_length(config, loaded, block)
    gates = load_gates(source, loaded.hf_config, block, torch.float32, loaded.device)
    documents = longest_documents(config, loaded, block)
    patch_attention(loaded.model)
    shape, weight = attention_shape(loaded.model), next(loaded.model.parameters())
    selectors = [None if gate is None else Seer(gate) for gate in gates]
    fits = {layer: TemperatureFit() for layer, selector in enumerate(selectors) if selector is not None}
    rows = Rows(config.skip, config.stride)
    with out_of_memory_explained(config, documents, loaded.device), torch.inference_mode():
        for number, document in enumerate(documents):
            progress(number, len(documents), f"document {number + 1}: dense")
            length, tokens = len(document.tokens), document.tokens.to(weight.device)
            chosen = rows.of(length, weight.device)
            look = _Look(selectors, fits, chosen[chosen + 1 >= block])
            pages = Pages(shape, rope_tables(loaded.model, length), length, block, weight, config.sink)
            forward_tokens(loaded.model, tokens, DensePass(pages, look))
    return Calibration(source, block, documents, fits)


class _Look:
    """Shows each layer of a dense pass to its fit."""

    def __init__(
        self, selectors: Sequence[Seer | None], fits: dict[int, TemperatureFit], rows: torch.Tensor
    ) -> None:
        self.selectors, self.fits, self.rows = selectors, fits, rows

    def __call__(self, layer: Layer) -> None:
        selector, pages = self.selectors[layer.index], layer.pages
        if selector is None:
            return
        summary = pages.summarise(selector)
        for rows in layer.chunks(self.rows, logits=True):
            scores, mass = layer.scores(selector, rows, summary), layer.shares(rows).mass.mean(2)
            self.fits[layer.index].add(Ranked.of(scores, mass, rows, pages.block, pages.sink))
