"""From logits to the next token, with noise that depends on (chain, position, token) alone.

A token is drawn by the Gumbel-max trick: argmax of log-probability plus Gumbel noise, where the noise of
each vocabulary entry is a hash of the chain's key, the position and the entry. No generator state is kept,
so a chain draws the same noise in any batch, on any worker and after any restart; and two runs that differ
only in their attention draw *common* noise, which makes their paired differences small.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch.nn.functional import pad

from seer_ray.engine.request import SamplingParams
from seer_ray.engine.sequence import Sequence

NUCLEUS = 1024
"""Candidates looked at first for top-p; the whole vocabulary is sorted only if they hold too little mass."""


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
    """Next token of each sequence.

    Args:
        logits: ``[rows, vocabulary]``.
        sequences: one a row; all their tokens are cached or being computed.
    """
    logits = logits.float()
    tokens = torch.empty(len(sequences), dtype=torch.int64, device=logits.device)
    groups: defaultdict[SamplingParams, list[int]] = defaultdict(list)
    for row, sequence in enumerate(sequences):
        groups[sequence.request.sampling].append(row)
    for params, rows in groups.items():
        index = torch.tensor(rows, device=logits.device)
        tokens[index] = _sample_group(logits[index], params, [sequences[row] for row in rows])
    return tokens.tolist()


def _sample_group(logits: torch.Tensor, params: SamplingParams, sequences: list[Sequence]) -> torch.Tensor:
    if params.repetition_penalty != 1.0:
        for row, sequence in enumerate(sequences):
            seen = torch.tensor(sorted(set(sequence.tokens)), device=logits.device)
            values = logits[row, seen]
            penalty = params.repetition_penalty
            logits[row, seen] = torch.where(values < 0, values * penalty, values / penalty)
    if params.temperature == 0.0:
        return logits.argmax(-1)
    values, ids = candidates(logits / params.temperature, params)
    keys = torch.tensor([_position_key(s) for s in sequences], dtype=torch.int64, device=logits.device)
    return ids.gather(1, (values + gumbel(keys, ids)).argmax(-1, keepdim=True)).squeeze(1)


def candidates(logits: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled logits after top-k, top-p and min-p (those removed are -inf) and their token ids."""
    vocabulary = logits.shape[-1]
    if 0 < params.top_k < vocabulary:
        values, ids = logits.topk(params.top_k, dim=-1)
        logits = values  # the mass of top-p and min-p is that of the k tokens
    elif params.top_p < 1.0:
        values, ids = logits.topk(min(NUCLEUS, vocabulary), dim=-1)
        mass = torch.exp(values.logsumexp(-1) - logits.logsumexp(-1))
        flat = (mass < params.top_p).nonzero().squeeze(1)
        if len(flat) and vocabulary > NUCLEUS:
            # Those rows alone: what a row gets must not depend on its batch mates, not even among ties.
            values = pad(values, (0, vocabulary - NUCLEUS), value=float("-inf"))
            ids = pad(ids, (0, vocabulary - NUCLEUS))
            values[flat], ids[flat] = logits[flat].sort(dim=-1, descending=True, stable=True)
    else:
        values = logits
        ids = torch.arange(vocabulary, device=logits.device).expand_as(logits)
    if params.top_p < 1.0:
        p = torch.exp(values - logits.logsumexp(-1, keepdim=True))
        beyond = p.cumsum(-1) - p >= params.top_p  # the better tokens hold enough
        beyond[:, 0] = False
        values = values.masked_fill(beyond, float("-inf"))
    if params.min_p > 0.0:
        floor = values.amax(-1, keepdim=True) + math.log(params.min_p)
        values = values.masked_fill(values < floor, float("-inf"))
    return values, ids


def _position_key(sequence: Sequence) -> int:
    """64 bits of (chain, position), as a signed integer."""
    mixed = _splitmix(sequence.noise_key ^ _splitmix(len(sequence.tokens) - sequence.prompt_length))
    return mixed - (1 << 64) if mixed >> 63 else mixed


def _splitmix(x: int) -> int:
    """SplitMix64's finaliser (Steele et al., 2014) on Python integers."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def gumbel(keys: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise of (key, token id): ``keys [rows]`` int64, ``ids [rows, n]`` -> fp32 like ids.

    Two rounds of a 32-bit integer hash (Wellons' lowbias32), keyed by the halves of the key. Integer
    arithmetic wraps alike on every device, so the bits are the same on CPU and GPU.
    """
    low = (keys & 0xFFFFFFFF).unsqueeze(1).to(torch.int32)
    high = (keys >> 32).unsqueeze(1).to(torch.int32)
    x = _lowbias32(ids.to(torch.int32) ^ low)
    x = _lowbias32(x ^ high)
    return _uniform(x).log_().neg_().log_().neg_()


def _uniform(bits: torch.Tensor) -> torch.Tensor:
    """Odd multiples of 2^-24 from int32: exact in fp32, and never 0 or 1, whose noise would be infinite."""
    return ((bits >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)


def _lowbias32(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B
    return x ^ ((x >> 16) & 0xFFFF)
