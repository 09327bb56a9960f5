"""From logits to the next token: temperature, top-k, top-p, min-p, and noise that is a hash of (key, token).

A token is drawn by the Gumbel-max trick: argmax of log-probability plus Gumbel noise, where the noise of each
vocabulary entry is a hash of the row's key and the entry. No generator state is kept.

Tokens are ranked by value, equals by id. Mass is counted in steps of 2^-30 of the best token's: sums of
integers are the same in any order, so that what top-p keeps is the same however it is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seer_ray.kernels import gpu

NUCLEUS = 64, 1024
"""Candidates looked at for top-k and top-p on a CPU, more where the fewer do not do; the whole vocabulary is
sorted for what is left."""
MASS = float(1 << 30)
"""Of the best token. Of a vocabulary of 2^22 the sum is still exact as a double."""


@dataclass(frozen=True)
class SamplingTensors:
    """How each row is sampled, ``[rows]`` each: a batch may mix all kinds."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    penalty: torch.Tensor
    top_k: torch.Tensor
    """0: no limit."""
    keys: torch.Tensor
    """64 bits of (chain, position): the noise."""

    @property
    def ranked(self) -> torch.Tensor:
        return (self.temperature > 0) & ((self.top_k > 0) | (self.top_p < 1))

    @property
    def plain(self) -> torch.Tensor:
        return (self.temperature > 0) & ~self.ranked

    def at(self, index: torch.Tensor) -> SamplingTensors:
        """Those of some rows."""
        return SamplingTensors(**{name: value[index] for name, value in vars(self).items()})


def draw(
    logits: torch.Tensor, params: SamplingTensors, plain: bool, ranked: bool, waits: bool
) -> torch.Tensor:
    """The next tokens, ``[rows]`` int64.

    Args:
        logits: ``[rows, vocabulary]``.
        params: of the rows; the penalty is whoever made the logits' affair.
        plain: some rows draw from the whole vocabulary.
        ranked: some draw from the best tokens.
        waits: the host may wait for the device here.
    """
    if gpu.takes(logits):
        from seer_ray.kernels import triton_draw

        return triton_draw.draw(logits, params)
    logits = logits.float()
    tokens = logits.argmax(-1)
    if plain:
        tokens = torch.where(params.plain, _best(*everything(logits, params), params), tokens)
    if ranked and not waits:
        tokens = torch.where(params.ranked, reference(logits, params), tokens)
    elif ranked:
        left = params.ranked.nonzero().squeeze(1)
        for width in NUCLEUS:
            rows = params.at(left)
            values, ids, short = candidates(logits[left], rows, width)
            tokens[left] = _best(values, ids, rows)
            left = left[short]
            if not len(left):
                return tokens
        tokens[left] = reference(logits[left], params.at(left))
    return tokens


def reference(logits: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """The definition for rows of top-k and top-p: the whole vocabulary is sorted."""
    values, ids, _ = candidates(logits.float(), params, logits.shape[1])
    return _best(values, ids, params)


def everything(logits: torch.Tensor, params: SamplingTensors) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole vocabulary, scaled, after min-p (those removed are -inf), and its token ids."""
    values = _scaled(logits, params)
    return _floored(values, params), torch.arange(logits.shape[1], device=logits.device).expand_as(logits)


def candidates(
    logits: torch.Tensor, params: SamplingTensors, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best ``width`` tokens in order, scaled, after top-k, top-p and min-p (those removed are -inf),
    their ids, and the rows ``[rows]`` of which that is not known from so many."""
    scaled = _scaled(logits, params)
    vocabulary = logits.shape[1]
    if width < vocabulary:
        ids = scaled.topk(width, dim=-1).indices.sort(dim=-1).values
        values, order = scaled.gather(1, ids).sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(1, order)
    else:
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
    limited, nucleus = params.top_k > 0, params.top_p < 1
    # The mass of top-p and min-p is that of the k tokens.
    rank = torch.arange(values.shape[1], device=logits.device)
    over = limited.unsqueeze(1) & (rank >= params.top_k.unsqueeze(1))
    parts = mass(values, values[:, :1]).masked_fill_(over, 0)
    whole = torch.where(limited, parts.sum(-1), mass(scaled, values[:, :1]).sum(-1))
    wanted = (params.top_p.double() * whole.double()).unsqueeze(1)
    beyond = (parts.cumsum(-1) - parts >= wanted) & nucleus.unsqueeze(1)  # the better ones hold enough
    beyond[:, 0] = False
    removed = over | beyond
    # Less than all that is kept is the last one: else one of those outside may be among the kept.
    least = values.masked_fill(removed, float("inf")).amin(-1)
    done = removed[:, -1] & (values[:, -1] < least) & (params.top_k <= width)
    return _floored(values.masked_fill(removed, float("-inf")), params), ids, ~done & (width < vocabulary)


def mass(values: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Of tokens with these scaled logits, int64."""
    return (torch.exp(values - best) * MASS).to(torch.int64)


def _scaled(logits: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    temperature = params.temperature
    return logits / torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)


def _floored(values: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """min-p; of 0 it removes nothing."""
    floor = values.amax(-1) + params.min_p.log()
    return values.masked_fill(values < floor.unsqueeze(1), float("-inf"))


def _best(values: torch.Tensor, ids: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    best = (values + gumbel(params.keys, ids)).argmax(-1, keepdim=True)
    return ids.gather(1, best).squeeze(1)


def gumbel(keys: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise of (key, token id): ``keys [rows]`` int64, ``ids [rows, n]`` -> fp32 like ids.

    Two rounds of a 32-bit integer hash (Wellons' lowbias32), keyed by the halves of the key. Integer
    arithmetic wraps alike on every device, so the bits are the same on CPU and GPU.
    """
    low = (keys & 0xFFFFFFFF).unsqueeze(1).to(torch.int32)
    high = (keys >> 32).unsqueeze(1).to(torch.int32)
    x = _lowbias32(ids.to(torch.int32) ^ low)
    x = _lowbias32(x ^ high)
    return uniform(x).log_().neg_().log_().neg_()


def uniform(bits: torch.Tensor) -> torch.Tensor:
    """Odd multiples of 2^-24 from int32: exact in fp32, and never 0 or 1, whose noise would be infinite."""
    return ((bits >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)


def _lowbias32(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B
    return x ^ ((x >> 16) & 0xFFFF)
