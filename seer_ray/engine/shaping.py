"""What some requests ask of the logits beyond temperature, ranks and the repetition penalty.

Only rows that ask are touched. In this order: presence and frequency penalty on tokens generated so far, the
bias of single tokens, no end before the least length, and the form that a completion must have.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import cache

import numpy as np
import torch

from seer_ray.engine.needs import COUNTED, SHAPED
from seer_ray.engine.sequence import Sequence
from seer_ray.kernels.upload import upload

Asked = list[tuple[int, Sequence]]
"""Row of the batch, and what stands there."""


class TokenCounts:
    """How often each token was generated, int32 by row of the page table, on the device.

    Args:
        slots: rows of the page table.
        vocabulary: entries of the logits.
        device: of the logits.
    """

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._size, self._device = (slots, vocabulary), device
        self._counts: torch.Tensor | None = None
        self._of: list[tuple[Sequence, int] | None] = [None] * slots

    def advance(self, asked: Asked, ids: torch.Tensor) -> torch.Tensor:
        """Counts ``[asked, vocabulary]`` with the tokens ``ids [rows]`` that the step is given, read by the
        host or not; those of sequences that are new in their rows are made anew."""
        if self._counts is None:  # few ask for it
            self._counts = torch.zeros(self._size, dtype=torch.int32, device=self._device)
        fed = []
        for row, sequence in asked:
            slot, at = sequence.slot, sequence.cached
            if self._of[slot] != (sequence, at):
                self._counts[slot] = _counts(sequence.tokens[sequence.prompt_length : at], self._counts)
            self._of[slot] = sequence, at + 1
            if at >= sequence.prompt_length:
                fed.append((slot, row))
        if fed:
            slots, rows = upload([[slot for slot, _ in fed], [row for _, row in fed]], self._device)
            self._counts[slots, ids[rows]] += 1
        return self._counts[upload([sequence.slot for _, sequence in asked], self._device)]


def counted_of(sequences: Seq[Sequence]) -> Asked:
    """Those with penalties by count."""
    return [(row, sequence) for row, sequence in enumerate(sequences) if sequence.needs & COUNTED]


def count_anew(asked: Asked, logits: torch.Tensor) -> torch.Tensor:
    """As ``TokenCounts.advance``, from the tokens alone: where the host has read them all."""
    return torch.stack([_counts(s.tokens[s.prompt_length :], logits) for _, s in asked])


def _counts(tokens: Seq[int], like: torch.Tensor) -> torch.Tensor:
    ids = upload(tokens, like.device)
    # Not bincount, which asks the device for the largest.
    counts = torch.zeros(like.shape[1], dtype=torch.int32, device=like.device)
    return counts.index_add_(0, ids, torch.ones_like(ids, dtype=torch.int32))


def shape(
    logits: torch.Tensor, sequences: Seq[Sequence], counted: Asked, counts: torch.Tensor | None
) -> None:
    """Changes ``logits``, fp32 ``[rows, vocabulary]``, in place.

    Args:
        logits: the first rows are those of ``sequences``.
        sequences: of the step; the forms of those that have one are being computed (``guide.prepare``).
        counted: those with penalties by count.
        counts: of their tokens, ``[counted, vocabulary]``.
    """
    if counts is not None:
        _penalise(logits, counted, counts)
    asking = [(row, sequence) for row, sequence in enumerate(sequences) if sequence.needs & SHAPED]
    biased = [(row, s.request.sampling.logit_bias) for row, s in asking if s.request.sampling.logit_bias]
    if biased:
        rows, ids = upload(
            [[row for row, bias in biased for _ in bias], [id for _, bias in biased for id, _ in bias]],
            logits.device,
        )
        values = [value for _, bias in biased for _, value in bias]
        logits[rows, ids] += upload(values, logits.device, torch.float32)
    young = [
        (row, s.request.sampling)
        for row, s in asking
        if s.length - s.prompt_length < s.least and s.guide is None  # whose form says where it ends
    ]
    # A row may name an end token that the model does not have.
    ends = [(row, id) for row, params in young for id in params.eos_token_ids if id < logits.shape[1]]
    if ends:
        rows, ids = upload([[row for row, _ in ends], [id for _, id in ends]], logits.device)
        logits[rows, ids] = float("-inf")
    guided = [(row, s.guide) for row, s in asking if s.guide is not None and s.guide.active]
    if guided:
        bits = _moved(np.stack([guide.mask() for _, guide in guided]), logits.device)
        allowed = (bits.unsqueeze(-1) & _powers(logits.device)).ne(0).flatten(1)[:, : logits.shape[1]]
        rows = upload([row for row, _ in guided], logits.device)
        logits[rows] = logits[rows].masked_fill(~allowed, float("-inf"))


def _penalise(logits: torch.Tensor, counted: Asked, counts: torch.Tensor) -> None:
    params = [sequence.request.sampling for _, sequence in counted]
    said = [[p.frequency_penalty for p in params], [p.presence_penalty for p in params]]
    frequency, presence = upload(said, logits.device, torch.float32).unsqueeze(-1)
    rows = upload([row for row, _ in counted], logits.device)
    logits[rows] = logits[rows] - frequency * counts - presence * (counts > 0)


def _moved(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """As ``upload``."""
    host = torch.from_numpy(array)
    return host if device.type != "cuda" else host.pin_memory().to(device, non_blocking=True)


@cache
def _powers(device: torch.device) -> torch.Tensor:
    return torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=device)
