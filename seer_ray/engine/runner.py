"""Runs a model on one device: prompt chunks and decode steps over the paged cache."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from seer_ray.config.checks import check, check_selector
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.config.selectors import traits_of
from seer_ray.engine.bandwidth import StepBytes
from seer_ray.engine.cache import PagedCache
from seer_ray.engine.captured import CapturedSteps
from seer_ray.engine.flight import Flight, Made, Mark
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.groups import page_groups
from seer_ray.engine.guide import prepare
from seer_ray.engine.logprobs import Logprobs
from seer_ray.engine.memory import DeviceMemory, Memory
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import DecodePass, Decoder, PrefillPass
from seer_ray.engine.prompt_gates import PromptReads, check_density, part_of, prompt_gates
from seer_ray.engine.rehearsal import largest_decode, largest_prefill
from seer_ray.engine.sampler import sample
from seer_ray.engine.scheduler import Chunk, Schedule
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.sizing import Sizes, fit
from seer_ray.engine.states import StateSlots
from seer_ray.engine.tapes import DecodeTapes
from seer_ray.engine.watch import Selections, Watch
from seer_ray.kernels import compiled
from seer_ray.kernels.upload import upload
from seer_ray.models.architecture import check_length, is_mixture
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import (
    AttentionShape,
    attention_shape,
    forward_tokens,
    logits_of,
    patch_attention,
    rope_tables,
)
from seer_ray.models.plan import resolve_plan
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import Selector
from seer_ray.selectors.make import make_selector

EXACT_ROWS = 16
"""Rows of a decode pass in exact mode."""
KV_DTYPES = {"int8": torch.int8, "float8_e4m3": torch.float8_e4m3fn}
FLOAT8_CAPABILITY = (8, 9)
"""Of the GPUs that convert it; Triton compiles it for no others."""


class Runner:
    """Model, cache and selectors of one engine. Knows sequences; decides nothing about them."""

    def __init__(
        self,
        loaded: LoadedModel,
        settings: EngineConfig,
        selector: SelectorConfig,
        plan: PlanConfig,
        memory: Memory | None = None,
    ) -> None:
        """
        Args:
            memory: of the device; None: a GPU's own, and on a CPU that of the host, which is not measured.

        Raises:
            ConfigError: settings that the model cannot honour, or more than the device has room for.
        """
        check(settings, "engine.")
        check(selector, "selector.")
        check(plan, "plan.")
        check_selector(selector, settings, plan)
        self.loaded, self.settings, self.selector = loaded, settings, selector
        device = self.device = loaded.device
        self.memory = memory or (DeviceMemory(device) if device.type == "cuda" else None)
        if settings.tensor_parallel != loaded.group.size:
            raise ConfigError(
                f"engine.tensor_parallel={settings.tensor_parallel}: the model is loaded over "
                f"{loaded.group.size}; seer-ray run starts the ranks, with an engine alone see load_model"
            )
        self.vocabulary: int = loaded.model.config.vocab_size
        patch_attention(loaded.model)
        shape = attention_shape(loaded.model, loaded.group)
        self.kv_dtype = self._kv_dtype()
        self.plan = resolve_plan(selector, shape.mixers, settings.block_size, plan, shape.window)
        selectors = self._selectors(shape)
        prefill_gates = prompt_gates(loaded, self.plan, settings.block_size)
        groups = page_groups(shape, self.plan)
        check_length(loaded.hf_config, settings.max_length)
        length = settings.max_length or loaded.max_context
        check_density(self.plan, length)
        max_pages = -(-length // settings.block_size)
        tables: dict[Any, RopeTable] = {}
        for ranking in filter(None, selectors):
            ranking.look_up(length, tables)
        ropes = rope_tables(loaded.model, length)

        def decoder(pages: Seq[int], rows: int) -> Decoder:
            kept = settings.block_size, rows, max_pages, loaded.dtype, device, self.kv_dtype
            cache = PagedCache(shape, groups, selectors, pages, *kept, prefill_gates)
            return Decoder(cache, ropes, self.plan, selectors, prefill_gates, loaded.group)

        kinds = shape, selectors, settings.block_size, loaded.dtype, self.kv_dtype
        sizes = Sizes(
            groups,
            tuple(PagedCache.page_bytes(group, *kinds, prefill_gates) for group in groups),
            StateSlots.bytes_of(shape.states),
            length,
            loaded.group.size,
        )
        self.eager = self._eager()
        nobodys = [1] * len(groups)
        self.max_batch, self.capacity = fit(
            loaded, settings, sizes, self.memory, lambda rows: decoder(nobodys, rows), self.eager is None
        )
        self.settings = replace(settings, max_batch=self.max_batch)
        self.decoder = decoder([count + 1 for count in self.capacity.pages], self.max_batch)
        self.cache = self.decoder.cache
        self.prompt_reads = PromptReads(
            self.decoder, loaded.hf_config.num_attention_heads // loaded.group.size
        )
        self.step_bytes, self.bytes_read = StepBytes(loaded, self.decoder), 0
        """What decode steps could not do without reading, since the start."""
        self.captured = self._capture()
        self.steps = {"captured": 0, "eager": 0}
        """Decode steps by how they ran."""

    # -- passes --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prepare(self, scheduled: Schedule) -> None:
        """Copies pages and states, before anything else of a step."""
        self.cache.copy_pages(scheduled.copies)
        if self.cache.states is not None:
            self.cache.states.move(scheduled.moves)

    @torch.inference_mode()
    def prefill(self, chunks: list[Chunk]) -> None:
        """Write the chunks' keys and values. No logits: a first token is sampled by a decode step."""
        packs = [[chunk] for chunk in chunks] if self.settings.exact else [chunks]
        with self._threads():
            for pack in packs:
                parts = [part_of(chunk, self.plan) for chunk in pack]
                step = PrefillPass(self.decoder, parts, self.device)
                ids = [token for c in pack for token in c.sequence.tokens[c.start : c.end]]
                forward_tokens(self.loaded.model, upload(ids, self.device), step)
                self.prompt_reads.count(step)

    def warm_up(self) -> None:
        """The largest passes once, and all captures that can be known to come: what compiles, loads or takes
        memory at first has done so. On a CPU, which the memory is not measured of, nothing."""
        if self.memory is not None:
            chunk, length = self.settings.prefill_chunk, self.capacity.max_length
            with self._threads():
                largest_prefill(self.loaded, self.decoder, chunk, length)
                largest_decode(self.loaded, self.decoder, self.max_batch, length)
        if self.captured is not None:
            self.captured.prepare()

    @property
    def uncaptured(self) -> str | None:
        """Why steps run operation by operation; None: they do not."""
        if self.captured is None:
            return self.eager or "they are not captured"
        return self.captured.failure

    def leads(self, sequences: list[Sequence]) -> bool:
        """Whether their step can be launched before the last one is read: captured, no form to keep to."""
        return self.uncaptured is None and not Needs.of(sequences).guided

    @torch.inference_mode()
    def launch(self, sequences: list[Sequence], ahead: bool) -> Flight:
        """One step of each sequence. ``ahead``: the next one may be launched before this one is read."""
        self.cache.place(sequences)
        if self.captured is not None and self.captured.failure is None:
            self.steps["captured"] += 1
            return self.captured.launch(sequences, ahead)
        self.steps["eager"] += 1
        began, passes = Mark(self.device), 0
        made: dict[int, tuple[int, np.ndarray, bytes]] = {}
        with self._threads():
            for rows in self._groups(sequences):
                found = self._decode(rows)
                made |= found
                passes += bool(found)
        nothing = 0, np.zeros(len(self.plan.layers), np.int64), b""
        tokens, read, said = zip(*(made.get(s.slot, nothing) for s in sequences), strict=True)
        results = Made(
            list(tokens),
            np.stack(read),
            {row: spelled for row, spelled in enumerate(said) if spelled},
            replayed=frozenset(row for row, sequence in enumerate(sequences) if sequence.slot not in made),
        )
        return Flight(sequences, began, Mark(self.device), lambda: results, passes)

    @torch.inference_mode()
    def collect(self, flight: Flight) -> list[tuple[Sequence, int, bytes]]:
        """Waits for a step: tokens and log-probabilities of those that made one. Counts what they read."""
        made, rows = flight.results()
        if not rows:
            return []
        lengths = np.array(flight.positions, np.int64)[rows] + 1
        available = self.cache.heads * self.loaded.group.size * self.cache.readable(lengths)
        read = made.read[rows]
        self.bytes_read += self.step_bytes.of(int(read.sum()), lengths, flight.passes)
        found = []
        for row, of_row, could in zip(rows, read, available.tolist(), strict=True):
            sequence = flight.sequences[row]
            sequence.count(of_row, could)
            if row in made.attended:
                sequence.record(made.attended[row])
            found.append((sequence, made.tokens[row], made.logprobs.get(row, b"")))
        return found

    def _decode(self, rows: Seq[Sequence | None]) -> dict[int, tuple[int, np.ndarray, bytes]]:
        """One pass over batch rows, of which None is padding: what those that are ready give, by slot: token,
        KV tokens read by layer, log-probabilities."""
        slots = [row.slot if row is not None else 0 for row in rows]
        positions = [row.cached if row is not None else 0 for row in rows]
        block, states = self.settings.block_size, self.cache.states
        chosen = torch.tensor(slots, device=self.device)
        tables = [table[chosen] for table in self.cache.tables]
        padding = torch.tensor([row is None for row in rows], device=self.device)
        if self.settings.exact:
            tables = [table.masked_fill(padding.unsqueeze(1), 0) for table in tables]
        else:
            tables = [table[:, : max(positions) // block + 1] for table in tables]
        completed = [
            (row.pages[0][row.cached // block], row.cached // block * block)
            for row in rows
            if row is not None and row.pages and (row.cached + 1) % block == 0
        ]
        watched = [
            (index, row) for index, row in enumerate(rows) if row is not None and row.recorded and row.ready
        ]
        selections = Selections() if watched else None
        if states is not None:
            chosen = chosen.masked_fill(padding, states.nobody)
        step = DecodePass(self.decoder, tables, positions, completed, selections, chosen)
        ids = [row.tokens[row.cached] if row is not None else 0 for row in rows]
        ready = [(index, row) for index, row in enumerate(rows) if row is not None and row.ready]
        needs = Needs.of(row for _, row in ready)
        if needs.guided:
            prepare(row.guide for _, row in ready)
        hidden = forward_tokens(self.loaded.model, torch.tensor(ids, device=self.device), step)
        if not ready:
            return {}
        logits = logits_of(self.loaded.model, hidden)
        logits = logits[torch.tensor([index for index, _ in ready], device=self.device)]
        sampled = sample(logits, [row for _, row in ready])
        said: dict[int, bytes] = {}
        if needs.logprobs:
            asked = Logprobs(logits.float(), [row for _, row in ready])
            coming = [row.coming(token) for (_, row), token in zip(ready, sampled, strict=True)]
            said = asked.spell(asked.of(torch.tensor(coming, device=self.device)).cpu())
        read = step.tokens_read().cpu().numpy()
        if selections is not None:
            watch = Watch(selections, watched, block, len(self.plan.layers), self.loaded.group)
            for index, attended in watch.attended().items():
                of_row = rows[index]
                assert of_row is not None
                of_row.record(attended)
        return {
            row.slot: (token, read[index], said.get(place, b""))
            for place, ((index, row), token) in enumerate(zip(ready, sampled, strict=True))
        }

    def _groups(self, sequences: list[Sequence]) -> list[Seq[Sequence | None]]:
        """Batch rows of each pass. In exact mode groups of one size, each sequence in its own row, so that
        every product has the same shape at any ``max_batch``; else a step costs the rows that are in it."""
        if not self.settings.exact:
            return [sequences]
        by_slot = {sequence.slot: sequence for sequence in sequences}
        # The tokens that go to one expert are a product of their own, whose shape depends on the mates.
        size = 1 if is_mixture(self.loaded.model.config) else EXACT_ROWS
        firsts = sorted({slot // size * size for slot in by_slot})
        return [[by_slot.get(slot) for slot in range(first, first + size)] for first in firsts]

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """In exact mode one CPU thread: how work is cut among threads changes the last bits of a row, by the
        row's place in the batch and by the number of threads. That is of torch's products: the compiled ones,
        which all but many rows of bfloat16 are, give a row the same bits in either mode."""
        if not self.settings.exact or self.device.type != "cpu":
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    # -- set-up --------------------------------------------------------------------------------------

    def _kv_dtype(self) -> torch.dtype:
        """What K and V are kept in."""
        name = self.settings.kv_dtype
        dtype = KV_DTYPES.get(name, self.loaded.dtype)
        if dtype == torch.float8_e4m3fn and self.device.type == "cuda":
            capability = torch.cuda.get_device_capability(self.device)
            if capability < FLOAT8_CAPABILITY:
                has, needs = (".".join(map(str, pair)) for pair in (capability, FLOAT8_CAPABILITY))
                raise ConfigError(
                    f"engine.kv_dtype={name}: wants a GPU of compute capability {needs}, this one has {has}; "
                    "take int8"
                )
        return dtype

    def _selectors(self, shape: AttentionShape) -> list[Selector | None]:
        gated = [spec.layer for spec in self.plan.layers if traits_of(spec.selector).gates]
        gates: Any = self.loaded.load_gates(self.settings.block_size) if gated else [None] * shape.layers
        if bad := [layer for layer in gated if gates[layer] is None]:
            raise ConfigError(
                f"model.gates={self.loaded.gates}: there is none for layer {', '.join(map(str, bad))}; "
                f"make those dense, such as selector.layers.{bad[0]}=dense"
            )
        return [
            make_selector(spec.selector, spec.layer, shape, gates[spec.layer]) for spec in self.plan.layers
        ]

    def _eager(self) -> str | None:
        """Why decode steps cannot be captured; None: they can."""
        if self.settings.exact:
            return "engine.exact=true"
        for spec in self.plan.layers:
            if traits_of(spec.selector).reads_all_keys:
                return f"the selector {spec.selector} reads all keys"
        if self.device.type == "cuda":
            return None
        if self.loaded.group.size > 1:
            return f"engine.tensor_parallel={self.loaded.group.size} on a CPU"
        return "no C++ compiler" if compiled.binary() is None else None

    def _capture(self) -> CapturedSteps | None:
        """None where decoding runs operation by operation."""
        if self.eager is not None:
            return None
        kind = DecodeGraphs if self.device.type == "cuda" else DecodeTapes
        return kind(self.loaded, self.decoder, self.max_batch)
