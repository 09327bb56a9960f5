"""Pages of HTML that need no network: templates, styles and scripts, all in one file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from seer_ray.report import style
from seer_ray.report.plots import Plot

COMMON = ("page.js", "tables.js")
"""Scripts of every page."""


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page. All text is escaped but what is made here: styles, scripts and plots.

    Args:
        template: in ``page/``
        scripts: in ``page/``, after those of every page
        values: of the template
    """
    from markupsafe import Markup

    js = "\n".join(map(_asset, (*COMMON, *scripts)))
    return (
        _environment()
        .get_template(template)
        .render(
            colours=style.css_variables(),
            css=Markup(_asset("report.css")),
            js=Markup(js),
            inline=_inline,
            **values,
        )
    )


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("seer_ray.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return resources.files("seer_ray.report").joinpath("page", name).read_text(encoding="utf-8")


def _inline(plot: Plot) -> Any:
    from markupsafe import Markup

    return Markup(style.inline(plot.svg, plot.name))
