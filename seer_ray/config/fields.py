"""What an option is: a dataclass field that carries its own documentation and bounds."""

from __future__ import annotations

from dataclasses import field
from typing import Any

MOST_DRAFTED = 7
"""Tokens that a pass of speculation verifies beside its own, at most."""


def option(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    choices: tuple[str, ...] | None = None,
    own: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    operational: bool = False,
    bits: bool = False,
    path: bool = False,
    secret: bool = False,
) -> Any:
    """A dataclass field that carries its own documentation and bounds.

    Args:
        choices: what it may be.
        own: or something of the user's, of this form: ``module:Class``.
        above: the value must be larger.
        operational: changes no result: may differ between the first run of a folder and its resumption.
        bits: operational, but changes the last bits of a result: fixed where ``engine.exact`` promises them.
        path: may name a file or folder of this machine.
        secret: an address that may hold a password or a key.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "own": own,
        "minimum": minimum,
        "maximum": maximum,
        "operational": operational or bits,
        "bits": bits,
        "path": path,
        "secret": secret,
        "above": above,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(options: type, *, operational: bool = False) -> Any:
    """A dataclass field of options that belong together; ``operational``: all of them."""
    return field(default_factory=options, metadata={"operational": operational})
