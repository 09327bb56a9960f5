"""Runs a model on one device: prompt chunks and decode steps over the paged cache."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from seer_ray.config.checks import check, check_selector
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.config.selectors import traits_of
from seer_ray.config.speculating import check_speculation, speculates
from seer_ray.engine.bandwidth import StepBytes
from seer_ray.engine.cache import PagedCache
from seer_ray.engine.captured import CapturedSteps
from seer_ray.engine.eager import EagerSteps
from seer_ray.engine.flight import Flight
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.engine.groups import page_groups
from seer_ray.engine.memory import DeviceMemory, Memory
from seer_ray.engine.needs import Needs
from seer_ray.engine.pages import PagePool
from seer_ray.engine.passes import Decoder, PrefillPass
from seer_ray.engine.prompt_gates import PromptReads, check_density, part_of, prompt_gates
from seer_ray.engine.rehearsal import largest_decode, largest_prefill
from seer_ray.engine.scheduler import Chunk, Schedule, Scheduler
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.sizing import Sizes, fit
from seer_ray.engine.speculation.speculator import Chosen, Room, Speculator, Verified
from seer_ray.engine.states import StateSlots
from seer_ray.engine.tapes import DecodeTapes
from seer_ray.kernels import compiled
from seer_ray.kernels.upload import upload
from seer_ray.models.allocation import allocation_of
from seer_ray.models.architecture import check_length
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import (
    AttentionShape,
    attention_shape,
    forward_tokens,
    patch_attention,
    rope_tables,
)
from seer_ray.models.plan import resolve_plan
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import Selector
from seer_ray.selectors.make import make_selector

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
        check_speculation(selector, settings, plan)
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
        heads = shape.kv_heads * loaded.group.size
        shared = allocation_of(selector, loaded.gates, loaded.prefill_gates)
        self.plan = resolve_plan(
            selector, shape.mixers, settings.block_size, plan, shape.window, heads, shared
        )
        dense = self.plan.dense
        if speculates(settings) and settings.drafter == "ngram":
            self.plan = dense
        selectors = self._selectors(shape)
        prefill_gates = prompt_gates(loaded, self.plan, settings.block_size)
        groups = page_groups(shape, dense if speculates(settings) else self.plan)
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
        self.step_bytes, self._bytes_read = StepBytes(loaded, self.decoder), 0
        self.eager_steps = EagerSteps(loaded, self.decoder, settings.exact)
        self.captured = self._capture()
        self.speculator = self._speculator()
        """None: every step is one token of each row."""
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
        with self.eager_steps.threads():
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
            with self.eager_steps.threads():
                largest_prefill(self.loaded, self.decoder, chunk, length)
                largest_decode(self.loaded, self.decoder, self.max_batch, length)
        if self.captured is not None:
            self.captured.prepare()
        if self.speculator is not None:
            self.speculator.prepare()

    @property
    def uncaptured(self) -> str | None:
        """Why steps run operation by operation; None: they do not."""
        if self.captured is None:
            return self.eager or "they are not captured"
        return self.captured.failure

    def leads(self, sequences: list[Sequence]) -> bool:
        """Whether their step can be launched before the last one is read: captured, no form to keep to, and
        one token of each, for certain."""
        if self.uncaptured is not None or (
            self.speculator is not None and not self.speculator.rests(sequences)
        ):
            return False
        return not Needs.of(sequences).guided

    @torch.inference_mode()
    def launch(self, sequences: list[Sequence], ahead: bool) -> Flight:
        """One step of each sequence. ``ahead``: the next one may be launched before this one is read."""
        self.cache.place(sequences)
        if self.speculator is not None:
            assert self.speculator.plain is not None
            self.steps["captured"] += 1
            return self.speculator.plain.launch(sequences, ahead)
        if self.captured is not None and self.captured.failure is None:
            self.steps["captured"] += 1
            return self.captured.launch(sequences, ahead)
        self.steps["eager"] += 1
        return self.eager_steps.launch(sequences)

    @torch.inference_mode()
    def collect(self, flight: Flight) -> list[tuple[Sequence, int, bytes]]:
        """Waits for a step: tokens and log-probabilities of those that made one. Counts what they read."""
        made, rows = flight.results()
        if self.speculator is not None:
            self.speculator.stepped(flight)
        if not rows:
            return []
        lengths = np.array(flight.positions, np.int64)[rows] + 1
        available = self.cache.heads * self.loaded.group.size * self.cache.readable(lengths)
        read = made.read[rows]
        ranked = lengths if self.speculator is None else lengths[:0]
        self._bytes_read += self.step_bytes.of(int(read.sum()), ranked, flight.passes)
        found = []
        for row, of_row, could in zip(rows, read, available.tolist(), strict=True):
            sequence = flight.sequences[row]
            sequence.count(of_row, could)
            if row in made.attended:
                sequence.record(made.attended[row])
            found.append((sequence, made.tokens[row], made.logprobs.get(row, b"")))
        return found

    @torch.inference_mode()
    def speculate(self, chosen: Chosen, room: Room) -> Verified:
        """Drafts for each sequence, and what dense decoding says to them; ``room`` gives pages for drafts."""
        assert self.speculator is not None
        self.steps["captured" if self.uncaptured is None else "eager"] += 1
        verified = self.speculator.run(chosen, room, lambda: self.cache.place(chosen.sequences))
        self._bytes_read += verified.bytes_read
        return verified

    def take_bytes(self) -> int:
        """What decode steps could not do without reading, since this was asked last."""
        taken, self._bytes_read = self._bytes_read, 0
        return taken

    @property
    def plan_id(self) -> str:
        """Tells how rows are decoded: the plan, and with speculation what drafts."""
        drafter = self.settings.drafter
        if self.speculator is None:
            return self.plan.id
        drafts = {"selector": self.plan.id, "ngram": "ngram", "both": f"ngram+{self.plan.id}"}
        return f"{self.plan.dense.id};drafts={drafts[drafter]}"

    def new_scheduler(self) -> Scheduler:
        """Of the cache, which is nobody's."""
        settings, cache = self.settings, self.cache
        pages = zip(self.capacity.pages, cache.groups, strict=True)
        return Scheduler(
            [PagePool(count + 1, group.keeps) for count, group in pages],
            settings.block_size,
            self.max_batch,
            settings.prefill_chunk,
            settings.exact,
            cache.states.snapshots if cache.states is not None else None,
        )

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

    def _speculator(self) -> Speculator | None:
        if not speculates(self.settings):
            return None
        return Speculator(self.settings, self.eager_steps, self.captured, self.max_batch)
