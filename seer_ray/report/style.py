"""How plots look: one colour per selector everywhere, told apart by colour-blind readers, in light and dark.

Figures are drawn once, for light paper, by matplotlib without pyplot. ``save`` writes them as PNG and SVG;
``inline`` makes the same SVG part of a page, with the page's fonts and colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seer_ray.config.selectors import SELECTORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2430", "#5b6675", "#dde2e8", "#ffffff"
DARK = {INK: "#e6eaf0", MUTED: "#9aa7b6", GRID: "#323b47", PAPER: "#151a21"}
"""Colours, and what stands for each on a dark page."""

LOOKS = {name: (*traits.colours, traits.marker) for name, traits in SELECTORS.items()}
"""Colour on light and on dark paper, and marker, of every selector."""
MAP = "#2f9fd8"
OTHERS = (("#2f9fd8", "#7fd0ff", "P"), ("#b8860b", "#f0c24a", "h"), ("#7a5fb5", "#b6a0ec", "*"))
DARK |= {light: dark for light, dark, _ in (*LOOKS.values(), *OTHERS)}

_RC: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "seer-ray",
}


def colour(selector: str) -> str:
    """Of a selector's lines and points."""
    return _look(selector)[0]


def marker(selector: str) -> str:
    return _look(selector)[2]


def _look(selector: str) -> tuple[str, str, str]:
    return LOOKS.get(selector) or OTHERS[sum(selector.encode()) % len(OTHERS)]


def shades() -> Any:
    """Colours of maps, from nothing up: ink is read on all of them, on light and on dark paper."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("shades", [to_rgba(MAP, 0.0), to_rgba(MAP, 0.5)])


@contextmanager
def figure(width: float = 6.2, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one set of axes, inches. Everything about it, saving too, belongs inside."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        yield made, made.add_subplot()


def whole_ticks(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def save(made: Figure, folder: Path, name: str) -> None:
    """``name.png`` and ``name.svg`` in a folder that is made if need be. The same figure, the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(png(made))
    (folder / f"{name}.svg").write_text(svg(made), encoding="utf-8")


def png(made: Figure) -> bytes:
    """As a picture for documents, 200 dots an inch."""
    out = io.BytesIO()
    made.savefig(out, format="png", dpi=200, metadata={"Software": None})
    return out.getvalue()


def svg(made: Figure) -> str:
    """As an SVG document."""
    out = io.StringIO()
    made.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def inline(document: str, name: str) -> str:
    """An SVG document of ours as an element of a page that has the variables of ``css_variables``.

    Args:
        document: from ``svg``
        name: unique on the page, letters and digits
    """
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.S)
    body = re.sub(
        r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg class="plot" viewBox="\1" role="img">', body, count=1
    )
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px)[^;\"]*", r"font: \1\2 var(--font)", body)
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({variable(m[0])})" if m[0] in DARK else m[0], body)


def variable(light: str) -> str:
    """The CSS variable of a colour."""
    return f"--c{light[1:]}"


def css_variables() -> str:
    """Declarations that give every colour its value on a light and on a dark page."""
    return " ".join(f"{variable(light)}: light-dark({light}, {dark});" for light, dark in DARK.items())
