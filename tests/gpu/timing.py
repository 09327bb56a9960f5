"""Times of the decode kernels on a GPU against torch's dense attention; see ``run.py``.

Every number is the median of graph replays; a graph holds many calls over rotating caches, so that what is
read is cold, as it is in a model of many layers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.kernels import triton_attend, triton_score, triton_select

HEADS, GROUP, DIM, BLOCK = 8, 4, 128, 64  # of Qwen3-8B
SCALE = DIM**-0.5
COLD = 3 << 30
"""Bytes of K and V over which calls rotate, at least."""
SHAPES = [  # batch, context, budget
    (1, 32768, 2048),
    (1, 32768, 4096),
    (4, 32768, 4096),
    (8, 32768, 4096),
    (16, 32768, 4096),
    (8, 65536, 4096),
    (4, 131072, 4096),
]
SWEEP = [  # constants of triton_attend; the first row is what they are
    {},
    {"STAGES": 2},
    {"STAGES": 4},
    {"WARPS": 2},
    {"WARPS": 8},
    {"SPLIT_TOKENS": 128},
    {"SPLIT_TOKENS": 512},
    {"SPLIT_TOKENS": 1024},
    {"FOLD": 8},
    {"FOLD": 32},
]


def graph_time(call: Callable[[int], Any], calls: int = 20, replays: int = 30) -> float:
    """Microseconds of one ``call(i)``."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(2):
            call(i)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    times = []
    for _ in range(replays + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times[3:])


def copy_rate() -> float:
    """Bytes per microsecond, read and written, of a large copy."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / graph_time(lambda _: target.copy_(source), calls=4)


class Caches:
    """Several caches of ``batch`` sequences each, with a query, block summaries and a random selection."""

    def __init__(self, batch: int, context: int, budget: int) -> None:
        self.batch, self.context, self.k = batch, context, budget // BLOCK
        self.blocks = context // BLOCK
        pages = batch * self.blocks
        size = pages * HEADS * 2 * BLOCK * DIM
        self.sets = max(2, -(-COLD // (2 * size)))
        draw = torch.Generator("cuda").manual_seed(0)

        def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
            return torch.empty(*shape, dtype=dtype, device="cuda").normal_(generator=draw)

        self.kv = normal(self.sets, pages, HEADS, 2, BLOCK, DIM)
        self.summary = normal(self.sets, pages, HEADS, DIM)
        self.features = normal(self.sets, batch, HEADS, 1, DIM, dtype=torch.float32)
        self.q = normal(self.sets, batch, HEADS * GROUP, DIM)
        self.table = torch.stack(
            [torch.randperm(pages, generator=draw, device="cuda").view(batch, -1) for _ in range(self.sets)]
        )
        self.lengths = torch.full((batch,), context, device="cuda")
        self.tails = torch.full((batch,), BLOCK, device="cuda")
        self.scores = [self.score(i) for i in range(self.sets)]
        self.chosen = [self.select(i) for i in range(self.sets)]
        self.counts = torch.full((batch, HEADS), self.blocks, device="cuda")
        # The same memory as if K and V of each sequence and head were contiguous, for torch's attention.
        self.contiguous = self.kv.view(self.sets, batch, HEADS, 2, context, DIM)

    def score(self, i: int) -> torch.Tensor:
        i %= self.sets
        return triton_score.score(self.features[i], self.summary[i], self.table[i], self.lengths, BLOCK)

    def select(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        i %= self.sets
        return triton_select.select(self.scores[i], self.table[i], self.lengths, BLOCK, self.k, True)

    def attend(self, i: int) -> torch.Tensor:
        i %= self.sets
        return triton_attend.attend(self.q[i], self.kv[i], *self.chosen[i], self.tails, SCALE)

    def pipeline(self, i: int) -> torch.Tensor:
        i %= self.sets
        scores = self.score(i)
        chosen = triton_select.select(scores, self.table[i], self.lengths, BLOCK, self.k, True)
        return triton_attend.attend(self.q[i], self.kv[i], *chosen, self.tails, SCALE)

    def dense(self, i: int) -> torch.Tensor:
        i %= self.sets
        lists = self.table[i].unsqueeze(1).expand(-1, HEADS, -1)
        return triton_attend.attend(self.q[i], self.kv[i], lists, self.counts, self.tails, SCALE)

    def torch_packed(self, i: int) -> torch.Tensor:
        """The group's query heads as query positions: K and V are read once for each KV head."""
        i %= self.sets
        q = self.q[i].view(self.batch, HEADS, GROUP, DIM)
        k, v = self.contiguous[i][:, :, 0], self.contiguous[i][:, :, 1]
        return scaled_dot_product_attention(q, k, v, scale=SCALE)

    def torch_grouped(self, i: int) -> torch.Tensor:
        i %= self.sets
        k, v = self.contiguous[i][:, :, 0], self.contiguous[i][:, :, 1]
        return scaled_dot_product_attention(self.q[i].unsqueeze(2), k, v, scale=SCALE, enable_gqa=True)

    def check(self) -> None:
        """Right, and sparse: pages that were not selected hold NaN meanwhile."""
        ids, counts = self.chosen[0]
        kept = self.kv[0].clone()
        unread = torch.ones(kept.shape[:2], dtype=torch.bool, device="cuda")
        unread[ids.transpose(1, 2).reshape(-1, HEADS), torch.arange(HEADS, device="cuda")] = False
        self.kv[0][unread] = float("nan")
        found = self.attend(0)
        self.kv[0] = kept
        assert (counts == self.k).all() and found.isfinite().all()
        head = torch.arange(HEADS, device="cuda").view(HEADS, 1)
        for row in range(self.batch):
            k, v = (kept[ids[row], head, part].flatten(1, 2).float() for part in (0, 1))
            q = self.q[0, row].view(HEADS, GROUP, DIM).float()
            expected = torch.softmax(q @ k.transpose(1, 2) * SCALE, -1) @ v
            apart = (found[row].view(HEADS, GROUP, DIM).float() - expected).norm() / expected.norm()
            assert apart < 5e-3, float(apart)


@contextmanager
def constants(module: Any, values: dict[str, int]) -> Any:
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def torch_dense(caches: Caches) -> tuple[str, float]:
    """The fastest of torch's ways, by name."""
    found: dict[str, float] = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        for form in (caches.torch_packed, caches.torch_grouped):
            name = f"{backend.name.split('_')[0].lower()} {form.__name__.removeprefix('torch_')}"
            try:
                with sdpa_kernel(backend):
                    found[name] = graph_time(form, calls=10, replays=10)
            except RuntimeError:  # this backend does not take this form
                torch.cuda.synchronize()
    best = min(found, key=found.__getitem__)
    return best, found[best]


def measure() -> dict[str, Any]:
    """Prints the tables; returns all that is in them."""
    rate = copy_rate()
    device = torch.cuda.get_device_name()
    print(f"\n{device}, torch {torch.__version__}, triton {triton.__version__}, copy {rate / 1e3:.0f} GB/s")
    print("times in µs; GB/s and share of the copy rate count K and V alone\n")
    print(
        "batch context budget | score select attend  GB/s share |  gate+attend  | dense  GB/s share | "
        "torch  | speedup over torch, over dense"
    )
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        try:
            rows.append(_row(*shape, rate))
        except Exception as problem:  # unattended: the other shapes still count
            print(f"{shape}: {type(problem).__name__} {str(problem)[:300]}", flush=True)
        torch.cuda.empty_cache()
    sweeps = [_sweep(*shape) for shape in ((1, 32768, 4096), (8, 32768, 4096))]
    return {
        "device": device,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_gb_s": round(rate / 1e3),
        "shapes": rows,
        "sweeps": sweeps,
    }


def _row(batch: int, context: int, budget: int, rate: float) -> dict[str, Any]:
    caches = Caches(batch, context, budget)
    caches.check()
    score, select = graph_time(caches.score), graph_time(caches.select)
    attend, pipeline, dense = (graph_time(x) for x in (caches.attend, caches.pipeline, caches.dense))
    name, torch_time = torch_dense(caches)
    token = 4 * HEADS * DIM * batch  # bytes
    sparse_rate, dense_rate = budget * token / attend, context * token / dense
    cells = (
        f"{batch:5} {context:7} {budget:6}",
        f"{score:5.1f} {select:6.1f} {attend:6.1f} {sparse_rate / 1e3:5.0f} {sparse_rate / rate:5.2f}",
        f"{pipeline:13.1f}",
        f"{dense:5.0f} {dense_rate / 1e3:5.0f} {dense_rate / rate:5.2f}",
        f"{torch_time:6.1f} {name}",
        f"{torch_time / pipeline:.2f}x, {dense / pipeline:.2f}x",
    )
    print(" | ".join(cells), flush=True)
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "score_us": round(score, 2),
        "select_us": round(select, 2),
        "attend_us": round(attend, 2),
        "attend_of_copy": round(sparse_rate / rate, 3),
        "pipeline_us": round(pipeline, 2),
        "dense_us": round(dense, 2),
        "dense_of_copy": round(dense_rate / rate, 3),
        "torch_us": round(torch_time, 2),
        "torch_is": name,
    }


def _sweep(batch: int, context: int, budget: int) -> dict[str, Any]:
    print(f"\nconstants of attend, batch {batch}, context {context}, budget {budget}: sparse µs, dense µs")
    caches = Caches(batch, context, budget)
    found = []
    for values in SWEEP:
        try:
            with constants(triton_attend, values):
                caches.check()
                times = [round(graph_time(call, replays=15), 2) for call in (caches.attend, caches.dense)]
        except Exception as problem:
            print(f"  {values}: {type(problem).__name__} {str(problem)[:200]}", flush=True)
            continue
        print(f"  {values or 'as they are'}: {times[0]:.1f} {times[1]:.1f}", flush=True)
        found.append({"constants": values, "sparse_us": times[0], "dense_us": times[1]})
    return {"batch": batch, "context": context, "budget": budget, "found": found}
