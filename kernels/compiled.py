"""Builds the CPU paths in C++ where a compiler is, and loads them as operations of torch.

Compiled once per source, compiler flags and CPU, into the user's cache folder (about three seconds).
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

log = logging.getLogger(__name__)

NAMES = (
    *("scalar.h", "operations.h"),
    *("library.cpp", "paged.cpp", "rows.cpp", "projection.cpp", "delta.cpp", "target.cpp"),
)
SOURCES = [Path(__file__).with_name(name) for name in NAMES]
# No order of summation is promised but a fixed one, so sums may be vectorised. Not by -ffast-math: linked so,
# GCC 12 and older make the whole process flush denormal numbers to zero, which changes the model's bits.
FAST = "-fno-math-errno -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math"
FLAGS = f"-O3 -march=native {FAST} -std=c++17 -fPIC -fopenmp".split()
TORCH = Path(torch.__file__).parent


@cache
def binary() -> Any:
    """The compiled operations, a namespace of ``torch.ops``, or None where they cannot be built; the reason
    is logged once."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        log.warning("no C++ compiler (g++ or CXX): attention on CPU takes the slower torch path")
        return None
    try:
        built = _build(compiler)
        library = getattr(torch.ops, built.stem)
        if not hasattr(library, "attend"):  # torch ends the process where a namespace is defined twice
            torch.ops.load_library(built)
        return library
    except OSError as error:  # also where the cache folder cannot be written
        log.warning("attention on CPU takes the slower torch path: %s", error)
        return None


def _build(compiler: str) -> Path:
    """The shared object, compiled if it is not there yet.

    Raises:
        OSError: it cannot be.
    """
    texts = b"".join(source.read_bytes() for source in SOURCES)
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_home / "seer-ray"
    parts = [compiler, *FLAGS, _cpu(), torch.__version__, str(TORCH), str(folder)]
    key = hashlib.sha256(texts + " ".join(parts).encode()).hexdigest()[:16]
    built = folder / f"seer_ray_{key}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Several workers may build at once: the last one wins, all are whole.
        with TemporaryDirectory(dir=folder) as draft, ThreadPoolExecutor() as pool:
            compile = [compiler, *FLAGS, f"-DLIBRARY={built.stem}", "-isystem", str(TORCH / "include"), "-c"]
            units = {source: f"{draft}/{source.stem}.o" for source in SOURCES if source.suffix == ".cpp"}
            list(pool.map(_run, ([*compile, str(unit), "-o", made] for unit, made in units.items())))
            linked = Path(draft, built.name)
            _run([compiler, "-shared", "-nodefaultlibs", *units.values(), *_libraries(), "-o", str(linked)])
            os.replace(linked, built)
    return built


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise OSError(f"{command[0]} failed: {result.stderr.strip()[-400:]}")


def _libraries() -> list[str]:
    """By name, so that -fopenmp does not bring the compiler's own OpenMP library, but torch's is taken:
    two thread pools on the same cores would wait for each other."""
    lib = TORCH / "lib"
    openmp = next((str(path) for path in sorted(lib.glob("libgomp*"))), "-lgomp")
    ours = [f"-L{lib}", f"-Wl,-rpath,{lib}", openmp, "-ltorch_cpu"]
    return [*ours, *["-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc", "-lpthread"]]


def _cpu() -> str:
    """What -march=native may depend on."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), platform.machine())
    except OSError:
        return platform.machine()


@cache
def _overload(library: Any, name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(library, name).default
    return found


def operation(name: str) -> Callable[..., None]:
    """One of them, where they are there; what it takes is in library.cpp."""
    return _overload(binary(), name)
