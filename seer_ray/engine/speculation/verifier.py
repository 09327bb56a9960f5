"""What dense decoding says behind each token of some rows: in one pass over all of them, captured where
decode steps are, or in exact mode as its steps compute them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from seer_ray.engine.captured import CapturedSteps, Size
from seer_ray.engine.eager import EagerSteps
from seer_ray.engine.guide import prepare
from seer_ray.engine.logprobs import Logprobs
from seer_ray.engine.needs import COUNTED, PENALTY, Needs
from seer_ray.engine.passes import DecodePass
from seer_ray.engine.sampler import sample
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.speculation.verify import Placed, VerifyPass
from seer_ray.kernels.upload import upload
from seer_ray.models.patch import forward_tokens, logits_of

KEPT = 8
"""Captured passes on a CPU, of the forms used last: as many as these of the largest take memory."""


class Given(NamedTuple):
    """What one row gets in a pass: tokens from position ``sequence.cached`` on."""

    sequence: Sequence
    known: int
    """Of the sequence's own tokens."""
    drafts: Seq[int] = ()
    """Behind all that there are."""

    @property
    def tokens(self) -> list[int]:
        cached = self.sequence.cached
        return [*self.sequence.tokens[cached : cached + self.known], *self.drafts]

    @property
    def samples(self) -> bool:
        """Its last own token is among them."""
        return self.sequence.cached + self.known == len(self.sequence.tokens)


class Said(NamedTuple):
    """What came of one row."""

    sampled: list[int]
    """Behind its last own token and each draft, as dense decoding has it; empty: it was given older ones."""
    logprobs: dict[int, bytes]
    """By place in ``sampled``, where asked for."""


@dataclass(frozen=True)
class Form:
    """What is the same in all passes of a capture. No tuple: one of the same numbers would be the form of a
    step that is captured beside these."""

    rows: int
    tokens: int
    pages: int
    fills: bool


class Verifier:
    """Of one engine.

    Args:
        eager: model and passes, in either mode.
        captured: the captured steps, whose captures these are, too; None: there are none.
        most: tokens of a row in a pass, at most.
        max_batch: rows of a pass, at most.
    """

    def __init__(self, eager: EagerSteps, captured: CapturedSteps | None, most: int, max_batch: int) -> None:
        self._eager, self._captured, self.most = eager, captured, most
        self.loaded, self.decoder = eager.loaded, eager.decoder
        device, hidden = self.loaded.device, self.loaded.model.config.hidden_size
        if captured is not None:
            self._tokens = torch.zeros(3, max_batch * most, dtype=torch.int64, device=device)
            self._rows = torch.zeros(4, max_batch, dtype=torch.int64, device=device)
            self._hidden = torch.zeros(max_batch * most, hidden, dtype=self.loaded.dtype, device=device)
        self.max_batch = max_batch
        self._summarises = any(selector is not None for selector in self.decoder.selectors)

    def verify(self, rows: Seq[Given]) -> list[Said]:
        """One pass. The page tables are up to date, and pages are there for all tokens."""
        wanted: list[int] = []
        first = 0
        for row in rows:
            count = row.known + len(row.drafts)
            if row.samples:
                wanted += range(first + row.known - 1, first + count)
            first += count
        with self._eager.threads():
            logits = self._exact(rows) if self._eager.exact else self._together(rows)
        if not wanted:
            return [Said([], {}) for _ in rows]
        if len(wanted) < len(logits):
            logits = logits[upload(wanted, logits.device)]
        views = [view for row in rows if row.samples for view in _views(row)]
        if Needs.of(views).guided:
            prepare(view.guide for view in views)
        sampled = sample(logits, views)
        said, found, first = self._logprobs(logits, rows, views, sampled), [], 0
        for row in rows:
            count = 1 + len(row.drafts) if row.samples else 0
            scores = {place: said[first + place] for place in range(count) if first + place in said}
            found.append(Said(sampled[first : first + count], scores))
            first += count
        return found

    def _logprobs(
        self, logits: torch.Tensor, rows: Seq[Given], views: list[Sequence], sampled: list[int]
    ) -> dict[int, bytes]:
        """By place in ``views``; of the tokens that come, forced ones among them."""
        if not Needs.of(views).logprobs:
            return {}
        coming, first = list(sampled), 0
        for row in rows:
            if not row.samples:
                continue
            if row.sequence.thinking is not None:
                state = row.sequence.thinking.fork()
                for place in range(first, first + 1 + len(row.drafts)):
                    coming[place] = state.take(sampled[place])
            first += 1 + len(row.drafts)
        scores = Logprobs(logits.float(), views)
        return scores.spell(scores.of(torch.tensor(coming, device=logits.device)).cpu())

    # -- exact mode ----------------------------------------------------------------------------------

    def _exact(self, rows: Seq[Given]) -> torch.Tensor:
        """Tokens as rows of dense steps, in groups of the size that theirs have: the same bits. A token comes
        after those before it, in its group or an earlier one."""
        eager, device, block = self._eager, self.loaded.device, self.decoder.cache.block
        tokens = [
            (row.sequence, row.sequence.cached + place, token)
            for row in rows
            for place, token in enumerate(row.tokens)
        ]
        parts = []
        for begin in range(0, len(tokens), eager.rows):
            some = tokens[begin : begin + eager.rows]
            rest = eager.rows - len(some)
            positions = [at for _, at, _ in some] + [0] * rest
            padding = [False] * len(some) + [True] * rest
            tables, _ = eager.place([s.slot for s, _, _ in some] + [0] * rest, positions, padding)
            completed = [_page(sequence, at, block) for sequence, at, _ in some if (at + 1) % block == 0]
            step = DecodePass(self.decoder, tables, positions, completed, dense=True)
            ids = torch.tensor([token for _, _, token in some] + [0] * rest, device=device)
            logits = logits_of(self.loaded.model, forward_tokens(self.loaded.model, ids, step))
            parts.append(logits[: len(some)])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    # -- all at once ---------------------------------------------------------------------------------

    def _together(self, rows: Seq[Given]) -> torch.Tensor:
        """``[tokens, vocabulary]``"""
        lives = [row.known + len(row.drafts) for row in rows]
        count, captured = sum(lives), self._captured
        tokens, told = self._told(rows, lives)
        block = self.decoder.cache.block
        last = max(row.sequence.cached + live for row, live in zip(rows, lives, strict=True)) - 1
        if captured is None or captured.failure is not None:
            device = self.loaded.device
            completed = [
                _page(row.sequence, at, block)
                for row, live in zip(rows, lives, strict=True)
                for at in range(row.sequence.cached, row.sequence.cached + live)
                if (at + 1) % block == 0
            ]
            hidden = self._pass(upload(tokens, device), upload(told, device), last // block + 1, completed)
            return logits_of(self.loaded.model, hidden)
        form = self._form(rows, lives, count, last)
        self._fill(self._tokens, tokens, (0, 0, -1))
        self._fill(self._rows, told, (-1, 0, 0, 0))
        captured.replay(form, lambda: self._step(form))
        if captured.cheap:
            captured.keep(Form, KEPT * self.max_batch * self.most, lambda form: form.tokens)
        return logits_of(self.loaded.model, self._hidden[:count])

    def _step(self, form: Form) -> None:
        """What is in the buffers."""
        given, placed = self._tokens[:, : form.tokens], self._rows[:, : form.rows]
        completed: list[tuple[int, int]] | None = None if form.fills else []
        self._hidden[: form.tokens] = self._pass(given, placed, form.pages, completed)

    def _told(self, rows: Seq[Given], lives: list[int]) -> tuple[list[list[int]], list[list[int]]]:
        """Ids, positions and rows of all tokens; slots, first token, tokens and position of all rows."""
        starts = np.cumsum([0, *lives[:-1]]).tolist()
        cached = [row.sequence.cached for row in rows]
        tokens = [
            [token for row in rows for token in row.tokens],
            [at + place for at, live in zip(cached, lives, strict=True) for place in range(live)],
            [index for index, live in enumerate(lives) for _ in range(live)],
        ]
        return tokens, [[row.sequence.slot for row in rows], starts, lives, cached]

    def _fill(self, buffer: torch.Tensor, rows: list[list[int]], rest: tuple[int, ...]) -> None:
        host = np.repeat(np.array(rest, np.int64)[:, None], buffer.shape[1], 1)
        host[:, : len(rows[0])] = rows
        moved = torch.from_numpy(host)
        buffer.copy_(moved.pin_memory() if buffer.is_cuda else moved, non_blocking=True)

    def _pass(
        self, tokens: torch.Tensor, told: torch.Tensor, pages: int, completed: list[tuple[int, int]] | None
    ) -> torch.Tensor:
        """Hidden states ``[tokens, hidden]``."""
        ids, position, row_of = tokens.unbind()
        slots, starts, lives, first = told.unbind()
        live, at = (slots >= 0).unsqueeze(1), slots.clamp(min=0)
        tables = [torch.where(live, table[:, :pages][at], 0) for table in self.decoder.cache.tables]
        placed = Placed(position, row_of, starts, lives, first, self.most)
        model: Any = self.loaded.model
        return forward_tokens(model, ids, VerifyPass(self.decoder, tables, placed, completed))

    def _form(self, rows: Seq[Given], lives: list[int], count: int, last: int) -> Form:
        cache = self.decoder.cache
        assert self._captured is not None
        size = self._captured.sizes(len(rows), last // cache.block)
        if not self._captured.cheap:
            return self._whole(size)
        fills = self._summarises and any(
            row.sequence.cached % cache.block + live >= cache.block
            for row, live in zip(rows, lives, strict=True)
        )
        step = 1 if count <= 8 else 2 if count <= 16 else 4 if count <= 32 else 8
        return Form(size.rows, min(-(-count // step) * step, self.max_batch * self.most), size.pages, fills)

    def _whole(self, size: Size) -> Form:
        """One capture for all lengths of drafts: what is not needed costs little beside the weights."""
        return Form(size.rows, size.rows * self.most, size.pages, True)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Captures what can be known to come, over padding."""
        if self._captured is None:
            return
        for form in map(self._whole, self._captured.all_sizes()):
            self._fill(self._tokens, [[]] * 3, (0, 0, -1))
            self._fill(self._rows, [[]] * 4, (-1, 0, 0, 0))
            self._captured.replay(form, functools.partial(self._step, form))


def _page(sequence: Sequence, at: int, block: int) -> tuple[int, int]:
    """Of the first group, and the position of its first token."""
    return sequence.pages[0][at // block], at // block * block


def _views(row: Given) -> list[Sequence]:
    """The sequence as it stands behind its last own token, and behind each draft."""
    sequence = row.sequence
    end = sequence.cached + row.known
    found = []
    for place in range(1 + len(row.drafts)):
        view = copy.copy(sequence)
        view.cached = end - 1 + place
        if place and sequence.needs & (PENALTY | COUNTED):
            view.tokens = [*sequence.tokens, *row.drafts[:place]]
        found.append(view)
    return found
