"""The largest passes that there will be, over a page of nobody: what they take is measured before the cache
is sized, and what compiles or loads at the first pass has done so before anything is."""

from __future__ import annotations

from typing import Any

import torch

from seer_ray.engine.passes import DecodePass, Decoder, Part, PrefillPass
from seer_ray.engine.sparse_prefill import sparse_rows
from seer_ray.kernels.draw import SamplingTensors, draw
from seer_ray.kernels.upload import upload
from seer_ray.models.load import LoadedModel
from seer_ray.models.patch import forward_tokens, logits_of


@torch.inference_mode()
def largest_prefill(loaded: LoadedModel, decoder: Decoder, tokens: int, length: int) -> None:
    """The last ``tokens`` of a prompt of ``length``."""
    cache = decoder.cache
    slot = cache.states.nobody if cache.states is not None else 0
    pages = [[0] * -(-length // cache.block) for _ in cache.groups]
    sparse = sparse_rows(decoder.plan.prefill, length + 1, None, cache.block)
    start = -(-max(0, length - tokens) // cache.block) * cache.block
    part = Part(pages, min(start, length - 1), length, slot, sparse if start < length else None)
    step = PrefillPass(decoder, [part], loaded.device)
    forward_tokens(loaded.model, upload([0] * (part.end - part.start), loaded.device), step)


@torch.inference_mode()
def largest_decode(loaded: LoadedModel, decoder: Decoder, rows: int, length: int) -> None:
    """A step of ``rows`` chains of ``length`` tokens, sampling included."""
    cache, device, model = decoder.cache, loaded.device, loaded.model
    zeros = torch.zeros(rows, dtype=torch.int64, device=device)
    tables = [zeros.unsqueeze(1).repeat(1, -(-length // cache.block)) for _ in cache.groups]
    slots = zeros + cache.states.nobody if cache.states is not None else zeros
    hidden = forward_tokens(model, zeros, DecodePass(decoder, tables, zeros + length - 1, None, slots=slots))
    logits: Any = logits_of(model, hidden).float()
    ones = torch.ones(rows, device=device)
    draw(logits, SamplingTensors(ones, ones / 2, ones, ones, zeros, zeros), True, True, waits=False)
