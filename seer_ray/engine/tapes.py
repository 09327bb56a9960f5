"""Decode steps on a CPU, of which the layers are taped: what comes after has little Python and large tensors.

A tape costs no more than a step: there is one for each number of rows, for page tables of powers of two, and
with and without pages to fill.
"""

from __future__ import annotations

from typing import NamedTuple

from seer_ray.engine.captured import Capture, CapturedSteps, Size, Step
from seer_ray.engine.needs import Needs
from seer_ray.engine.passes import Decoder
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.states import StateSlots
from seer_ray.engine.tape import record
from seer_ray.engine.watch import Selections
from seer_ray.models.load import LoadedModel

KEPT = 8
"""Tapes, of the forms used last: each keeps what its layers compute."""


class Form(NamedTuple):
    """What is the same in all steps of a tape."""

    rows: int
    pages: int
    fills: bool
    recorded: bool


class DecodeTapes(CapturedSteps):
    """A tape for each form of step; ``KEPT`` are kept."""

    waits = cheap = True

    def __init__(
        self,
        loaded: LoadedModel,
        decoder: Decoder,
        max_batch: int,
        capture: Capture = record,
        *,
        dense: bool = False,
    ) -> None:
        states = decoder.cache.states
        how = capture if states is None else undone(capture, states)
        super().__init__(loaded, decoder, max_batch, how, dense)

    def sizes(self, rows: int, last: int) -> Size:
        """See ``CapturedSteps``."""
        return Size(rows, min(self.decoder.cache.max_pages, 1 << last.bit_length()))

    def run(self, sequences: list[Sequence], size: Size, needs: Needs) -> Selections | None:
        """See ``CapturedSteps``."""
        block = self.decoder.cache.block
        fills = any((sequence.cached + 1) % block == 0 for sequence in sequences)
        form = Form(size.rows, size.pages, fills, needs.recorded)
        self.replay(form, lambda: self._layers(form))
        self.keep(Form, KEPT)
        self.sample(form.rows, needs, sequences)
        return self._selections.get(form)

    def _layers(self, form: Form) -> None:
        selections = Selections() if form.recorded else None
        self.layers(form.rows, form.pages, form.fills, selections)
        if selections is not None:
            self._selections[form] = selections


def undone(capture: Capture, states: StateSlots) -> Capture:
    """The same; where it fails, states are as they were: a step that is then run operation by operation
    would move them on twice."""

    def captured(step: Step) -> Step:
        before = [state.clone() for state in states.tensors]
        try:
            return capture(step)
        except RuntimeError:
            for state, was in zip(states.tensors, before, strict=True):
                state.copy_(was)
            raise

    return captured
