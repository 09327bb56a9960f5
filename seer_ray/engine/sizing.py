"""How many pages and batch rows an engine has: what is left of the memory once everything else is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from seer_ray.config.checks import parse_bytes
from seer_ray.config.errors import ConfigError, one_line
from seer_ray.config.options import EngineConfig
from seer_ray.config.speculating import AUTO, longest_draft, speculates
from seer_ray.engine.bandwidth import copy_rate
from seer_ray.engine.graphs import graph_count
from seer_ray.engine.groups import PageGroup
from seer_ray.engine.memory import Memory, gib, host_memory
from seer_ray.engine.passes import Decoder
from seer_ray.engine.rehearsal import largest_decode, largest_prefill
from seer_ray.engine.scheduler import expected_tokens
from seer_ray.engine.states import slot_count
from seer_ray.models.load import LoadedModel

MOST_ROWS = {"cpu": 32, "cuda": 256}
"""Of a batch that no option sets: more rows make steps longer, and hardly faster by the row."""
GRAPH_BYTES = 8 << 20
"""That a captured step takes beside what it computes with: some hundred nodes and their arguments. An
assumption: no GPU has been measured."""

LESS = "lower engine.prefill_chunk or engine.max_batch, or divide the model by engine.tensor_parallel"


@dataclass(frozen=True)
class Capacity:
    """What the device holds."""

    max_length: int
    """Tokens of one sequence, prompt included."""
    pages: tuple[int, ...]
    """Of each cache group."""
    page_bytes: tuple[int, ...]
    """Of each cache group, on this rank."""
    cached: int | None = None
    """Tokens of one sequence that find room; None: any number, as all layers forget."""

    @property
    def bytes(self) -> int:
        """Of all pages, those of nobody not counted."""
        return sum(count * size for count, size in zip(self.pages, self.page_bytes, strict=True))


@dataclass(frozen=True)
class Sizes:
    """What goes into the cache of one engine."""

    groups: tuple[PageGroup, ...]
    page_bytes: tuple[int, ...]
    """Of one page of each group, on this rank."""
    state_bytes: int
    """Of one sequence, on this rank."""
    length: int
    """Tokens of the longest sequence."""
    ranks: int

    def rows(self, settings: EngineConfig, memory: int, most: int) -> int:
        """Batch rows of which the scheduler would admit as many: chains that are, on average, half-way
        through what is expected of them."""
        block, rows = settings.block_size, most
        expected = -(-expected_tokens(self.length) // 2 // block)

        def fits(rows: int) -> bool:
            taken = slot_count(rows) * self.state_bytes
            for group, size in zip(self.groups, self.page_bytes, strict=True):
                most = group.keeps.pages(self.length, block, decodes=True)
                own = expected if group.keeps.reach is None else most
                taken += rows * min(own, most) * size
            return taken <= memory

        while rows > 1 and not fits(rows):
            rows -= 1
        return rows

    def capacity(self, settings: EngineConfig, rows: int, memory: int, why: str) -> Capacity:
        """The pages that ``memory`` holds.

        Args:
            settings: whose cache it is.
            rows: of a batch.
            memory: bytes for pages and states, on this rank.
            why: what is left where none is set, for errors.

        Raises:
            ConfigError: too few for any chain.
        """
        block, own = settings.block_size, memory - slot_count(rows) * self.state_bytes
        if own < 0:
            raise ConfigError(
                f"engine.kv_memory={settings.kv_memory}: the states of engine.max_batch={rows} rows alone "
                f"take {-own / 2**20:.1f} MiB more{why}; lower engine.max_batch"
            )
        pages: list[int] = []
        # Of a window every row has all pages, and a chunk of prompts more, before others: up to half.
        for group, size in reversed(list(zip(self.groups, self.page_bytes, strict=True))):
            keeps, row = group.keeps, group.keeps.pages(self.length, block, decodes=True)
            chunk = 0 if keeps.reach is None else settings.prefill_chunk // block + 1
            whole = keeps.pages(self.length, block) if keeps.whole_prompts else 0
            # Never more than the batch could fill. One page is nobody's.
            shared = own if group is self.groups[0] else own // 2
            count = min(rows * row + max(chunk, whole), shared // size - 1)
            own -= (count + 1) * size
            pages.insert(0, count)
            least = 2 if keeps.reach is None else row + chunk
            if count < least:
                one = f"one takes {self.ranks * size / 2**20:.1f} MiB with engine.block_size={block}"
                raise ConfigError(
                    f"engine.kv_memory={settings.kv_memory}: too small for {least} blocks of "
                    f"{len(group.layers)} layers; {one}{why}"
                )
        whole_length = self.groups and self.groups[0].keeps.reach is None
        return Capacity(
            self.length, tuple(pages), self.page_bytes, pages[0] * block if whole_length else None
        )


@dataclass(frozen=True)
class Need:
    """What a maximal step takes beside weights and cache, in bytes on this rank."""

    prefill: int
    decode: int
    graphs: int = 0
    """Captured steps."""
    guessed: bool = False
    """It did not fit: told from smaller passes."""

    @property
    def total(self) -> int:
        """A captured step computes in memory of its own, which no other pass can have."""
        return max(self.prefill, self.decode) + self.captured

    @property
    def captured(self) -> int:
        """That of captured steps."""
        return self.decode + self.graphs * GRAPH_BYTES if self.graphs else 0

    def said(self, settings: EngineConfig, rows: int) -> str:
        """The arithmetic, for errors."""
        parts = [
            f"{gib(self.prefill)} for engine.prefill_chunk={settings.prefill_chunk}",
            f"{gib(self.decode)} for a batch of {rows}",
        ]
        if self.graphs:
            parts.append(f"{gib(self.captured)} for {self.graphs} captured steps")
        return ", ".join(parts)


@contextmanager
def fitting(settings: EngineConfig) -> Iterator[None]:
    """Memory that runs out while an engine is set up is a setting's fault."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"engine.kv_memory={settings.kv_memory}: out of memory while the engine was set up "
            f"({one_line(error)}); set a smaller engine.kv_memory, engine.max_batch or engine.prefill_chunk"
        ) from error


def fit(
    loaded: LoadedModel,
    settings: EngineConfig,
    sizes: Sizes,
    memory: Memory | None,
    empty: Callable[[int], Decoder],
    captured: bool,
) -> tuple[int, Capacity]:
    """Batch rows and pages of an engine.

    Args:
        loaded: model; patched.
        settings: what is set of them.
        sizes: of what goes into the cache.
        memory: in which a maximal step is measured before the cache gets the rest; None: the host's, of which
            half is left.
        empty: for so many rows, what computes over pages of nobody.
        captured: decode steps will be.

    Raises:
        ConfigError: the memory does not do.
    """
    group, rows = loaded.group, settings.max_batch or MOST_ROWS[loaded.device.type]
    limit = parse_bytes(settings.kv_memory, "engine.kv_memory")
    own, why = 0 if limit is None else limit // group.size, ""
    if memory is not None:
        if loaded.device.type == "cuda":
            copy_rate(loaded.device)  # takes memory that the cache will have: once, and now
        need, rows = _need(loaded, settings, sizes, memory, empty, captured, rows)
        free = min(group.gathered(memory.free()))
        left = free - need.total
        why = (
            f"; the weights leave {gib(free)}, and a maximal step takes {'about ' if need.guessed else ''}"
            f"{gib(need.total)}: {need.said(settings, rows)}"
        )
        if left <= 0:
            raise ConfigError(
                f"engine.kv_memory={settings.kv_memory}: {gib(-left)} are missing before the cache has any"
                f"{why}; {LESS}"
            )
        if own > left:
            raise ConfigError(
                f"engine.kv_memory={settings.kv_memory}: does not fit{why}; at most "
                f"engine.kv_memory={left * group.size // 2**20}MiB does"
            )
        own = own or left
    elif limit is None:
        own = min(group.gathered(host_memory(group.size)))
    if settings.max_batch is None:
        rows = sizes.rows(settings, own, rows)
    return rows, sizes.capacity(settings, rows, own, why)


def _need(
    loaded: LoadedModel,
    settings: EngineConfig,
    sizes: Sizes,
    memory: Memory,
    empty: Callable[[int], Decoder],
    captured: bool,
    rows: int,
) -> tuple[Need, int]:
    """What a maximal step takes, and of how many rows: of fewer than asked where none are set and so many do
    not fit."""
    chunk, length, block = settings.prefill_chunk, sizes.length, settings.block_size

    def prefill(tokens: int) -> int:
        decoder = empty(1)
        return memory.peak_of(lambda: largest_prefill(loaded, decoder, tokens, length))

    def decode(rows: int) -> int:
        decoder, tokens = empty(rows), rows * (1 + longest_draft(settings))
        return memory.peak_of(lambda: largest_decode(loaded, decoder, tokens, length))

    (taken, tokens), (step, fitting) = _largest(prefill, chunk), _largest(decode, rows)
    of_ranks = loaded.group.gathered((taken, tokens, step, fitting))
    taken, step = (max(of[at] for of in of_ranks) for at in (0, 2))
    tokens, fitting = (min(of[at] for of in of_ranks) for at in (1, 3))
    if settings.max_batch is None:
        rows = fitting
    graphs = graph_count(rows, -(-length // block), block) if loaded.device.type == "cuda" else 0
    # As many that verify, and with ``auto`` as many of dense steps beside the drafter's.
    graphs *= 1 + speculates(settings) + (settings.speculate == AUTO and settings.drafter != "ngram")
    # What did not fit is told from what did, by its size: near enough to say what is missing.
    whole = taken * chunk // tokens, step * rows // fitting
    return Need(*whole, graphs * captured, tokens < chunk or fitting < rows), rows


def _largest(measure: Callable[[int], int], size: int) -> tuple[int, int]:
    """What a pass takes, and its size: that which is asked, or a half, quarter and so on of it that fits."""
    while True:
        try:
            return measure(size), size
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size //= 2
