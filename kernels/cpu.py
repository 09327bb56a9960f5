"""The operations in C++, those of a decode step and of training, and what they take.

Without a compiler, or for shapes that they do not take, the torch definitions run: slower, the same up to
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seer_ray.kernels import compiled
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.limits import RULES, Limits
from seer_ray.kernels.quantise import KV, tensors
from seer_ray.kernels.spans import Spans

MAX_GROUP, MAX_BLOCK, MAX_DIM = 16, 256, 256
FEW = 32
"""Rows up to which our products of bfloat16 are the faster ones where torch's have instructions for it."""
SPLIT_TOKENS = 512
"""Of the pages that are folded into one partial result of ``attend``."""
LANES = 16
"""Keys whose products with a query are computed together."""
DTYPES = (torch.float32, torch.bfloat16)


def takes(cached: KV, group: int, block: int, dim: int) -> bool:
    """Whether the compiled operations run on this cache, or summaries, and these shapes."""
    fits = group <= MAX_GROUP and block <= MAX_BLOCK and dim <= MAX_DIM
    known = cached.device.type == "cpu" and cached.dtype in (*DTYPES, torch.int8)
    return known and fits and compiled.binary() is not None


def takes_rows(*tensors: torch.Tensor) -> bool:
    """Whether the compiled operations on single rows run on these: no gradients flow through them."""
    tracked = torch.is_grad_enabled()
    for tensor in tensors:  # a loop: a step asks hundreds of times
        if not tensor.is_cpu or tensor.dtype not in DTYPES or (tracked and tensor.requires_grad):
            return False
    return compiled.binary() is not None


def takes_projections(x: torch.Tensor, weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> bool:
    """Whether products of these rows with these weights and biases are compiled."""
    if not (x.numel() > 0 and takes_rows(x)) or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype == torch.bfloat16 and x.numel() > FEW * x.shape[-1] and compiled.multiplies_bf16():
        return False
    tracked, dtype = torch.is_grad_enabled(), x.dtype
    for weight in weights:
        for part in weight:
            if part is not None and (
                part.dtype != dtype or not part.is_contiguous() or (tracked and part.requires_grad)
            ):
                return False
    return True


def takes_target(q: torch.Tensor, block: int) -> bool:
    """Whether the distillation target of these queries is compiled."""
    return takes_rows(q) and block % LANES == 0


def takes_states(states: torch.Tensor, *tensors: torch.Tensor) -> bool:
    """Whether the compiled delta rule changes these states, by tensors of one dtype."""
    return (
        states.dtype == torch.float32
        and states.is_contiguous()
        and states.shape[2] <= MAX_DIM
        and len({tensor.dtype for tensor in tensors}) == 1
        and takes_rows(states, *tensors)
    )


def attend(
    q: torch.Tensor,
    kv: KV,
    page_ids: torch.Tensor,
    counts: torch.Tensor,
    tails: torch.Tensor,
    scale: float,
    skips: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    spans: Spans | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """See ``kernels.attend``."""
    numbers, scales = tensors(kv)
    dtype, computed = (kv.dtype, kv.dtype) if scales is None else (q.dtype, torch.float32)
    q, counts, tails = q.to(computed).contiguous(), counts.contiguous(), tails.contiguous()
    if page_ids.stride(2) != 1:
        page_ids = page_ids.contiguous()
    skips, sinks = (part.contiguous() if part is not None else None for part in (skips, sinks))
    starts, lives, most = (None, None, 1) if spans is None else (spans.starts, spans.lives, spans.most)
    # Queries of no row give zeros.
    out = torch.empty_like(q) if spans is None else torch.zeros_like(q)
    split = max(1, SPLIT_TOKENS // kv.shape[3])
    last = (out, split, -1 if window is None else window, most, scale)
    compiled.operation("attend")(
        q, numbers, scales, page_ids, counts, tails, skips, starts, lives, sinks, *last
    )
    return out.to(dtype)


def prefill(
    q: torch.Tensor,
    kv: KV,
    chunks: Chunks,
    scale: float,
    page_ids: torch.Tensor | None,
    counts: torch.Tensor | None,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """See ``kernels.prefill``."""
    numbers, scales = tensors(kv)
    dtype, computed = (kv.dtype, kv.dtype) if scales is None else (q.dtype, torch.float32)
    q = q.to(computed).contiguous()
    if page_ids is not None and page_ids.stride(2) != 1:
        page_ids = page_ids.contiguous()
    counts, sinks = (part.contiguous() if part is not None else None for part in (counts, sinks))
    out, reach = torch.empty_like(q), -1 if window is None else window
    compiled.operation("prefill")(
        q, numbers, scales, chunks.work, chunks.table, page_ids, counts, sinks, out, reach, scale
    )
    return out.to(dtype)


def score(
    features: torch.Tensor, summary: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int
) -> torch.Tensor:
    """See ``kernels.score``."""
    features, lengths = features.float().contiguous(), lengths.contiguous()
    out = torch.empty(*features.shape[:2], page_table.shape[1], dtype=torch.float32)
    compiled.operation("score")(features, summary, page_table, lengths, out, block)
    return out


def select(
    scores: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int, limits: Limits
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.select``; budgets are at least the number of forced blocks."""
    rows, heads, width = scores.shape
    scores, lengths = scores.float().contiguous(), lengths.contiguous()
    page_ids = torch.empty(rows, heads, limits.width(width), dtype=torch.int64)
    counts = torch.empty(rows, heads, dtype=torch.int64)
    rule = RULES.index(limits.rule)
    compiled.operation("select")(
        scores, page_table, lengths, limits.table, page_ids, counts, block, limits.sink, rule
    )
    return page_ids, counts


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See ``kernels.norm``."""
    x = x.contiguous()
    out = torch.empty_like(x)
    compiled.operation("rms_norm")(x, weight, out, eps)
    return out


def rotate_append(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kv: KV,
    pages: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """See ``kernels.append``; q, k, v and a cache that is not int8 are of one dtype, the tables float32."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    cos, sin = cos.contiguous(), sin.contiguous()
    pages, offsets = pages.contiguous(), offsets.contiguous()
    out = torch.empty_like(q)
    compiled.operation("rotate_append")(q, k, v, cos, sin, *tensors(kv), pages, offsets, out)
    return out


def gate_query(
    q: torch.Tensor,
    weight: torch.Tensor,
    norm: torch.Tensor | None,
    table: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    scale: float,
) -> torch.Tensor:
    """See ``kernels.gate_query``."""
    q, weight = q.contiguous(), weight.contiguous()
    cos, sin = (part.contiguous() for part in table) if table is not None else (None, None)
    out = torch.empty(q.shape[0], weight.shape[0], weight.shape[-1], dtype=torch.float32)
    compiled.operation("gate_query")(q, weight, norm, cos, sin, out, eps, scale)
    return out


def projections(
    x: torch.Tensor, weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]]
) -> list[torch.Tensor]:
    """See ``kernels.projection``."""
    x = x.contiguous()
    outs = [x.new_empty((*x.shape[:-1], weight.shape[0])) for weight, _ in weights]
    compiled.operation("projections")(x, [w for w, _ in weights], [b for _, b in weights], outs)
    return outs


def mlp(
    x: torch.Tensor,
    gate: tuple[torch.Tensor, torch.Tensor | None],
    up: tuple[torch.Tensor, torch.Tensor | None],
    down: tuple[torch.Tensor, torch.Tensor | None],
) -> torch.Tensor:
    """See ``kernels.projection``."""
    x = x.contiguous()
    inside, out = (x.new_empty((*x.shape[:-1], weight.shape[0])) for weight, _ in (up, down))
    compiled.operation("mlp")(x, *gate, *up, *down, inside, out)
    return out


def delta_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    b: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """See ``kernels.delta``."""
    # As parts of one product they are strided by rows only.
    q, k, v = (x if x[0].is_contiguous() else x.contiguous() for x in (q, k, v))
    g, b, slots = g.float().contiguous(), b.contiguous(), slots.contiguous()
    out = v.new_empty(v.shape)
    compiled.operation("delta_step")(q, k, v, g, b, states, slots, out, eps)
    return out


def convolve_step(
    x: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """See ``kernels.delta``."""
    x, slots, weight = x.contiguous(), slots.contiguous(), weight.contiguous()
    out = torch.empty_like(x)
    compiled.operation("convolve_step")(x, states, slots, weight, bias, out)
    return out


def target_max(
    q: torch.Tensor, k: torch.Tensor, sums: torch.Tensor, block: int, scale: float, first: int
) -> torch.Tensor:
    """The target of ``kernels.target``, kind ``max``; ``sums [q_heads, tokens]`` are the rows' log sums."""
    (tokens, _, dim), heads = q.shape, k.shape[1]
    blocks = (tokens - 1) // block
    keys = k[: blocks * block].float().view(blocks, block, heads, dim).permute(2, 0, 3, 1).contiguous()
    q, sums = (q.float() * scale).contiguous(), sums.contiguous()
    out = torch.zeros(tokens - first, heads, blocks)
    compiled.operation("target_max")(q, keys, sums, out, first)
    return out
