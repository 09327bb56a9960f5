"""How a layer of a hosted model turns its q and k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from seer_ray.config.errors import ConfigError
from seer_ray.kernels.rotary import rotate
from seer_ray.models.rope import RopeTable

Table = tuple[torch.Tensor, torch.Tensor]
"""cos and sin ``[tokens, angles]`` as a model's rotary module gives them, once or twice each angle."""
Ask = Callable[[int, tuple[Any, ...]], Table]
"""That module, at positions from 0 to before a number."""


@dataclass(frozen=True)
class Rotation:
    """Of the q and k of one layer, in the form of ``kernels``.

    Those turn the whole head in rotate-half form: channel i with channel i + head_dim / 2. Models may turn
    the first part of it only, in halves of that part or in neighbours. Once channels are in another order
    that is the same, with angles of 0 for those that are not turned; products of q and k do not mind it.
    """

    head_dim: int
    order: tuple[int, ...] | None
    """Channels of the model in the order of ``kernels``; None: as they are."""
    pairs: int
    """Channels that are turned, by two."""
    more: tuple[Any, ...]
    """What the model's module is asked for beside positions."""
    ask: Ask

    @classmethod
    def found(
        cls,
        still: torch.Tensor | None,
        turned: torch.Tensor | None,
        tables: Sequence[tuple[Table, tuple[Any, ...]]],
        ask: Ask,
    ) -> Rotation | None:
        """The one that makes of queries what the model made of them.

        Args:
            still, turned: ``[tokens, q_heads, head_dim]`` before and after; None: the layer has none.
            tables: what the model's module gave meanwhile, and what it was asked for.
            ask: that module.

        Returns:
            None where nothing is turned.

        Raises:
            ConfigError: none is known.
        """
        if still is None or turned is None or torch.equal(still, turned):
            return None
        head_dim = still.shape[-1]
        for table, more in tables:
            pairs = angles(table[0])
            for order in _orders(pairs, head_dim):
                rotation = cls(head_dim, order, pairs, more, ask)
                made = rotate(rotation.ordered(still), *rotation._whole(table))
                off = (made - rotation.ordered(turned)).abs().max()
                if off <= 1e-2 * turned.abs().max():  # in bfloat16 too
                    return rotation
        raise ConfigError("its layers turn q and k in a way that is not known here")

    def ordered(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., head_dim]`` with channels in the order of ``kernels``."""
        return x if self.order is None else x[..., torch.tensor(self.order, device=x.device)]

    def table(self, positions: int) -> RopeTable:
        """For ``kernels``, ``[positions, head_dim]``."""
        return RopeTable.of(*self._whole(self.ask(positions, self.more)))

    def _whole(self, table: Table) -> Table:
        """One angle for each channel of the head, in the order of ``kernels``."""
        rest = self.head_dim // 2 - self.pairs
        cos, sin = (
            pad(x[:, : self.pairs], (0, rest), value=v) for x, v in zip(table, (1.0, 0.0), strict=True)
        )
        return torch.cat((cos, cos), 1), torch.cat((sin, sin), 1)


def angles(cos: torch.Tensor) -> int:
    """Different ones: most modules give each twice, for the two channels that it turns."""
    first, second = cos.chunk(2, dim=1)
    return first.shape[1] if torch.equal(first, second) else cos.shape[1]


def _orders(pairs: int, head_dim: int) -> list[tuple[int, ...] | None]:
    """Halves of the turned part, and neighbours."""
    if 2 * pairs > head_dim:
        return []
    rest = tuple(range(2 * pairs, head_dim))
    half = len(rest) // 2
    found: list[tuple[int, ...] | None] = []
    for firsts, seconds in (
        (range(pairs), range(pairs, 2 * pairs)),
        (range(0, 2 * pairs, 2), range(1, 2 * pairs, 2)),
    ):
        order = (*firsts, *rest[:half], *seconds, *rest[half:])
        found.append(None if order == tuple(range(head_dim)) else order)
    return found
