"""How benchmarks speak: tables for people."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def numbers(text: str) -> list[int]:
    """An option's comma-separated positive whole numbers; ``4k`` is 4096."""
    found = []
    for word in text.split(","):
        digits = word.strip().lower()
        factor = 1024 if digits.endswith("k") else 1
        digits = digits.removesuffix("k")
        if not digits.isdecimal() or int(digits) == 0:
            raise argparse.ArgumentTypeError(f"{text}: must be whole numbers, such as 4k,512")
        found.append(int(digits) * factor)
    return found
