"""Decode steps as CUDA graphs: whole steps, for a few sizes of batch, with memory of one pool."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import torch

from seer_ray.engine.captured import Capture, CapturedSteps, Step
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import Decoder
from seer_ray.engine.sequence import Sequence
from seer_ray.models.load import LoadedModel


def buckets(max_batch: int) -> list[int]:
    """Batch sizes for which there is a graph: 1, 2, 4, 8, 16, then in steps of 8."""
    sizes = [size for size in (1, 2, 4, 8, *range(16, max_batch, 8)) if size < max_batch]
    return [*sizes, max_batch]


class CudaCapture:
    """Captures into one memory pool for all graphs, of which only one runs at a time.

    Args:
        states: what a step moves on from where it was; all else it writes again as it did.
    """

    def __init__(self, states: Seq[torch.Tensor] = ()) -> None:
        self._pool: Any = None
        self._states = states

    def __call__(self, step: Step) -> Step:
        before = [state.cpu() for state in self._states]  # the device may have no room for them
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles kernels, and makes the libraries' workspaces
                step()
        torch.cuda.current_stream().wait_stream(stream)
        for state, was in zip(self._states, before, strict=True):
            state.copy_(was)
        graph = torch.cuda.CUDAGraph()
        # Other threads of a worker may go on with what they do.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        self._pool = self._pool or graph.pool()
        return graph.replay


class DecodeGraphs(CapturedSteps):
    """A graph for each size of batch in ``buckets`` and each kind of sampling; all are kept."""

    def __init__(
        self, loaded: LoadedModel, decoder: Decoder, max_batch: int, capture: Capture | None = None
    ) -> None:
        states = decoder.cache.states
        super().__init__(
            loaded, decoder, max_batch, capture or CudaCapture(states.tensors if states is not None else ())
        )
        self.buckets = buckets(max_batch)

    def run(self, sequences: list[Sequence], needs: Needs) -> None:
        rows = next(size for size in self.buckets if size >= len(sequences))
        pages: int = self.decoder.cache.max_pages

        def step() -> None:
            self.layers(rows, pages, fills=True)
            if not needs.beyond:
                self.sample(rows, needs, sequences)

        self.replay((rows, None if needs.beyond else needs), step)
        if needs.beyond:
            self.sample(rows, needs, sequences)
