"""What decodes and measures is imported where only torch, triton and transformers are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ROOMS = ["kernels", "models", "selectors", "engine", "bench"]
ABSENT = [
    "ray",
    "mlflow",
    "hydra",
    "omegaconf",
    "pyarrow",
    "typer",
    "rich",
    "matplotlib",
    "scipy",
    "pandas",
    "jinja2",
]
SCRIPT = """
import builtins, importlib, pkgutil, sys

rooms, absent = (text.split() for text in sys.argv[1:])
original = builtins.__import__

def without(name, globals=None, *rest, **named):
    # Ours alone: transformers looks for some of them too, and does without.
    if name.partition(".")[0] in absent and (globals or {}).get("__name__", "").startswith("seer_ray"):
        raise ModuleNotFoundError(f"{globals['__name__']} imports {name}")
    return original(name, globals, *rest, **named)

builtins.__import__ = without
for room in rooms:
    package = importlib.import_module(f"seer_ray.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def test_modules_without_what_the_driver_needs() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-c", SCRIPT, " ".join(ROOMS), " ".join(ABSENT)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
