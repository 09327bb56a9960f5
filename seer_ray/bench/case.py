"""One shape of decode attention with random data: the operation as the engine runs it, and its own check."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seer_ray.kernels import attend as attend_module
from seer_ray.kernels import score as score_module
from seer_ray.kernels import select as select_module
from seer_ray.kernels.limits import Limits
from seer_ray.models.gate import AttnGate
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, Query, StepView
from seer_ray.selectors.seer import Seer

MODELS = {
    "smollm2-135m": (9, 3, 64),
    "qwen3-4b": (32, 8, 128),
    "qwen3-8b": (32, 8, 128),
    "qwen3-14b": (40, 8, 128),
}
"""Query heads, KV heads, head dim."""
COLD = {"cpu": 1 << 30, "cuda": 3 << 30}
"""Bytes of K and V over which calls rotate, at least: every call finds its own out of the caches."""
QUERIES = 20
"""Different queries, and with them selections, at least."""
LIMITS = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative errors, by norms, against float32."""


class Refused(Exception):
    """The operation is not what it says: there is nothing to report."""


@dataclass(frozen=True)
class Shape:
    """What is measured."""

    model: str
    batch: int
    context: int
    """Tokens in the cache, of every row."""
    budget: int
    """Tokens that a sparse step reads, of every row and KV head."""
    block: int = 64

    def kv_bytes(self, dtype: torch.dtype) -> int:
        """K and V of one layer."""
        _, heads, dim = MODELS[self.model]
        return 2 * self.batch * self.context * heads * dim * dtype.itemsize

    def sparse_bytes(self, dtype: torch.dtype) -> tuple[int, int]:
        """What the gate and the attention of a sparse step have to read: weights of the gate in float32 and
        compressed keys of all blocks; K and V of the budget."""
        q_heads, heads, dim = MODELS[self.model]
        keys = self.batch * (self.context // self.block) * heads * dim * dtype.itemsize
        return q_heads * dim * dim * 4 + keys, self.kv_bytes(dtype) * self.budget // self.context


class Case:
    """Caches of several layers, each with a gate, and queries. ``i`` of a method says which are taken.

    Attributes:
        kv: ``[sets, pages, kv_heads, 2, block, head_dim]``; page 0 is nobody's.
        contiguous: the same memory as if K and V of each row and head lay together,
            ``[sets, batch, kv_heads, 2, context, head_dim]``: what attention without pages is measured on.
        chosen: the selection of each variant.
    """

    def __init__(
        self, shape: Shape, dtype: torch.dtype, device: torch.device, cold: int | None = None
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        q_heads, heads, dim = MODELS[shape.model]
        self.q_heads, self.heads, self.dim, self.group = q_heads, heads, dim, q_heads // heads
        self.scale, self.block = dim**-0.5, shape.block
        self.blocks, self.k = shape.context // shape.block, shape.budget // shape.block
        self.limits = Limits.of(heads, self.k, True, device=device)
        cold = COLD[device.type] if cold is None else cold
        self.sets = max(2, -(-cold // shape.kv_bytes(dtype)))
        self.variants = self.sets * -(-QUERIES // self.sets)
        draw = torch.Generator(device).manual_seed(0)
        pages = shape.batch * self.blocks + 1

        def normal(*sizes: int) -> torch.Tensor:
            return torch.randn(*sizes, generator=draw, device=device, dtype=torch.float32).to(dtype)

        # One draw, many copies: what the numbers are changes no time, where they lie does.
        self.kv = torch.empty(self.sets, pages, heads, 2, self.block, dim, dtype=dtype, device=device)
        first = self.kv[0]
        for page in range(0, pages, 256):
            first[page : page + 256] = normal(*first[page : page + 256].shape)
        first[0] = 0
        self.kv[1:] = first
        self.contiguous = self.kv[:, 1:].view(self.sets, shape.batch, heads, 2, shape.context, dim)
        self.summary = normal(self.sets, pages, heads, dim)
        self.q = normal(self.variants, shape.batch, q_heads, dim)
        self.rope = RopeTable.from_theta(1e6, dim, shape.context).to(device)
        self.selectors = [self._selector(self.rope, seed) for seed in range(self.sets)]
        self.lengths = torch.full((shape.batch,), shape.context, device=device)
        self.tails = torch.full((shape.batch,), self.block, device=device)
        tables = [
            1 + torch.randperm(pages - 1, generator=draw, device=device).view(shape.batch, -1)
            for _ in range(self.sets)
        ]
        self.views = [StepView(self.lengths - 1, self.lengths, table, self.block) for table in tables]
        last = [table[:, -1] for table in tables]
        self.open = [CurrentPages(pages, self.lengths - 2, self.block) for pages in last]
        self.full = [CurrentPages(p[:1], self.lengths[:1] - 1, self.block) for p in last]
        self.written = torch.zeros_like(self.summary[0])  # what is timed must not change what is selected
        self.counts = torch.full((shape.batch, heads), self.blocks, device=device)
        self.chosen = [self.gate(variant) for variant in range(self.variants)]

    def _selector(self, rope: RopeTable, seed: int) -> Seer:
        gate = AttnGate(
            num_query_heads=self.q_heads,
            num_kv_heads=self.heads,
            head_dim=self.dim,
            gate_dim=self.dim,
            block_size=self.block,
            rope=rope,
        )
        gate.reset_parameters(torch.Generator().manual_seed(seed))
        return Seer(gate.requires_grad_(False).to(self.device))

    # -- what is timed -------------------------------------------------------------------------------

    def scores(self, i: int) -> torch.Tensor:
        """Query projection, and its products with all compressed keys."""
        kv, q = i % self.sets, self.q[i % self.variants]
        query = Query(q, q, self.kv[kv], self.summary[kv], self.scale)
        return self.selectors[kv].scores(query, self.views[kv])

    def select(self, scores: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        table = self.views[i % self.sets].page_table
        return select_module.select(scores, table, self.lengths, self.block, self.limits)

    def gate(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All that a sparse step does more than a dense one, but for ``compress``. On a GPU the step has to
        find out which pages are full."""
        if self.device.type == "cuda":
            kv = i % self.sets
            self.selectors[kv].fill(self.kv[kv], self.written, self.open[kv], self.rope)
        return self.select(self.scores(i), i)

    def compress(self, i: int) -> None:
        """The compressed key of one page: what every ``block``-th token of a row costs beside the gate."""
        kv = i % self.sets
        self.selectors[kv].fill(self.kv[kv], self.written, self.full[kv], self.rope)

    def attention(self, i: int) -> torch.Tensor:
        """Over a selection that is there."""
        return self._attend(i, *self.chosen[i % self.variants])

    def sparse(self, i: int) -> torch.Tensor:
        """Gate and attention."""
        return self._attend(i, *self.gate(i))

    def dense(self, i: int) -> torch.Tensor:
        """The same attention over all pages."""
        table = self.views[i % self.sets].page_table
        return self._attend(i, table.unsqueeze(1).expand(-1, self.heads, -1), self.counts)

    def _attend(self, i: int, page_ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        q, kv = self.q[i % self.variants], self.kv[i % self.sets]
        return attend_module.attend(q, kv, page_ids, counts, self.tails, self.scale)

    # -- what must hold ------------------------------------------------------------------------------

    def check(self) -> None:
        """The operation is its definition, and reads nothing but its selection.

        Raises:
            Refused: it is not, or does not.
        """
        scores, expected = self.scores(0), self._scores()
        _close("the gate's scores", scores, expected, 1e-3)
        ids, counts = self.select(scores, 0)
        table = self.views[0].page_table
        wanted, wanted_counts = select_module.reference(scores, table, self.lengths, self.block, self.limits)
        if not (torch.equal(ids, wanted) and torch.equal(counts, wanted_counts)):
            raise Refused("the selection is not the exact top-k of the scores")
        if int(counts.max()) > self.k:
            raise Refused(f"a row reads {int(counts.max())} blocks, the budget is {self.k}")
        limit = LIMITS[self.dtype]
        found, expected = self.sparse(0), self.over(self.kv[0], ids)
        _close("sparse attention", found, expected, limit)
        if not torch.equal(found, self.attention(0)):
            raise Refused("gate and attention together give something else than one after the other")
        self._check_active(ids, found)
        _close("dense attention", self.dense(0), self.paged_dense(), limit)

    def _check_active(self, ids: torch.Tensor, expected: torch.Tensor) -> None:
        """The same step with NaN in all pages that it did not select."""
        kept, heads = self.kv[0].clone(), torch.arange(self.heads, device=self.device)
        try:
            self.kv[0].fill_(float("nan"))
            at = ids.transpose(1, 2).reshape(-1, self.heads), heads
            self.kv[0][at] = kept[at]
            found = self.sparse(0)
        finally:
            self.kv[0].copy_(kept)
        if not torch.equal(found, expected):
            raise Refused("the sparse step reads pages that it did not select")

    def _scores(self) -> torch.Tensor:
        """Of the torch definitions."""
        gate = self.selectors[0].gate
        with torch.enable_grad():  # the compiled operation takes no queries that want gradients
            query = gate.gate_query(self.q[0].clone().requires_grad_(), self.lengths - 1).detach()
        return score_module.reference(
            query.unsqueeze(2), self.summary[0], self.views[0].page_table, self.lengths, self.block
        )

    def over(self, kv: torch.Tensor, ids: torch.Tensor, variant: int = 0) -> torch.Tensor:
        """Attention over full pages ``[batch, kv_heads, n]`` in float32, written out."""
        head = torch.arange(self.heads, device=self.device).view(-1, 1)
        out = []
        for row in range(len(ids)):
            k, v = (kv[ids[row], head, part].flatten(1, 2) for part in (0, 1))
            out.append(self._written_out(self.q[variant, row], k, v))
        return torch.stack(out)

    def paged_dense(self) -> torch.Tensor:
        """What dense attention over pages gives for variant 0."""
        table = self.views[0].page_table
        return self.over(self.kv[0], table.unsqueeze(1).expand(-1, self.heads, -1))

    def contiguous_dense(self) -> torch.Tensor:
        """What attention over the contiguous view gives for variant 0."""
        rows = range(self.shape.batch)
        kv = self.contiguous[0]
        return torch.stack([self._written_out(self.q[0, row], kv[row, :, 0], kv[row, :, 1]) for row in rows])

    def _written_out(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = []
        for head in range(self.heads):
            logits = q[head * self.group : (head + 1) * self.group].float() @ k[head].float().T * self.scale
            out.append(torch.softmax(logits, -1) @ v[head].float())
        return torch.cat(out)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, by norms; NaN where anything is."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _close(name: str, found: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
    apart = error(found, expected)
    if not apart < limit:
        raise Refused(f"{name}: relative error {apart:.2g} against the torch definition, {limit:.2g} allowed")
