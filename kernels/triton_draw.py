"""The next token of each row in one launch: ``draw`` on a GPU.

One program a row. What top-k and top-p keep is found without sorting: scaled logits become unsigned integers
of the same order, and the edge between kept and removed is found two bits at a time, by counts and by sums of
integers, which are the same in any order. Of equals at the edge the first ones are kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from seer_ray.kernels.draw import MASS, SamplingTensors

TILE = 2048
WARPS = 16
BEST = tl.constexpr(MASS)


def draw(logits: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """See ``kernels.draw``. Asks nothing of the host, whatever the rows want."""
    rows, vocabulary = logits.shape
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    draw_row[(rows,)](
        logits,
        params.temperature,
        params.top_p,
        params.min_p,
        params.top_k,
        params.keys,
        tokens,
        vocabulary,
        logits.stride(0),
        TILE=TILE,
        num_warps=WARPS,
    )
    return tokens


@triton.jit
def _scaled(logits_ptr, at, vocabulary, temperature):
    x = tl.load(logits_ptr + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
    return tl.div_rn(x, tl.zeros_like(x) + temperature)


@triton.jit
def _keys(value):
    """As ``uint32`` of the same order."""
    value = tl.where(value == 0, 0.0, value)  # -0 is not below 0
    bits = value.to(tl.uint32, bitcast=True)
    return tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def _mass(value, best):
    return (tl.exp(value - best) * BEST).to(tl.int64)


@triton.jit
def _lowbias32(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _gumbel(key, token):
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)
    bits = _lowbias32(_lowbias32(token.to(tl.uint32) ^ low) ^ high)
    uniform = ((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2^-23
    return -tl.log(-tl.log(uniform))


@triton.jit(do_not_specialize=["vocabulary", "logits_row"])
def draw_row(
    logits_ptr,
    temperature_ptr,
    top_p_ptr,
    min_p_ptr,
    top_k_ptr,
    keys_ptr,
    tokens_ptr,
    vocabulary,
    logits_row,
    TILE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * logits_row
    temperature = tl.load(temperature_ptr + row)
    top_p = tl.load(top_p_ptr + row)
    top_k = tl.load(top_k_ptr + row).to(tl.int32)
    lane = tl.arange(0, TILE)
    draws = temperature > 0
    temperature = tl.where(draws, temperature, 1.0)

    highest = tl.full([TILE], float("-inf"), tl.float32)
    for start in range(0, vocabulary, TILE):
        highest = tl.maximum(highest, _scaled(logits_ptr, start + lane, vocabulary, temperature))
    best = tl.max(highest, 0)
    edge = tl.zeros([1], tl.uint32)  # kept is what is above, and of what is at it the first ones
    ties = tl.zeros([1], tl.int32) + vocabulary
    above = tl.zeros([1], tl.int64)  # mass above the edge
    wanted = tl.full([1], float("inf"), tl.float64)

    if draws & (top_k > 0):
        for digit in range(16):
            shift = 30 - 2 * digit
            one = tl.zeros([TILE], tl.int32)
            two = tl.zeros([TILE], tl.int32)
            three = tl.zeros([TILE], tl.int32)
            for start in range(0, vocabulary, TILE):
                at = start + lane
                key = _keys(_scaled(logits_ptr, at, vocabulary, temperature))
                inside = at < vocabulary
                one += (inside & (key >= (edge | (tl.full([1], 1, tl.uint32) << shift)))).to(tl.int32)
                two += (inside & (key >= (edge | (tl.full([1], 2, tl.uint32) << shift)))).to(tl.int32)
                three += (inside & (key >= (edge | (tl.full([1], 3, tl.uint32) << shift)))).to(tl.int32)
            enough = (tl.sum(one, 0) >= top_k).to(tl.uint32) + (tl.sum(two, 0) >= top_k).to(tl.uint32)
            enough += (tl.sum(three, 0) >= top_k).to(tl.uint32)
            edge = edge | (enough << shift)
        over = tl.zeros([TILE], tl.int32)
        for start in range(0, vocabulary, TILE):
            at = start + lane
            key = _keys(_scaled(logits_ptr, at, vocabulary, temperature))
            over += ((at < vocabulary) & (key > edge)).to(tl.int32)
        ties = top_k - tl.sum(over, 0) + tl.zeros([1], tl.int32)

    if draws & (top_p < 1):
        # All that top-k keeps: of its edge so many, each of the same mass.
        more = tl.zeros([TILE], tl.int64)
        at_edge = tl.zeros([TILE], tl.int64)
        for start in range(0, vocabulary, TILE):
            at = start + lane
            value = _scaled(logits_ptr, at, vocabulary, temperature)
            key = _keys(value)
            part = _mass(value, best)
            more += tl.where((at < vocabulary) & (key > edge), part, 0)
            at_edge = tl.maximum(at_edge, tl.where((at < vocabulary) & (key == edge), part, 0))
        whole = tl.sum(more, 0) + tl.max(at_edge, 0) * ties
        wanted = tl.zeros([1], tl.float64) + top_p.to(tl.float64) * whole.to(tl.float64)
        found = tl.zeros([1], tl.uint32)
        for digit in range(16):
            shift = 30 - 2 * digit
            one = tl.zeros([TILE], tl.int64)
            two = tl.zeros([TILE], tl.int64)
            three = tl.zeros([TILE], tl.int64)
            for start in range(0, vocabulary, TILE):
                at = start + lane
                value = _scaled(logits_ptr, at, vocabulary, temperature)
                key = _keys(value)
                part = tl.where(at < vocabulary, _mass(value, best), 0)
                one += tl.where(key >= (found | (tl.full([1], 1, tl.uint32) << shift)), part, 0)
                two += tl.where(key >= (found | (tl.full([1], 2, tl.uint32) << shift)), part, 0)
                three += tl.where(key >= (found | (tl.full([1], 3, tl.uint32) << shift)), part, 0)
            enough = (tl.sum(one, 0).to(tl.float64) >= wanted).to(tl.uint32)
            enough += (tl.sum(two, 0).to(tl.float64) >= wanted).to(tl.uint32)
            enough += (tl.sum(three, 0).to(tl.float64) >= wanted).to(tl.uint32)
            found = found | (enough << shift)
        found = tl.minimum(found, _keys(tl.zeros([1], tl.float32) + best))  # of nothing wanted, the best one
        ties = tl.where(found > edge, vocabulary, ties)
        edge = tl.maximum(edge, found)
        more = tl.zeros([TILE], tl.int64)
        for start in range(0, vocabulary, TILE):
            at = start + lane
            value = _scaled(logits_ptr, at, vocabulary, temperature)
            more += tl.where((at < vocabulary) & (_keys(value) > edge), _mass(value, best), 0)
        above = tl.sum(more, 0) + tl.zeros([1], tl.int64)

    floor = best + tl.log(tl.load(min_p_ptr + row))
    key_of_row = tl.load(keys_ptr + row)
    score = tl.full([TILE], float("-inf"), tl.float32)
    token = tl.zeros([TILE], tl.int32) + vocabulary
    before = tl.zeros([1], tl.int32)
    for start in range(0, vocabulary, TILE):
        at = start + lane
        value = _scaled(logits_ptr, at, vocabulary, temperature)
        new = value
        if draws:
            key = _keys(value)
            tie = (key == edge) & (at < vocabulary)
            rank = before + tl.cumsum(tie.to(tl.int32), 0) - 1
            before += tl.sum(tie.to(tl.int32), 0)
            mass = (above + rank * _mass(value, best)).to(tl.float64)
            first = (rank == 0) & (value == best)  # is kept, whatever is wanted
            keep = (key > edge) | (tie & (rank < ties) & ((mass < wanted) | first))
            keep = keep & (value >= floor)
            new = tl.where(keep, value + _gumbel(key_of_row, at), float("-inf"))
        token = tl.where((at < vocabulary) & ((new > score) | (token == vocabulary)), at, token)
        score = tl.maximum(score, new)
    most = tl.max(score, 0)
    tl.store(tokens_ptr + row, tl.min(tl.where(score == most, token, vocabulary), 0).to(tl.int64))
