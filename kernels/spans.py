"""Which of the packed queries of a pass belong to a row: a row may have several, one behind the other."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Spans(NamedTuple):
    """Query ``starts + j`` of a row stands ``lives - 1 - j`` positions before the row's last one. Queries of
    no row fill up a pass of fixed shape; what comes of them is zero."""

    starts: torch.Tensor
    """First query of each row, ``[rows]`` int64."""
    lives: torch.Tensor
    """Queries of each row, ``[rows]`` int64; 0: none."""
    row_of: torch.Tensor
    """Row of each query, ``[queries]`` int64; anything for those of none."""
    most: int
    """Queries of a row, at most."""

    def seen(self, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens that each query sees, and which queries are of a row, ``[queries]`` each.

        Args:
            lengths: that the last query of each row sees, ``[rows]``, or more axes behind that.
        """
        place = torch.arange(len(self.row_of), device=self.row_of.device) - self.starts[self.row_of]
        lives = self.lives[self.row_of]
        behind = (lives - 1 - place).view(-1, *[1] * (lengths.dim() - 1))
        return lengths[self.row_of] - behind, (place >= 0) & (place < lives)
