"""From logits to the next token of sequences, with noise that depends on (chain, position, token) alone.

A chain draws the same noise in any batch, on any worker and after any restart; and two runs that differ only
in their attention draw *common* noise, which makes their paired differences small. How a token is drawn is
``kernels.draw``'s; here is what the sequences ask.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch

from seer_ray.engine.needs import Needs
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.shaping import count_anew, counted_of, shape
from seer_ray.kernels.draw import SamplingTensors, draw

NEUTRAL = (0.0, 1.0, 0.0, 1.0)
"""Temperature, top-p, min-p and repetition penalty of a row that nobody reads."""


class Parameters:
    """How sequences are sampled, remembered by place: of a chain that stays, only the position changes.

    Args:
        places: that there are.
        vocabulary: entries of the logits.
    """

    def __init__(self, places: int, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._of: list[Sequence | None] = [None] * places
        self._floats = np.zeros((4, places), np.float32)
        self._top_k, self._prompts = np.zeros((2, places), np.int64)
        self._noise = np.zeros(places, np.uint64)

    def of(self, sequences: Seq[Sequence], places: Seq[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of their next tokens: temperature, top-p, min-p and penalty ``[4, rows]``; top-k and the key of the
        noise ``[2, rows]``."""
        for sequence, place in zip(sequences, places, strict=True):
            if self._of[place] is not sequence:
                self._learn(sequence, place)
        at = np.array(places, np.int64)
        positions = np.array([sequence.length for sequence in sequences], np.int64) - self._prompts[at]
        keys = _splitmix(self._noise[at] ^ _splitmix(positions.view(np.uint64)))
        return self._floats[:, at], np.stack([self._top_k[at], keys.view(np.int64)])

    def _learn(self, sequence: Sequence, place: int) -> None:
        params = sequence.request.sampling
        self._of[place] = sequence
        self._floats[:, place] = (params.temperature, params.top_p, params.min_p, params.repetition_penalty)
        self._top_k[place] = params.top_k if params.top_k < self._vocabulary else 0
        self._noise[place], self._prompts[place] = sequence.noise_key, sequence.prompt_length


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
    """Next token of each sequence.

    Args:
        logits: ``[rows, vocabulary]``.
        sequences: one a row; all their tokens are cached or being computed, and their masks too.
    """
    logits, needs, device = logits.float(), Needs.of(sequences), logits.device
    made = Parameters(len(sequences), logits.shape[1]).of(sequences, range(len(sequences)))
    floats, integers = (torch.from_numpy(part).to(device) for part in made)
    params = SamplingTensors(*floats.unbind(), *integers.unbind())
    if needs.penalty:
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=device)
        for row, sequence in enumerate(sequences):
            seen[row, torch.tensor(sequence.tokens, device=device)] = True
        logits = penalise(logits, params, seen)
    if needs.shaped:
        logits, counted = logits.clone(), counted_of(sequences)
        shape(logits, sequences, counted, count_anew(counted, logits) if counted else None)
    found: list[int] = draw(logits, params, needs.plain, needs.ranked, waits=True).tolist()
    return found


def penalise(logits: torch.Tensor, params: SamplingTensors, seen: torch.Tensor) -> torch.Tensor:
    """Repetition penalty on the tokens ``seen [rows, vocabulary]``; a row's penalty of 1 changes nothing."""
    penalty = params.penalty.unsqueeze(1)
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _splitmix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al., 2014) on uint64, which wraps."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
