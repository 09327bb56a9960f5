"""Who may import whom: each room what stands below it, never what stands above or beside it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (
    ("cli",),
    ("jobs",),
    ("sweeps", "study", "bench"),
    ("driver", "training"),
    ("fidelity", "report", "cluster", "status"),
    ("corpora", "analysis", "tracking"),
    ("results",),
    ("engine",),
    ("selectors",),
    ("models", "tasks"),
    ("kernels",),
)
LEVEL = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}


def modules() -> dict[str, Path]:
    """Dotted name -> file; ``kernels``, ``jobs`` and ``conf`` are links into the package."""
    found = {}
    for folder, _, files in os.walk(ROOT / "seer_ray", followlinks=True):
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                parts = path.relative_to(ROOT).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def imports(module: str, lazy: bool = True) -> tuple[str, ...]:
    """Modules of the package that a module imports; ``lazy``: in functions and for type checkers too."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return tuple(sorted(set(_imports(tree, lazy))))


def _imports(tree: ast.AST, lazy: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seer_ray":
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "seer_ray")
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not lazy and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield from _imports(node, lazy)


def test_every_room_is_on_the_plan() -> None:
    rooms = {room(module) for module in MODULES} - {""}
    assert rooms - {"config", "conf"} <= LEVEL.keys()
    loose = [path.name for path in (ROOT / "seer_ray").glob("*.py")]
    assert loose == ["__init__.py"]


def violations() -> list[str]:
    found = []
    for module in MODULES:
        here = room(module)
        if not here:
            continue
        for other in imports(module):
            there = room(other)
            if there in ("", here) or there == "config":
                continue
            if here in ("config", "conf") or LEVEL[there] <= LEVEL[here]:
                found.append(f"{module} imports {other}")
    return found


def test_nobody_imports_upwards() -> None:
    assert violations() == []


def test_nothing_is_imported_in_a_circle() -> None:
    """At import time; what a function imports when it is called may be a circle's other half."""
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> None:
        if module not in MODULES or state.get(module) == 2:
            return
        assert state.get(module) != 1, " -> ".join([*path[path.index(module) :], module])
        state[module] = 1
        path.append(module)
        for other in imports(module, lazy=False):
            if other != module:
                visit(other)
        path.pop()
        state[module] = 2

    for module in MODULES:
        visit(module)


def test_every_import_is_of_something_that_is_there() -> None:
    assert not {name for module in MODULES for name in imports(module)} - MODULES.keys()
