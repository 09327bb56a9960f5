"""A page and its plots as files."""

from __future__ import annotations

from collections.abc import Sequence

from seer_ray.report.plots import Plot
from seer_ray.results.store import Store

FILE, PLOTS = "report.html", "plots"


def write_page(store: Store, file: str, html: str, plots: Sequence[Plot]) -> list[str]:
    """The page, and each plot as PNG and SVG in ``plots/``. Returns the names of all files, the page first.

    Raises:
        OSError: the disk or the object store.
    """
    store.make_folder()
    store.make_folder(PLOTS)
    files: dict[str, bytes] = {}
    for plot in plots:
        files[f"{PLOTS}/{plot.name}.png"] = plot.png
        files[f"{PLOTS}/{plot.name}.svg"] = plot.svg.encode()
    for name, data in (files | {file: html.encode()}).items():
        store.write(name, data)
    return [file, *files]
