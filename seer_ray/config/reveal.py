"""Secrets back into options that come from a folder, which keeps none."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.secrets import HIDDEN, mapped, remember, revealed


def reveal(config: Any, where: str, prefix: str = "") -> None:
    """Puts the secrets that a folder does not keep back into options.

    Args:
        config: a dataclass of options; changed in place.
        where: what the options are of, for errors.

    Raises:
        ConfigError: which option is to be given again, and how.
    """
    remember(dataclasses.asdict(config))
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            reveal(value, where, f"{name}.")
        elif HIDDEN in str(value):
            setattr(config, item.name, _revealed_option(name, value, where))


def _revealed_option(name: str, value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return mapped(functools.partial(_revealed_option, name, where=where), value)
    found = revealed(value)
    if found != value or not re.search(rf"://{re.escape(HIDDEN)}@|={re.escape(HIDDEN)}", value):
        return found
    variables: tuple[str, ...] = ()
    if name == "tracking.uri":
        variables = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    elif value.startswith("s3"):
        variables = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    bare = value.replace(f"://{HIDDEN}@", "://")
    if variables and bare.startswith(("http", "s3")) and HIDDEN not in bare:
        if all(os.environ.get(variable) for variable in variables):
            return bare  # the libraries read them
    else:
        variables = ()
    other = f", or set {' and '.join(variables)}" if variables else ""
    raise ConfigError(f"{name}={value}: its secret is not kept in {where}; give {name} whole again{other}")
