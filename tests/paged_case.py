"""A paged cache with a selection, and attention over it written out: ``from paged_case import Case``."""

from __future__ import annotations

import torch

from seer_ray.kernels.quantise import KV, Quantised, quantise


class Case:
    """A cache in which everything is NaN but page 0 and the tokens that may be read.

    ``page_ids [rows, heads, k]``: rows share pages, slots past the count hold garbage. Drawn on the CPU: the
    same on every device. With a ``kv_dtype`` it is quantised, and the scales are NaN instead.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        rows: int = 3,
        heads: int = 2,
        group: int = 4,
        dim: int = 64,
        block: int = 16,
        k: int = 11,
        seed: int = 0,
        device: str = "cpu",
        kv_dtype: torch.dtype | None = None,
        skips: bool = False,
        sinks: bool = False,
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        pages = 4 * k
        self.block, self.dim, self.group = block, dim, group
        self.scale = dim**-0.5
        self.counts = torch.randint(1, k + 1, (rows, heads), generator=draw)
        self.counts[0, 0], self.counts[-1, -1] = 1, k
        self.tails = torch.randint(1, block + 1, (rows,), generator=draw)
        self.tails[0] = 1
        self.page_ids = torch.full((rows, heads, k), 2**40)
        self.q = (2 * torch.randn(rows, heads * group, dim, generator=draw)).to(dtype)
        live = torch.randn(pages, heads, 2, block, dim, generator=draw).to(dtype)
        self.kv: KV = torch.full_like(live, float("nan"))
        self.kv[0] = 0
        # A row's last page is its own: others would read its unwritten tail. The rest is drawn from all.
        for row in range(rows):
            for head in range(heads):
                count = int(self.counts[row, head])
                shared = 1 + rows + torch.randperm(pages - 1 - rows, generator=draw)
                ids = torch.cat((shared[: count - 1], torch.tensor([1 + row])))
                self.page_ids[row, head, :count] = ids
                tail = int(self.tails[row])
                self.kv[ids[:-1], head] = live[ids[:-1], head]
                self.kv[1 + row, head, :, :tail] = live[1 + row, head, :, :tail]
        # The first page of a row with one page is its last: the tail must be seen.
        ends = torch.where((self.counts == 1).any(1), self.tails - 1, block - 1)
        self.skips = (torch.rand(rows, generator=draw) * (ends + 1)).long() if skips else None
        self.sinks = 3 * torch.randn(heads * group, generator=draw) if sinks else None
        self.to(device)
        self.kv = kept_as(self.kv, kv_dtype)

    def to(self, device: str) -> None:
        for name in ("counts", "tails", "page_ids", "q", "kv", "skips", "sinks"):
            tensor = getattr(self, name)
            setattr(self, name, tensor if tensor is None else tensor.to(device))

    def arguments(self) -> tuple[object, ...]:
        return self.rows(torch.arange(len(self.q)))

    def rows(self, index: torch.Tensor, width: int | None = None) -> tuple[object, ...]:
        """The arguments for some of the rows."""
        index = index.to(self.q.device)
        ids = self.page_ids[index, :, :width].contiguous()
        skips = None if self.skips is None else self.skips[index]
        last = (self.scale, skips, self.sinks)
        return self.q[index], self.kv, ids, self.counts[index], self.tails[index], *last

    def expected(self) -> torch.Tensor:
        """The definition, query by query in float64."""
        out = torch.empty(self.q.shape, dtype=torch.float64, device=self.q.device)
        for row in range(self.q.shape[0]):
            for head in range(self.kv.shape[1]):
                count = int(self.counts[row, head])
                length = (count - 1) * self.block + int(self.tails[row])
                kv = self.kv[self.page_ids[row, head, :count], head].double()
                first = 0 if self.skips is None else int(self.skips[row])
                k, v = (kv[:, part].reshape(-1, self.dim)[first:length] for part in (0, 1))
                for h in range(head * self.group, (head + 1) * self.group):
                    logits = k @ self.q[row, h].double() * self.scale
                    if self.sinks is not None:
                        logits = torch.cat((logits, self.sinks[h : h + 1].double()))
                    out[row, h] = torch.softmax(logits, 0)[: len(v)] @ v
        return out


def kept_as(kv: torch.Tensor, dtype: torch.dtype | None) -> KV:
    """A cache with what this one holds, quantised if there is a dtype."""
    return kv if dtype is None else Quantised(*quantise(kv, dtype))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, by norms."""
    return float((found.double() - expected).norm() / expected.norm())


def limit(dtype: torch.dtype) -> float:
    return 2e-6 if dtype == torch.float32 else 5e-3
