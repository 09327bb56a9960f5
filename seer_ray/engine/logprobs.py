"""Log-probabilities of the tokens of a step, for the rows that ask.

They are the model's own: of the logits before penalties, temperature and all that removes tokens.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch

from seer_ray.engine.needs import LOGPROBS
from seer_ray.engine.sequence import Sequence
from seer_ray.kernels.upload import upload


class Logprobs:
    """Of one step.

    Args:
        logits: fp32 ``[rows, vocabulary]``, as the model gives them; the first rows are the sequences'.
        sequences: of the step.
    """

    def __init__(self, logits: torch.Tensor, sequences: Seq[Sequence]) -> None:
        asking = [
            (row, s.request.sampling.logprobs or 0) for row, s in enumerate(sequences) if s.needs & LOGPROBS
        ]
        self._wanted = dict(asking)
        self._rows = upload([row for row, _ in asking], logits.device)
        self._scores = logits[self._rows].log_softmax(-1)
        most = min(max(wanted for _, wanted in asking), logits.shape[1])
        values, ids = self._scores.topk(most)
        self._top = torch.cat([values, ids.float()], 1)  # exact: no vocabulary has 2^24 entries

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of the chosen tokens ``[rows]`` and of the top ones, fp32 ``[rows that ask, 1 + 2 * most]``."""
        chosen = self._scores.gather(1, tokens[self._rows].unsqueeze(1))
        return torch.cat([chosen, self._top], 1)

    def spell(self, found: torch.Tensor) -> dict[int, bytes]:
        """What ``of`` gave, by row, as ``TokenLogprobs`` travel."""
        most = (found.shape[1] - 1) // 2
        spelled = {}
        for (row, wanted), values in zip(self._wanted.items(), found.numpy(), strict=True):
            count = min(wanted, most)
            kept = [values[: 1 + count], values[1 + most : 1 + most + count]]
            spelled[row] = np.concatenate(kept).tobytes()
        return spelled
