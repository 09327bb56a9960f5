"""What a worker of a probe does: its model, its texts, and the rows of one cell after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seer_ray.config.errors import ConfigError
from seer_ray.config.study import StudyProbeConfig
from seer_ray.corpora.pack import Pack
from seer_ray.fidelity.evaluate import check_length
from seer_ray.models.gate import AttnGate
from seer_ray.models.gates import load_gates, read_settings
from seer_ray.models.load import load_model
from seer_ray.models.patch import logits_of
from seer_ray.study.cells import Cell, Row
from seer_ray.study.forward import KEPT, DensePack, How, Model, with_map
from seer_ray.study.indicators import NAMES, indicators
from seer_ray.study.relax import MAPS, Asked
from seer_ray.study.texts import LEAST, Text, fixed_text, read_texts

PACKED = 8192
"""Tokens that pass through the model together, about."""
LOGITS = 2**29
"""Bytes of the dense model's log-probabilities that are kept."""
HELD = 256
"""Rows of logits that are computed together."""


def build(config: StudyProbeConfig, place: str, device: str) -> Prober:
    """In a worker; see ``frame.Kind``. What the relaxations need besides is made when it is asked for."""
    if config.model.device == "auto":
        config = replace(config, model=replace(config.model, device=device))
    return Prober(config)


class Prober:
    """Does cells.

    Args:
        config: of the probe.

    Raises:
        ConfigError: the model, the gates or the data cannot be had or do not fit together.
    """

    def __init__(self, config: StudyProbeConfig) -> None:
        self.config, self.loaded = config, load_model(config.model)
        check_length(config, self.loaded, LEAST)
        self.texts, self._left = read_texts(config, self.loaded)
        probe, budget = config.probe, 2
        gates: Sequence[AttnGate | None] = ()
        if config.model.gates is not None:
            block = read_settings(config.model.gates).block_size
            budget = probe.budget // block
            gates = load_gates(
                config.model.gates, self.loaded.hf_config, block, torch.float32, self.loaded.device
            )
        self.length = max(len(text.tokens) for texts in self.texts.values() for text in texts)
        how = How(probe.window, probe.sinks, gates, budget, config.sink)
        self.model = Model(self.loaded.model, how, self.length)
        self._packs: dict[str, list[tuple[list[Text], DensePack]]] = {}
        self._dense: dict[str, list[list[Tensor]]] = {}
        self._made: set[str] = set()

    @torch.inference_mode()
    def __call__(self, cell: Cell) -> list[Row]:
        """The rows of a cell: see ``probe.dense_cell`` and ``probe.relaxed_cell``."""
        try:
            return self._attention(cell) if cell.kind == "dense" else self._relaxed(cell)
        except (torch.OutOfMemoryError, MemoryError):
            raise ConfigError(
                f"length={self.config.length}: out of memory on {self.loaded.device}; set a smaller one, "
                f"documents={max(1, self.config.documents // 2)}, or model.dtype=bfloat16"
            ) from None

    def _attention(self, cell: Cell) -> list[Row]:
        """The indicators of each layer of the dense model, by document."""
        found: list[Row] = []
        for texts, dense in self._side(cell.about["side"]):

            def look(layer: int, number: int, kind: str, asked: Asked, texts: Sequence[Text] = texts) -> None:
                text = texts[number]
                rows = text.rows.to(asked.q.device)
                figures = indicators(MAPS[kind](asked, rows), rows)
                found.append({**_about(text), "layer": layer, **figures})

            DensePack(self.model, dense.pack, dense.rows).run(0, look)
        return found

    def _relaxed(self, cell: Cell) -> list[Row]:
        """Next tokens of the relaxed model beside those of the dense one, by document."""
        kind, layers, side = cell.about["relaxation"], cell.about["layers"], cell.about["side"]
        self._prepare(kind)
        found: list[Row] = []
        packs = self._side(side)
        for index, (texts, dense) in enumerate(packs):
            maps: dict[int, list[dict[str, float]]] = {}

            def look(
                layer: int,
                number: int,
                what: str,
                asked: Asked,
                texts: Sequence[Text] = texts,
                maps: dict[int, list[dict[str, float]]] = maps,
            ) -> None:
                if layer in layers:
                    rows = texts[number].rows.to(asked.q.device)
                    maps.setdefault(number, []).append(indicators(MAPS[what](asked, rows), rows))

            final = dense.relaxed(layers, kind, look if with_map(kind) else None)
            figures = self._compare(self._log_probabilities(side, index), final, texts)
            for number, (text, figure) in enumerate(zip(texts, figures, strict=True)):
                seen = maps.get(number, [])
                means = {name: sum(one[name] for one in seen) / len(seen) if seen else None for name in NAMES}
                found.append({**_about(text), **figure, **means})
        return found

    # -- the dense model -----------------------------------------------------------------------------

    def _side(self, side: str) -> list[tuple[list[Text], DensePack]]:
        """The texts of a side in packs, with the dense pass of each."""
        if side not in self._packs:
            packs = list(_packed(self.texts[side]))
            self._packs[side] = []
            for texts in packs:
                pack = Pack.of([text.tokens for text in texts], self.loaded.device)
                starts = pack.bounds[:-1]
                rows = torch.cat([text.rows + start for text, start in zip(texts, starts, strict=True)])
                dense = DensePack(self.model, pack, rows.to(self.loaded.device))
                dense.run(KEPT // len(packs))
                self._packs[side].append((texts, dense))
        return self._packs[side]

    def _log_probabilities(self, side: str, index: int) -> Iterable[Tensor]:
        """Of the dense model's next tokens, ``HELD`` rows at a time; kept where they fit."""
        packs = self._side(side)
        if side not in self._dense:
            rows = sum(len(dense.rows) for _, dense in packs)
            if 4 * rows * self.loaded.hf_config.vocab_size > LOGITS:
                return map(self._head, packs[index][1].final.split(HELD))
            self._dense[side] = [[self._head(x) for x in dense.final.split(HELD)] for _, dense in packs]
        return self._dense[side][index]

    def _head(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(logits_of(self.loaded.model, hidden).float(), dim=-1)

    def _compare(self, dense: Iterable[Tensor], final: Tensor, texts: Sequence[Text]) -> list[Row]:
        """Means over the rows of each text."""
        device = final.device
        wanted = torch.cat([text.tokens[text.rows + 1] for text in texts]).to(device, torch.int64)
        parts: list[Tensor] = []
        for p, hidden, target in zip(dense, final.split(HELD), wanted.split(HELD), strict=True):
            q, place = self._head(hidden), target.unsqueeze(1)
            best, own = p.argmax(-1), q.argmax(-1)
            values = (
                -q.gather(1, place).squeeze(1),
                -p.gather(1, place).squeeze(1),
                (p.exp() * (p - q)).sum(-1),
                best == own,
                own == target,
                best == target,
            )
            parts.append(torch.stack([value.double() for value in values], 1))
        names = ("nll", "dense_nll", "kl", "top1", "right", "dense_right")
        each = torch.cat(parts).split([len(text.rows) for text in texts])
        return [dict(zip(names, rows.mean(0).tolist(), strict=True)) for rows in each]

    # -- what relaxations need -----------------------------------------------------------------------

    def _prepare(self, kind: str) -> None:
        if kind in self._made:
            return
        if kind == "fixed":
            tokens = fixed_text(self.config, self.loaded.tokenizer, self.length, self._left)
            self.model.set_stream(kind, self.model.embedded(tokens))
        elif kind == "random":
            self.model.set_stream(kind, self._noise())
        self._made.add(kind)

    def _noise(self) -> Tensor:
        """As large as embeddings are, the same for all inputs, ``[length, hidden]``."""
        some = torch.arange(min(self.loaded.hf_config.vocab_size, 8192))
        embedded: Any = self.model.embedded(some)
        draw = torch.Generator().manual_seed(self.config.seed)
        noise = torch.randn(self.length, embedded.shape[1], generator=draw)
        return (noise * float(embedded.float().std())).to(embedded)


def _about(text: Text) -> Row:
    return {"document": text.id, "source": text.source, "recall": text.recall, "rows": len(text.rows)}


def _packed(texts: Sequence[Text]) -> Iterable[list[Text]]:
    """In packs of about ``PACKED`` tokens, in order."""
    part: list[Text] = []
    size = 0
    for text in texts:
        if part and size + len(text.tokens) > PACKED:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text.tokens)
    if part:
        yield part
