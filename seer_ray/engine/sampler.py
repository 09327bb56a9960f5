"""From logits to the next token, with noise that depends on (chain, position, token) alone.

A token is drawn by the Gumbel-max trick: argmax of log-probability plus Gumbel noise, where the noise of
each vocabulary entry is a hash of the chain's key, the position and the entry. No generator state is kept,
so a chain draws the same noise in any batch, on any worker and after any restart; and two runs that differ
only in their attention draw *common* noise, which makes their paired differences small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seer_ray.engine.needs import Needs
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.shaping import count_anew, counted_of, shape

NUCLEUS = 1024
"""Candidates looked at first for top-k and top-p; the whole vocabulary is sorted only if they do not do."""
NEUTRAL = (0.0, 1.0, 0.0, 1.0)
"""Temperature, top-p, min-p and repetition penalty of a row that nobody reads."""


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

    def copy(self) -> SamplingTensors:
        return SamplingTensors(**{name: value.clone() for name, value in vars(self).items()})

    def at(self, index: torch.Tensor) -> SamplingTensors:
        """Those of some rows."""
        return SamplingTensors(**{name: value[index] for name, value in vars(self).items()})


def parameters_of(sequence: Sequence, vocabulary: int) -> tuple[tuple[float, ...], tuple[int, int]]:
    """(temperature, top-p, min-p, penalty) and (top-k, key) of the sequence's next token."""
    params = sequence.request.sampling
    floats = params.temperature, params.top_p, params.min_p, params.repetition_penalty
    return floats, (params.top_k if params.top_k < vocabulary else 0, _position_key(sequence))


def may_fall_short(sequence: Sequence, vocabulary: int) -> bool:
    """Whether ``NUCLEUS`` candidates may not do for it."""
    params = sequence.request.sampling
    if params.temperature <= 0:
        return False
    if 0 < params.top_k < vocabulary:
        return params.top_k > NUCLEUS
    return params.top_p < 1


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
    """Next token of each sequence.

    Args:
        logits: ``[rows, vocabulary]``.
        sequences: one a row; all their tokens are cached or being computed, and their masks too.
    """
    logits, needs, device = logits.float(), Needs.of(sequences), logits.device
    floats, integers = zip(*(parameters_of(row, logits.shape[1]) for row in sequences), strict=True)
    params = SamplingTensors(
        *torch.tensor(floats, dtype=torch.float32, device=device).unbind(1),
        *torch.tensor(integers, dtype=torch.int64, device=device).unbind(1),
    )
    if needs.penalty:
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=device)
        for row, sequence in enumerate(sequences):
            seen[row, torch.tensor(sequence.tokens, device=device)] = True
        logits = penalise(logits, params, seen)
    if needs.shaped:
        logits, counted = logits.clone(), counted_of(sequences)
        shape(logits, sequences, counted, count_anew(counted, logits) if counted else None)
    tokens, short = choose(logits, params, needs)
    if needs.ranked:
        complete(tokens, short.nonzero().squeeze(1), logits, params)
    found: list[int] = tokens.tolist()
    return found


def penalise(logits: torch.Tensor, params: SamplingTensors, seen: torch.Tensor) -> torch.Tensor:
    """Repetition penalty on the tokens ``seen [rows, vocabulary]``; a row's penalty of 1 changes nothing."""
    penalty = params.penalty.unsqueeze(1)
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def choose(logits: torch.Tensor, params: SamplingTensors, needs: Needs) -> tuple[torch.Tensor, torch.Tensor]:
    """The next tokens; asks nothing of the host.

    Args:
        logits: fp32 ``[rows, vocabulary]``.
        params: of the rows.
        needs: what there is among them.

    Returns:
        Tokens ``[rows]``, and of which rows they are not known yet, since ``NUCLEUS`` candidates do not do:
        see ``complete``.
    """
    tokens = logits.argmax(-1)
    short = torch.zeros_like(tokens, dtype=torch.bool)
    if needs.plain:
        values, ids = everything(logits, params)
        tokens = torch.where(params.plain, _draw(values, ids, params), tokens)
    if needs.ranked:
        values, ids, short = candidates(logits, params, NUCLEUS)
        tokens = torch.where(params.ranked, _draw(values, ids, params), tokens)
        short = short & params.ranked
    return tokens, short


def complete(
    tokens: torch.Tensor, short: torch.Tensor, logits: torch.Tensor, params: SamplingTensors
) -> None:
    """Chooses for the rows ``short [n]`` anew, from the whole vocabulary, and writes to ``tokens``."""
    if len(short):
        rows = params.at(short)
        values, ids, _ = candidates(logits[short], rows, logits.shape[1])
        tokens[short] = _draw(values, ids, rows)


def everything(logits: torch.Tensor, params: SamplingTensors) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole vocabulary, scaled, after min-p (those removed are -inf), and its token ids."""
    values = _scaled(logits, params)
    return _floored(values, params), torch.arange(logits.shape[1], device=logits.device).expand_as(logits)


def candidates(
    logits: torch.Tensor, params: SamplingTensors, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best ``width`` tokens in falling order, scaled, after top-k, top-p and min-p (those removed are
    -inf), their ids, and the rows ``[rows]`` whose params reach beyond them."""
    scaled = _scaled(logits, params)
    vocabulary = logits.shape[1]
    if width < vocabulary:
        values, ids = scaled.topk(width, dim=-1)
    else:
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
    limited, top_p = params.top_k > 0, params.top_p
    # The mass of top-p and min-p is that of the k tokens.
    rank = torch.arange(values.shape[1], device=logits.device)
    values = values.masked_fill(limited.unsqueeze(1) & (rank >= params.top_k.unsqueeze(1)), float("-inf"))
    held = values.logsumexp(-1)
    whole = torch.where(limited, held, scaled.logsumexp(-1))
    nucleus = top_p < 1
    short = torch.where(limited, params.top_k > width, nucleus & (torch.exp(held - whole) < top_p))
    p = torch.exp(values - whole.unsqueeze(1))
    beyond = (p.cumsum(-1) - p >= top_p.unsqueeze(1)) & nucleus.unsqueeze(1)  # the better ones hold enough
    beyond[:, 0] = False
    return _floored(values.masked_fill(beyond, float("-inf")), params), ids, short & (width < vocabulary)


def _scaled(logits: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    temperature = params.temperature
    return logits / torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)


def _floored(values: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """min-p; of 0 it removes nothing."""
    floor = values.amax(-1) + params.min_p.log()
    return values.masked_fill(values < floor.unsqueeze(1), float("-inf"))


def _draw(values: torch.Tensor, ids: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    best = (values + gumbel(params.keys, ids)).argmax(-1, keepdim=True)
    return ids.gather(1, best).squeeze(1)


def _position_key(sequence: Sequence) -> int:
    """64 bits of (chain, position), as a signed integer."""
    mixed = _splitmix(sequence.noise_key ^ _splitmix(sequence.length - sequence.prompt_length))
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
