"""Builds the CPU paths in C++ where a compiler is, and calls them.

Compiled once per source, compiler flags and CPU, into the user's cache folder (about two seconds).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

NAMES = ("scalar.h", "paged.cpp", "rows.cpp", "projection.cpp", "target.cpp")
SOURCES = [Path(__file__).with_name(name) for name in NAMES]
# No order of summation is promised but a fixed one, so sums may be vectorised. Not by -ffast-math: linked so,
# GCC 12 and older make the whole process flush denormal numbers to zero, which changes the model's bits.
FAST = "-fno-math-errno -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math"
FLAGS = f"-O3 -march=native {FAST} -std=c++17 -shared -fPIC -fopenmp".split()
# Named one by one, so that -fopenmp does not bring the compiler's own OpenMP library.
LIBRARIES = ["-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc", "-lpthread"]


@cache
def binary() -> ctypes.CDLL | None:
    """The compiled operations, or None where they cannot be built; the reason is logged once."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        log.warning("no C++ compiler (g++ or CXX): attention on CPU takes the slower torch path")
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except OSError as error:  # also where the cache folder cannot be written
        log.warning("attention on CPU takes the slower torch path: %s", error)
        return None


def _build(compiler: str) -> Path:
    """The shared object, compiled if it is not there yet.

    Raises:
        OSError: it cannot be.
    """
    texts = b"".join(source.read_bytes() for source in SOURCES)
    key = hashlib.sha256(texts + " ".join([compiler, *FLAGS, _cpu()]).encode()).hexdigest()[:16]
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache_home / "seer-ray" / f"paged-{key}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        draft = built.with_suffix(f".{platform.node()}-{os.getpid()}")
        # Against torch's own OpenMP: two thread pools on the same cores would wait for each other.
        openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*"))
        link = [str(openmp[0]), f"-Wl,-rpath,{openmp[0].parent}"] if openmp else ["-lgomp"]
        units = [str(source) for source in SOURCES if source.suffix == ".cpp"]
        command = [compiler, *FLAGS, "-nodefaultlibs", *units, *link, *LIBRARIES, "-o", str(draft)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise OSError(f"{compiler} failed: {result.stderr.strip()[-400:]}")
        os.replace(draft, built)  # several workers may build at once: the last one wins, all are whole
    return built


def _cpu() -> str:
    """What -march=native may depend on."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), platform.machine())
    except OSError:
        return platform.machine()


AT, INT, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "attend": (*[AT] * 4, INT, INT, *[AT] * 4, *[INT] * 7, REAL),
    "score": (AT, AT, AT, INT, AT, AT, *[INT] * 6),
    "select_blocks": (AT, AT, INT, AT, AT, AT, *[INT] * 6, REAL),
    "rms_norm": (AT, AT, AT, INT, INT, REAL),
    "rotate_append": (*[AT] * 10, *[INT] * 5),
    "gate_query": (*[AT] * 6, *[INT] * 4, REAL, REAL),
    "projections": (AT,),
    "mlp": (AT,),
    "target_max": (*[AT] * 4, *[INT] * 7),
}
"""Of the compiled operations: told once, so that a step's hundreds of calls pass plain numbers."""


class Recorder(Protocol):
    """Does in place of this thread what it would do itself."""

    def call(self, operation: Callable[..., None], *arguments: Any) -> None: ...

    def workspace(self, numbers: int) -> torch.Tensor: ...


class _Told(threading.local):
    recorder: Recorder | None = None


_told = _Told()


def tell(recorder: Recorder | None) -> None:
    """From now on, of what this thread calls; None: nobody."""
    _told.recorder = recorder


def workspace(numbers: int) -> torch.Tensor:
    """Memory for an operation that writes it before it reads it, fp32."""
    recorder = _told.recorder
    return torch.empty(numbers, dtype=torch.float32) if recorder is None else recorder.workspace(numbers)


def operation(name: str, *dtypes: torch.dtype) -> Callable[..., None]:
    """A compiled operation for these dtypes; takes addresses, sizes and factors as numbers."""
    called, recorder = _function(binary(), name, *dtypes), _told.recorder
    return called if recorder is None else partial(recorder.call, called)


@cache
def _function(built: ctypes.CDLL | None, name: str, *dtypes: torch.dtype) -> Callable[..., None]:
    assert built is not None
    function = built["_".join([name, *(str(dtype).removeprefix("torch.") for dtype in dtypes)])]
    function.argtypes, function.restype = ARGUMENTS[name], None
    return function


def at(tensor: torch.Tensor | None) -> int | None:
    """Its address; None: nowhere."""
    return None if tensor is None else tensor.data_ptr()
