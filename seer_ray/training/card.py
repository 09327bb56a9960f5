"""Cards: the README of what was trained here, made from its run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def write_card(folder: Path, template: str, packages: Sequence[str], **values: Any) -> None:
    """``README.md`` in a folder.

    Args:
        template: a file of this package, in jinja2
        packages: whose versions the card names, as ``versions``
        values: by the names that the template has for them
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    cards = Environment(
        loader=PackageLoader("seer_ray", "training"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    text = cards.get_template(template).render(versions=versions, **values)
    (folder / "README.md").write_text(text, encoding="utf-8")
