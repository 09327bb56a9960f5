"""Model types and single models, as ``seer-ray models`` shows them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seer_ray.models.families import FAMILIES, TEXT_PARTS, lacking
from seer_ray.models.mixers import MIXERS

if TYPE_CHECKING:
    from seer_ray.models.catalog import Description


def type_rows() -> list[dict[str, Any]]:
    """The model types that can be decoded, in alphabetical order."""
    parts = {name: FAMILIES[text] for name, text in TEXT_PARTS.items()}
    return [
        {
            "model_type": name,
            "runs": family.runs,
            "layers": list(family.layers),
            "experts": family.experts,
            "lacks": lacking(hosted=family.hosted, layers=family.layers),
            "text_part": TEXT_PARTS.get(name),
        }
        for name, family in sorted((FAMILIES | parts).items())
    ]


def types_view() -> RenderableType:
    """All model types, and what their layers keep; 80 columns are enough."""
    types = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for head in ("model type", "runs", "layers", "cannot"):
        types.add_column(head, overflow="fold")
    for row in type_rows():
        types.add_row(
            row["model_type"], row["runs"], ", ".join(row["layers"]), Text(", ".join(row["lacks"]), "dim")
        )
    layers = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for head in ("layer", "mixes tokens by", "keeps of a sequence"):
        layers.add_column(head, overflow="fold")
    for name, traits in MIXERS.items():
        layers.add_row(name, traits.help, traits.keeps)
    return Group(types, layers)


def facts(found: Description) -> dict[str, Any]:
    """Of one model, with the memory of a sequence that fills its context."""
    return dataclasses.asdict(found) | {
        "pattern": found.pattern,
        "sequence_bytes": found.sequence_bytes(found.max_context),
    }


def model_view(found: Description) -> RenderableType:
    """Of one model."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("model type", f"{found.model_type}, {found.runs}, {found.dtype}")
    table.add_row("layers", found.pattern)
    table.add_row("context", f"{found.max_context:,} tokens")
    table.add_row("K and V", f"{_size(found.kv_bytes_per_token)} a token")
    if found.window is not None:
        table.add_row("windows", f"{found.window:,} tokens, {_size(found.window_bytes)} a sequence")
    if found.state_bytes:
        table.add_row("states", f"{_size(found.state_bytes)} a sequence")
    whole = found.sequence_bytes(found.max_context)
    table.add_row("in all", f"{_size(whole)} for a sequence of {found.max_context:,} tokens")
    if found.lacks:
        table.add_row("cannot", ", ".join(found.lacks))
    return Group(Text(found.name, "bold"), table)


def _size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
