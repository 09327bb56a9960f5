"""What an engine expects of a selector, checked on random keys: ``seer-ray selectors check module:Class``.

A selector that breaks one of these still decodes, and gives results that depend on batch mates, on where
pages lie, or on memory that nobody has written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from seer_ray.config.errors import one_line
from seer_ray.config.selectors import traits_of
from seer_ray.engine.tape import record
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.select import select
from seer_ray.models.gate import AttnGate
from seer_ray.models.patch import AttentionShape
from seer_ray.models.rope import RopeTable
from seer_ray.selectors.base import CurrentPages, FullKeys, Query, Selector, StepView
from seer_ray.selectors.make import make_selector

ROWS, KV_HEADS, GROUP, DIM, BLOCK, PAGES = 4, 2, 3, 32, 16, 6
LENGTHS = (7, 3 * BLOCK, 4 * BLOCK + 5, PAGES * BLOCK - 1)
"""Tokens of each row's sequence: less than a block, whole blocks, an open one."""
SHAPE = AttentionShape(1, KV_HEADS * GROUP, KV_HEADS, DIM, ("attention",))


@dataclass(frozen=True)
class Finding:
    """One thing that is expected."""

    expected: str
    fault: str | None
    """What is wrong; None: nothing."""


class Case:
    """A layer's cache with the keys of a few sequences, one step of which is being taken."""

    def __init__(self, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.rope = RopeTable.from_theta(10_000.0, DIM, PAGES * BLOCK)
        self.keys = torch.randn(ROWS, PAGES * BLOCK, KV_HEADS, DIM, generator=draw)
        self.q_nope = torch.randn(ROWS, KV_HEADS * GROUP, DIM, generator=draw)
        self.noise = torch.randn(1 + ROWS * PAGES, KV_HEADS, 2, BLOCK, DIM, generator=draw)
        self.table = 1 + torch.randperm(ROWS * PAGES, generator=draw).view(ROWS, PAGES)
        self.lengths = torch.tensor(LENGTHS)

    @property
    def view(self) -> StepView:
        return StepView(self.lengths - 1, self.lengths, self.table, BLOCK)

    def kv(self) -> torch.Tensor:
        """``[pages, kv_heads, 2, block, head_dim]``, noise where nothing is written."""
        kv = self.noise.clone()
        places = torch.arange(PAGES * BLOCK)
        rotated = self.rope.rotate(self.keys, places.expand(ROWS, -1))
        for row, length in enumerate(self.lengths.tolist()):
            for at in range(length):
                kv[self.table[row, at // BLOCK], :, 0, at % BLOCK] = rotated[row, at]
        return kv

    def query(self, selector: Selector) -> Query:
        """What the layer asks, with the summaries of all complete pages."""
        kv = self.kv()
        q = self.rope.rotate(self.q_nope, self.lengths - 1)
        return Query(self.q_nope, q, kv, self.summaries(selector, kv), DIM**-0.5)

    def summaries(self, selector: Selector, kv: torch.Tensor) -> torch.Tensor | None:
        if not selector.summary_width:
            return None
        summary = torch.zeros(len(kv), KV_HEADS, selector.summary_width)
        for row, length in enumerate(self.lengths.tolist()):
            for place in range(length // BLOCK):
                page, first = self.table[row, place : place + 1], torch.tensor([place * BLOCK])
                cos, sin = self.rope.at(first.unsqueeze(1) + torch.arange(BLOCK))
                summary[page] = selector.summarise(FullKeys(kv[page, :, 0], cos, sin, first)).float()
        return summary

    def scores(self, selector: Selector) -> torch.Tensor:
        return selector.scores(self.query(selector), self.view)

    def of_complete(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores of complete blocks; 0 elsewhere."""
        complete = torch.arange(PAGES) < (self.lengths // BLOCK).unsqueeze(1)
        return torch.where(complete.unsqueeze(1), scores, 0.0)


def random_gate() -> AttnGate:
    """For selectors that need a trained one."""
    gate = AttnGate(
        num_query_heads=KV_HEADS * GROUP,
        num_kv_heads=KV_HEADS,
        head_dim=DIM,
        gate_dim=DIM,
        block_size=BLOCK,
        rope=RopeTable.from_theta(10_000.0, DIM, PAGES * BLOCK),
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) / weight.shape[-1] ** 0.5)
    return gate.requires_grad_(False)


def check_selector(name: str) -> Iterator[Finding]:
    """All that is expected of a selector, one by one; ends early where nothing more can be said.

    Args:
        name: of the table, or ``module:Class``

    Raises:
        ConfigError: there is none.
    """
    traits = traits_of(name)
    gate = random_gate() if traits.gates else None
    made: list[Selector] = []

    def make() -> str | None:
        found = make_selector(name, 0, SHAPE, gate)
        if not isinstance(found, Selector):
            return f"is {type(found).__name__}"
        made.append(found)
        return None

    yield _found("of(layer, shape, gate) gives a seer_ray.selectors.base.Selector", make)
    if not made:
        return
    (selector,) = made
    first = _found(
        "scores are float32 [rows, kv_heads, pages], finite for complete blocks", lambda: _form(selector)
    )
    yield first
    if first.fault:
        return
    for expected, fault in EXPECTED.items():
        if not (fault is _taped and traits.reads_all_keys):
            yield _found(expected, lambda fault=fault: fault(selector))  # type: ignore[misc]


def _found(expected: str, fault: Callable[[], str | None]) -> Finding:
    try:
        with torch.no_grad():
            return Finding(expected, fault())
    except Exception as error:
        return Finding(expected, f"{type(error).__name__}: {one_line(error)}")


def _form(selector: Selector) -> str | None:
    case = Case()
    scores = case.scores(selector)
    if scores.dtype != torch.float32 or tuple(scores.shape) != (ROWS, KV_HEADS, PAGES):
        return f"are {scores.dtype} {list(scores.shape)}, of {[ROWS, KV_HEADS, PAGES]}"
    return None if case.of_complete(scores).isfinite().all() else "some are not finite"


def _repeated(selector: Selector) -> str | None:
    same = torch.equal(*(Case().of_complete(Case().scores(selector)) for _ in range(2)))
    return None if same else "two calls differ"


def _alone(selector: Selector) -> str | None:
    case = Case()
    together = case.of_complete(case.scores(selector))
    for row in range(ROWS):
        one = Case()
        query = one.query(selector)
        query = replace(query, q=query.q[row : row + 1], q_nope=query.q_nope[row : row + 1])
        lengths = one.lengths[row : row + 1]
        view = StepView(lengths - 1, lengths, one.table[row : row + 1], BLOCK)
        blocks = int(lengths) // BLOCK
        found = selector.scores(query, view)[0, :, :blocks]
        if not torch.allclose(found, together[row, :, :blocks], rtol=1e-4, atol=1e-5):
            return f"row {row} has other scores beside others than alone"
    return None


def _moved(selector: Selector) -> str | None:
    case, other = Case(), Case()
    other.table = other.table.flip(0, 1)
    here, there = case.of_complete(case.scores(selector)), other.of_complete(other.scores(selector))
    return None if torch.allclose(here, there, rtol=1e-4, atol=1e-5) else "they change with the pages' places"


def _unwritten(selector: Selector) -> str | None:
    case, other = Case(), Case()
    other.noise = 100 * other.noise.flip(0)
    here, there = case.of_complete(case.scores(selector)), other.of_complete(other.scores(selector))
    return None if torch.allclose(here, there, rtol=1e-4, atol=1e-5) else "they change with what is unwritten"


def _filled(selector: Selector) -> str | None:
    if not selector.summary_width:
        return None
    case = Case()
    kv, rows = case.kv(), torch.arange(ROWS)
    pages = case.table[rows, (case.lengths - 1) // BLOCK]
    summary = torch.full((len(kv), KV_HEADS, selector.summary_width), -1.0)
    selector.fill(kv, summary, CurrentPages(pages, case.lengths - 1, BLOCK), case.rope)
    wanted = case.summaries(selector, kv)
    assert wanted is not None
    for row, length in enumerate(LENGTHS):
        page = pages[row]
        if length % BLOCK == 0 and not torch.allclose(summary[page], wanted[page], rtol=1e-4, atol=1e-5):
            return "fill() writes another summary of a full page than summarise() gives"
        if length % BLOCK and not (summary[page] == -1).all():
            return "fill() writes the summary of a page that is not full"
    return None


def _untouched(selector: Selector) -> str | None:
    case = Case()
    query, view = case.query(selector), case.view
    tensors: dict[str, Any] = {
        "q": query.q,
        "q_nope": query.q_nope,
        "kv": query.kv,
        "page_table": view.page_table,
    }
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    selector.scores(query, view)
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, tensors[name])]
    return f"scores() writes into {', '.join(changed)}" if changed else None


def _taped(selector: Selector) -> str | None:
    case, other, out = Case(0), Case(1), torch.zeros(ROWS, KV_HEADS, PAGES)
    query, view = case.query(selector), case.view

    def decide() -> None:
        out.copy_(selector.scores(query, view))

    step = record(decide)
    step()  # the run that it was recorded in
    later: Any = other.query(selector)
    for name in ("q", "q_nope", "kv", "summary"):
        if getattr(later, name) is not None:
            getattr(query, name).copy_(getattr(later, name))
    view.page_table.copy_(other.table)
    step()
    wanted = other.of_complete(other.scores(selector))
    if not torch.allclose(other.of_complete(out), wanted, rtol=1e-4, atol=1e-5):
        return "a recorded step that is run again with other keys gives the old scores"
    return None


def _selects(selector: Selector) -> str | None:
    case = Case()
    ids, counts = select(case.scores(selector), case.table, case.lengths, BLOCK, Limits.of(KV_HEADS, 3, True))
    blocks = torch.minimum((case.lengths + BLOCK - 1) // BLOCK, torch.tensor(3))
    return (
        None if (counts == blocks.unsqueeze(1)).all() and ids.shape[-1] == 3 else "the selection is malformed"
    )


EXPECTED: dict[str, Callable[[Selector], str | None]] = {
    "the same call gives the same scores": _repeated,
    "a sequence has the same scores beside others as alone": _alone,
    "scores do not depend on where pages lie": _moved,
    "scores of complete blocks read nothing that is not written": _unwritten,
    "fill() writes what summarise() gives, for full pages only": _filled,
    "scores() leaves queries, keys and tables as they are": _untouched,
    "a step can be recorded: scores() asks no tensor what it holds, and keeps none": _taped,
    "the budget is filled": _selects,
}
"""What is expected beside the form of the scores -> what finds a fault."""
