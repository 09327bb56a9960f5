"""Decode steps as CUDA graphs: two for a step, its layers and its sampling, with memory of one pool."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from seer_ray.engine.captured import Capture, CapturedSteps, Size, Step
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import Decoder
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.watch import Selections
from seer_ray.models.load import LoadedModel

LEAST_WIDTH = 4096
"""Tokens of the narrowest page table: below, a wider one costs next to nothing."""


def buckets(max_batch: int) -> list[int]:
    """Batch sizes for which there are graphs: 1, 2, 4, 8, 16, then in steps of 8, and of 32 from 64 on."""
    sizes = (1, 2, 4, 8, *range(16, min(max_batch, 64), 8), *range(64, max_batch, 32))
    return [*(size for size in sizes if size < max_batch), max_batch]


def widths(max_pages: int, block: int) -> list[int]:
    """Widths of page tables for which there are graphs: powers of two, and the widest. A dense layer's
    programs are as many as the table is wide: that of the longest chain in the batch, not of any chain."""
    width, found = max(1, LEAST_WIDTH // block), []
    while width < max_pages:
        found.append(width)
        width *= 2
    return [*found, max_pages]


def graph_count(max_batch: int, max_pages: int, block: int) -> int:
    """Graphs that are captured at the start."""
    return len(buckets(max_batch)) * (len(widths(max_pages, block)) + 1)


class Layers(NamedTuple):
    """What is the same in all steps of a graph of layers."""

    rows: int
    pages: int
    recorded: bool = False


class Sampling(NamedTuple):
    """Likewise of sampling: any temperature, top-k, top-p and min-p, greedy rows among others."""

    rows: int
    penalty: bool = False


ANY = {
    penalty: Needs(
        plain=True, ranked=True, penalty=penalty, shaped=False, logprobs=False, guided=False, recorded=False
    )
    for penalty in (False, True)
}


class CudaCapture:
    """Captures into one memory pool for all graphs, of which only one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Step) -> Step:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()  # compiles kernels, and makes the libraries' workspaces
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads of a worker may go on with what they do.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        self._pool = self._pool or graph.pool()
        return graph.replay


class DecodeGraphs(CapturedSteps):
    """A graph of layers for each size of batch and width of table, one of sampling for each size of batch;
    captured at the start, the largest first. Those of recorded steps and of repetition penalties, which keep
    memory of their own, are captured when the first such step comes."""

    def __init__(
        self,
        loaded: LoadedModel,
        decoder: Decoder,
        max_batch: int,
        capture: Capture | None = None,
        *,
        dense: bool = False,
    ) -> None:
        super().__init__(loaded, decoder, max_batch, capture or CudaCapture(), dense)
        self.buckets = buckets(max_batch)
        self.widths = widths(decoder.cache.max_pages, decoder.cache.block)

    @torch.inference_mode()
    def prepare(self) -> None:
        """See ``CapturedSteps``."""
        for size in self.all_sizes():
            self._make(Layers(*size))
        for rows in reversed(self.buckets):
            self._make(Sampling(rows))

    def all_sizes(self) -> list[Size]:
        """See ``CapturedSteps``."""
        return [Size(rows, pages) for rows in reversed(self.buckets) for pages in reversed(self.widths)]

    def sizes(self, rows: int, last: int) -> Size:
        """See ``CapturedSteps``."""
        bucket = next(bucket for bucket in self.buckets if bucket >= rows)
        return Size(bucket, next(width for width in self.widths if width > last))

    def ready(self, size: Size, needs: Needs) -> None:
        """See ``CapturedSteps``. Captured over padding, so that no chain's memory is touched."""
        missing = [form for form in self._forms(size, needs) if form not in self.captured]
        if missing and self.failure is None:
            self._fill([])
            for form in missing:
                self._make(form)

    def run(self, sequences: list[Sequence], size: Size, needs: Needs) -> Selections | None:
        """See ``CapturedSteps``."""
        forms = self._forms(size, needs)
        for form in forms:
            self.captured.get(form, self._step(form))()
        if needs.beyond:
            self.sample(forms[0].rows, needs, sequences)
        return self._selections.get(forms[0])

    def _forms(self, size: Size, needs: Needs) -> list[Layers | Sampling]:
        layers = Layers(size.rows, size.pages, needs.recorded)
        return [layers] if needs.beyond else [layers, Sampling(size.rows, needs.penalty)]

    def _make(self, form: Layers | Sampling) -> None:
        made = self._capture(form, self._step(form))
        if made is not None:
            self.captured[form] = made

    def _step(self, form: Layers | Sampling) -> Step:
        def layers() -> None:
            assert isinstance(form, Layers)
            selections = Selections() if form.recorded else None
            self.layers(form.rows, form.pages, True, selections)
            if selections is not None:
                self._selections[form] = selections

        if isinstance(form, Layers):
            return layers
        return lambda: self.sample(form.rows, ANY[form.penalty], [])
