"""The next-token loss of a frozen model whose attention goes through soft gates.

A decode step reads the blocks that rank first. The soft form of that choice, which has a gradient: with ``s``
the gate's softmax over the blocks that it may leave out, attention is

    softmax(q . k / sqrt(d) + log s[block of k])

What decoding always reads, the row's own block and the first one, has no gate: nothing is added there. Since
the shares ``s`` of a row sum to 1, what a gate gives one block it takes from the others, and the loss says
which ones the next token needs. (A product with the shares before the attention is normalised is what the
log in the exponent amounts to. Training the gates of SeerAttention-R by the language-model loss through such
a soft gate is a follow-up to arXiv 2506.08889; this form of it is our own.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from seer_ray.corpora.pack import Pack, first_row
from seer_ray.kernels.causal import causal
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape, embed, logits_of, normalise, run_layers
from seer_ray.models.recurrence import Run, recur_apart
from seer_ray.models.rope import RopeTable
from seer_ray.models.step import Attention

LOGITS = 2**25
"""Attention logits of a chunk of rows, at most: 128 MiB in fp32, a few times in memory."""
LOGIT_ROWS = 256
"""Rows of next-token logits that are held at a time."""


class SoftGates:
    """How the gated layers attend.

    Args:
        gates: by layer; the other layers attend densely.
        shape: of the model's attention.
        block: tokens a block.
        skip: rows before ``first_row`` attend densely, as a prompt does, and have no loss.
    """

    def __init__(self, gates: Mapping[int, AttnGate], shape: AttentionShape, block: int, skip: float) -> None:
        self.gates, self.shape, self.block, self.skip = gates, shape, block, skip

    def targets(self, pack: Pack) -> int:
        """Next tokens of a pack that have a loss."""
        return sum(len(self._predicting(length)) for length in pack.lengths)

    def predicting(self, pack: Pack) -> Tensor:
        """Tokens of a pack whose next token has a loss, ``[n]``."""
        return torch.cat([d.start + self._predicting(d.stop - d.start) for d in pack.documents()])

    def _predicting(self, length: int) -> Tensor:
        first = first_row(length, self.block, self.skip)
        return torch.arange(first, max(first, length - 1))


class SoftPass:
    """A ``models.step.Step`` with gradients."""

    def __init__(self, pack: Pack, soft: SoftGates, ropes: Sequence[RopeTable]) -> None:
        """``ropes``: of each layer."""
        self.pack, self.soft, self.ropes, self.position = pack, soft, ropes, pack.positions

    def attend(self, layer: int, asked: Attention) -> Tensor:
        """See ``models.step``."""
        q, k, v, scale, sinks, _ = asked
        soft, out = self.soft, []
        q_rotated, k_rotated = (self.ropes[layer].rotate(x, self.position) for x in (q, k))
        gate = soft.gates.get(layer)
        for d in self.pack.documents():
            length = d.stop - d.start
            first = length if gate is None else first_row(length, soft.block, soft.skip)
            if first:
                early = slice(d.start, d.start + first)
                window = soft.shape.reach(layer)
                out.append(causal(q_rotated[early], k_rotated[early], v[early], scale, window, sinks))
            if gate is None or first == length:
                continue
            keys = gate.compress_keys(k[d.start : d.start + (length - 1) // soft.block * soft.block][None])
            rows = max(1, LOGITS // (q.shape[1] * length))
            for start in range(first, length, rows):
                stop = min(start + rows, length)
                some = slice(d.start + start, d.start + stop)
                seen = slice(d.start, d.start + stop)
                out.append(
                    checkpoint(
                        _attend,
                        gate,
                        q[some],
                        keys,
                        q_rotated[some],
                        k_rotated[seen],
                        v[seen],
                        start,
                        scale,
                        sinks,
                        use_reentrant=False,
                    )
                )
        return torch.cat(out)

    def recur(self, layer: int, hidden: Tensor, run: Run) -> Tensor:
        """See ``models.step``."""
        return recur_apart(hidden, self.pack.lengths, run)


def next_token_loss(model: Any, pack: Pack, soft: SoftGates, ropes: Sequence[RopeTable]) -> Tensor:
    """Summed over the tokens that count, nats. Activations of one layer are held, and every layer's input.
    ``ropes``: of each layer."""
    step = SoftPass(pack, soft, ropes)
    hidden = embed(model, pack.tokens)
    for layer in range(soft.shape.layers):
        hidden = checkpoint(run_layers, model, hidden, step, range(layer, layer + 1), use_reentrant=False)
    rows = soft.predicting(pack).to(hidden.device)
    found, wanted = normalise(model, hidden)[rows], pack.tokens[rows + 1]
    parts = [
        checkpoint(_loss, model, some, next, use_reentrant=False)
        for some, next in zip(found.split(LOGIT_ROWS), wanted.split(LOGIT_ROWS), strict=True)
    ]
    return torch.stack(parts).sum() if parts else hidden.new_zeros(())


def _loss(model: Any, hidden: Tensor, wanted: Tensor) -> Tensor:
    return cross_entropy(logits_of(model, hidden).float(), wanted, reduction="sum")


def _attend(
    gate: AttnGate,
    q_nope: Tensor,
    keys: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: int,
    scale: float,
    sinks: Tensor | None,
) -> Tensor:
    """Rows from position ``start`` on; ``keys [1, blocks, kv_heads, gate_dim]`` are the gate's."""
    rows, q_heads, dim = q.shape
    stop, heads, block = start + rows, k.shape[1], gate.block_size
    positions = torch.arange(start, stop, device=q.device)
    with torch.autocast(q.device.type, enabled=False):
        bias = block_bias(gate.score(q_nope, positions, keys), positions // block)
        # [kv_heads, 1, rows, tokens]
        bias = bias.transpose(0, 1).repeat_interleave(block, dim=2)
        bias = torch.nn.functional.pad(bias, (0, max(0, stop - bias.shape[2])))[:, None, :, :stop]
        grouped = q.float().view(rows, heads, -1, dim).permute(1, 2, 0, 3)
        logits = torch.einsum("hgrd,thd->hgrt", grouped, k.float()) * scale + bias
        future = torch.arange(stop, device=q.device) > positions.unsqueeze(1)
        logits = logits.masked_fill(future, float("-inf"))
        if sinks is not None:  # they take their share, and have no value
            logits = torch.cat([logits, sinks.view(heads, -1, 1, 1).expand(-1, -1, rows, 1)], dim=3)
        p = torch.softmax(logits, dim=3)[..., :stop]
        out = torch.einsum("hgrt,thd->rhgd", p, v.float())
    return out.reshape(rows, q_heads, dim).to(v.dtype)


def block_bias(logits: Tensor, own: Tensor) -> Tensor:
    """What is added to the attention logits of each block's tokens.

    Args:
        logits: the gate's, ``[rows, kv_heads, blocks]``.
        own: block of the row itself, ``[rows]``.

    Returns:
        The log of the gate's share among the blocks after the first and before ``own``; 0 elsewhere.
    """
    index = torch.arange(logits.shape[2], device=logits.device)
    free = ((index > 0) & (index < own.unsqueeze(1))).unsqueeze(1)
    # A row without a free block: softmax over nothing, whose gradient would be NaN, is kept finite.
    shares = torch.log_softmax(logits.masked_fill(~free, torch.finfo(logits.dtype).min), dim=2)
    return torch.where(free, shares, 0.0)
