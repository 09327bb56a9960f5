"""Builds the CPU paths in C++ where a compiler is, and loads them as operations of torch.

Compiled once per source, compiler flags and CPU, into the user's cache folder (about three seconds). The
library's file name ends with the digest of its content, which is compared before it is loaded: one that was
cut short, by a full disk or a loss of power, would end the process with SIGBUS.
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

from seer_ray.config.cache import cache_folder, digest_of, sync

log = logging.getLogger(__name__)

NAMES = (
    *("scalar.h", "vectors.h", "chunk.h", "operations.h"),
    *("library.cpp", "paged.cpp", "select.cpp", "rows.cpp", "projection.cpp", "delta.cpp", "target.cpp"),
)
SOURCES = [Path(__file__).with_name(name) for name in NAMES]
# No order of summation is promised but a fixed one, so sums may be vectorised. Not by -ffast-math: linked so,
# GCC 12 and older make the whole process flush denormal numbers to zero, which changes the model's bits.
FAST = "-fno-math-errno -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math"
FLAGS = f"-O3 -march=native {FAST} -std=c++17 -fPIC -fopenmp".split()
TORCH = Path(torch.__file__).parent
SLOWER = "attention on CPU takes the slower torch path"


@cache
def binary() -> Any:
    """The compiled operations, a namespace of ``torch.ops``, or None where they cannot be built; ``fallback``
    says why."""
    try:
        compiler = _compiler()
        built = _build(compiler)
        library = getattr(torch.ops, _name(built))
        if not hasattr(library, "attend"):  # torch ends the process where a namespace is defined twice
            torch.ops.load_library(built)
        return library
    except (OSError, subprocess.SubprocessError) as error:  # also where the cache folder cannot be written
        _reasons.append(f"{SLOWER}: {error}")
        log.warning("%s", _reasons[0])
        return None


_reasons: list[str] = []


def fallback() -> str | None:
    """Why the compiled operations are not there, in a line, if they were asked for and are not."""
    return _reasons[0] if _reasons else None


def _compiler() -> str:
    named = os.environ.get("CXX", "g++")
    compiler = shutil.which(named)
    if compiler is None:
        raise OSError(f"no C++ compiler ({named}); install g++, or set CXX")
    return compiler


def _build(compiler: str) -> Path:
    """The shared object, compiled if it is not there yet, whole.

    Raises:
        OSError: it cannot be.
    """
    folder = cache_folder()
    texts = b"".join(source.read_bytes() for source in SOURCES)
    parts = [compiler, *FLAGS, _cpu(), torch.__version__, str(TORCH), str(folder)]
    name = f"seer_ray_{hashlib.sha256(texts + ' '.join(parts).encode()).hexdigest()[:16]}"
    for there in sorted(folder.glob(f"{name}.*.so")):
        if there.name == _file_name(name, there):
            return there
        log.warning("%s: not as it was written; compiled again", there)
        there.unlink(missing_ok=True)
    # Several workers may build at once: each one's is whole, and any will do.
    with TemporaryDirectory(dir=folder) as draft, ThreadPoolExecutor() as pool:
        compile = [compiler, *FLAGS, f"-DLIBRARY={name}", "-isystem", str(TORCH / "include"), "-c"]
        units = {source: f"{draft}/{source.stem}.o" for source in SOURCES if source.suffix == ".cpp"}
        list(pool.map(_run, ([*compile, str(unit), "-o", made] for unit, made in units.items())))
        linked = Path(draft, "linked.so")
        _run([compiler, "-shared", "-nodefaultlibs", *units.values(), *_libraries(), "-o", str(linked)])
        sync([linked])
        built = folder / _file_name(name, linked)
        os.replace(linked, built)
        sync([folder])
    return built


def _file_name(name: str, content: Path) -> str:
    return f"{name}.{digest_of(content)[:16]}.so"


def _name(built: Path) -> str:
    """The namespace that a library defines."""
    return built.name.partition(".")[0]


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
def multiplies_bf16() -> bool:
    """Whether the CPU has instructions that multiply bfloat16, and torch uses them."""
    return "avx512_bf16" in _cpu() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _overload(library: Any, name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(library, name).default
    return found


def operation(name: str) -> Callable[..., None]:
    """One of them, where they are there; what it takes is in library.cpp."""
    return _overload(binary(), name)
