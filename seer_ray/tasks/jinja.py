"""Prompts in Jinja: ``{{ question }}``, conditions and loops over the columns of a row, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from seer_ray.config.errors import ConfigError, one_line

# Blocks as in the chat templates of transformers.
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def names(template: str, option: str) -> set[str]:
    """Names that a template wants values for.

    Raises:
        ConfigError: It is not Jinja.
    """
    try:
        return meta.find_undeclared_variables(_JINJA.parse(template))
    except TemplateError as error:
        raise _refused(error, option, f"line {getattr(error, 'lineno', '?')}") from None


def fill(template: str, values: Mapping[str, Any], option: str, where: str) -> str:
    """The template with a row's values.

    Raises:
        ConfigError: A name that is no column, or something that the template cannot do with one.
    """
    try:
        return _compiled(template).render(dict(values))
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise _refused(error, option, where) from None


@cache
def _compiled(template: str) -> Template:
    return _JINJA.from_string(template)


def _refused(error: Exception, option: str, where: str) -> ConfigError:
    return ConfigError(f"{option}: {one_line(error)} (as Jinja, in {where})")
