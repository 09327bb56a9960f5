"""Long prompts: attention of one layer and whole prompts, sparse by density against dense, in one run."""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.bench.models import RandomGates, bench_model
from seer_ray.bench.show import numbers, show
from seer_ray.bench.timing import side_by_side
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.config.selecting import PrefillConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.engine.sparse_prefill import SparsePrefill, SparseRows, attend_sparsely, sparse_rows
from seer_ray.kernels.blocks import Amount
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.prefill import prefill
from seer_ray.models.patch import attention_shape, rope_tables
from seer_ray.models.plan import PrefillPlan
from seer_ray.models.prefill_gates import read_prefill_settings
from seer_ray.models.rope import RopeTable
from seer_ray.models.source import PREFILL_GATES, packaged_gates
from seer_ray.selectors.base import FullKeys

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 512
TURNS = 3


def add_options(group: Any) -> None:
    """To the command's parser."""
    group.add_argument("--lengths", type=numbers, default=[8192], help="prompts: tokens of a prompt [8192]")
    group.add_argument(
        "--densities", default="0.3,0.1", help="prompts: shares of their blocks that prompts read 0.3,0.1"
    )


def bench_prompts(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        ValueError: the model is not made for so long a prompt, or a density is none.
    """
    densities = [float(word) for word in options.densities.split(",")]
    if not all(0 < density < 1 for density in densities):
        raise ValueError(f"--densities {options.densities}: must be above 0 and below 1, such as 0.3,0.1")
    loaded = bench_model(options.model, options.dtype)
    block = options.block or block_of(options.model)
    found: dict[str, Any] = {"model": options.model, "dtype": options.dtype, "block": block, "lengths": {}}
    for length in options.lengths:
        if length + 2 > loaded.max_context:
            raise ValueError(
                f"--lengths {length}: {options.model} goes up to {loaded.max_context - 2} tokens"
            )
        attention, whole = (measure(loaded, length, densities, block) for measure in (layer, prompts))
        found["lengths"][length] = {"attention_ms": attention, "first_token_s": whole}
        columns = ("", "attention of a layer, ms", "x SDPA", "x dense", "whole prompt, s", "x dense")
        rows = [
            (
                name,
                f"{taken:.1f}",
                f"{attention['sdpa'] / taken:.2f}",
                f"{attention['dense'] / taken:.2f}",
                f"{whole[name]:.2f}" if name in whole else "",
                f"{whole['dense'] / whole[name]:.2f}" if name in whole else "",
            )
            for name, taken in attention.items()
        ]
        show(console, f"A prompt of {length:,} tokens, gate and selection counted", columns, rows)
    return found


def block_of(model: str) -> int:
    """Tokens a block of the prefill gates that the package has of a model; 64 where it has none."""
    folder = packaged_gates(model, PREFILL_GATES)
    there = folder is not None and folder.is_dir()
    return read_prefill_settings(model).block_size if there else 64


def layer(loaded: RandomGates, length: int, densities: list[float], block: int) -> dict[str, float]:
    """Median milliseconds of one layer's attention over a whole prompt in chunks of ``CHUNK``: by density
    with the gate's keys, queries, scores and the selection; dense; and torch's own over all at once."""
    case = LayerCase(loaded, length, block)
    calls: dict[str, Any] = {"sdpa": lambda _: case.sdpa(), "dense": lambda _: case.dense()}
    for density in densities:
        plan = PrefillPlan(Amount(density=density))
        calls[f"{density:g}"] = lambda _, plan=plan: case.sparse(plan)
    if loaded.device.type == "cpu":
        return {name: taken / 1e3 for name, taken in side_by_side(calls, loaded.device, TURNS).items()}
    # Call by call, not captured: a prompt's tiles are made on the host, as in an engine.
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, TURNS):
        for name, call in calls.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            call(turn)
            torch.cuda.synchronize()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: median(values) for name, values in times.items()}


class LayerCase:
    """Random queries, keys and values of a prompt, and its pages."""

    def __init__(self, loaded: RandomGates, length: int, block: int) -> None:
        shape, device, dtype = attention_shape(loaded.model), loaded.device, loaded.dtype
        draw = torch.Generator(device).manual_seed(0)
        self.length, self.block, self.pages = length, block, -(-length // block)
        self.heads, self.scale = shape.kv_heads, shape.head_dim**-0.5
        q_shape = length, shape.q_heads, shape.head_dim
        kv_shape = self.pages + 1, shape.kv_heads, 2, block, shape.head_dim
        self.q, self.kv = (
            torch.randn(size, generator=draw, device=device, dtype=dtype) for size in (q_shape, kv_shape)
        )
        self.table = torch.arange(1, self.pages + 1, device=device).unsqueeze(0)
        self.rope: RopeTable = rope_tables(loaded.model, self.pages * block)[0]
        gate = next(gate for gate in loaded.load_prefill_gates(block) if gate is not None)
        self.gate = gate.to(device)
        self.keys = self.kv.new_zeros(self.pages + 1, shape.kv_heads, gate.key_width)

    def sdpa(self) -> torch.Tensor:
        k, v = (self.kv[1:, :, part].transpose(0, 1).flatten(1, 2)[:, : self.length] for part in (0, 1))
        k, v = (x.repeat_interleave(self.q.shape[1] // self.heads, 0).unsqueeze(0) for x in (k, v))
        q = self.q.transpose(0, 1).unsqueeze(0)
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)

    def dense(self) -> None:
        for start, end, chunks in self._chunks():
            prefill(self.q[start:end], self.kv, chunks, self.scale)

    @torch.inference_mode()
    def sparse(self, plan: PrefillPlan) -> None:
        sparse = SparsePrefill(self.gate, plan, plan.amount, self.keys)
        rows: SparseRows | None = sparse_rows(plan, self.length, None, self.block)
        for start, end, chunks in self._chunks():
            full = torch.arange(start // self.block, end // self.block, device=self.q.device)
            cos, sin = self.rope.at(
                full.unsqueeze(1) * self.block + torch.arange(self.block, device=full.device)
            )
            sparse.summarise(full + 1, FullKeys(self.kv[full + 1, :, 0], cos, sin, full * self.block))
            q = self.q[start:end]
            attend_sparsely(sparse, q, q, self.kv, chunks, [rows], self.scale, None)

    def _chunks(self) -> list[tuple[int, int, Chunks]]:
        found = []
        for start in range(0, self.length, CHUNK):
            end = min(start + CHUNK, self.length)
            found.append(
                (start, end, Chunks(((start, end),), self.table[:, : -(-end // self.block)], self.block))
            )
        return found


def prompts(loaded: RandomGates, length: int, densities: list[float], block: int) -> dict[str, float]:
    """Median seconds from the submission of a prompt to its first token, contenders taking turns."""
    ways = {"dense": PrefillConfig()} | {f"{d:g}": PrefillConfig(density=d) for d in densities}
    settings = EngineConfig(block_size=block, prefill_chunk=CHUNK, max_batch=1, max_length=length + 2)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            engine = Engine(loaded, settings, SelectorConfig(prefill=way))
            draw = torch.Generator().manual_seed(turn)
            prompt = tuple(torch.randint(0, 256, (length,), generator=draw).tolist())
            engine.submit(Request("a/0", prompt, SamplingParams(1)))
            (done,) = engine.run()
            if done.error is not None:
                raise ValueError(f"--lengths {length}: {done.error}")
            taken[name].append(done.counters.first_token_s)
            del engine
    return {name: median(seconds) for name, seconds in taken.items()}
