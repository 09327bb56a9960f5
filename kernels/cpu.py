"""Builds and calls the CPU paths in C++, those of a decode step and of training, where a compiler is.

Compiled once per source, compiler flags and CPU, into the user's cache folder (about two seconds). Without
a compiler, or for shapes that it does not take, the torch definitions run: slower, the same up to rounding.
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
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch

from seer_ray.kernels.quantise import KV, tensors

log = logging.getLogger(__name__)

NAMES = ("scalar.h", "paged.cpp", "rows.cpp", "linear.cpp", "target.cpp")
SOURCES = [Path(__file__).with_name(name) for name in NAMES]
# No order of summation is promised but a fixed one, so sums may be vectorised. Not by -ffast-math: linked so,
# GCC 12 and older make the whole process flush denormal numbers to zero, which changes the model's bits.
FAST = "-fno-math-errno -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math"
FLAGS = f"-O3 -march=native {FAST} -std=c++17 -shared -fPIC -fopenmp".split()
# Named one by one, so that -fopenmp does not bring the compiler's own OpenMP library.
LIBRARIES = ["-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc", "-lpthread"]
MAX_GROUP, MAX_BLOCK, MAX_DIM = 16, 256, 256
MAX_ROWS = 16
"""Rows that a product with a weight takes: with more, arithmetic costs more than reading the weight does."""
LANES = 16
"""Keys whose products with a query are computed together."""
DTYPES = (torch.float32, torch.bfloat16)


@cache
def library() -> ctypes.CDLL | None:
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


def takes(cached: KV, group: int, block: int, dim: int) -> bool:
    """Whether the compiled operations run on this cache, or summaries, and these shapes."""
    fits = group <= MAX_GROUP and block <= MAX_BLOCK and dim <= MAX_DIM
    known = cached.device.type == "cpu" and cached.dtype in (*DTYPES, torch.int8)
    return known and fits and library() is not None


def takes_rows(*tensors: torch.Tensor) -> bool:
    """Whether the compiled operations on single rows run on these: no gradients flow through them."""
    tracked = torch.is_grad_enabled()
    for tensor in tensors:  # a loop: a step asks hundreds of times
        if not tensor.is_cpu or tensor.dtype not in DTYPES or (tracked and tensor.requires_grad):
            return False
    return library() is not None


def takes_linear(x: torch.Tensor, weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> bool:
    """Whether products of these rows with these weights and biases are compiled."""
    if not (0 < x.numel() <= MAX_ROWS * x.shape[-1] and takes_rows(x)) or torch.is_autocast_enabled("cpu"):
        return False
    tracked, dtype = torch.is_grad_enabled(), x.dtype
    for weight in weights:
        for part in weight:
            if part is not None and (
                part.dtype != dtype or not part.is_contiguous() or (tracked and part.requires_grad)
            ):
                return False
    return True


def takes_target(q: torch.Tensor, block: int) -> bool:
    """Whether the distillation target of these queries is compiled."""
    return takes_rows(q) and block % LANES == 0


AT, INT, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "attend": (*[AT] * 4, INT, INT, *[AT] * 4, *[INT] * 7, REAL),
    "score": (AT, AT, AT, INT, AT, AT, *[INT] * 6),
    "select_blocks": (AT, AT, INT, AT, AT, AT, *[INT] * 6),
    "rms_norm": (AT, AT, AT, INT, INT, REAL),
    "rotate_append": (*[AT] * 10, *[INT] * 5),
    "gate_query": (*[AT] * 6, *[INT] * 4, REAL, REAL),
    "linear": (AT,),
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
    """From now on, of what this thread calls."""
    _told.recorder = recorder


def _workspace(numbers: int) -> torch.Tensor:
    recorder = _told.recorder
    return torch.empty(numbers, dtype=torch.float32) if recorder is None else recorder.workspace(numbers)


def _operation(name: str, *dtypes: torch.dtype) -> Callable[..., None]:
    """A compiled operation for these dtypes; takes addresses, sizes and factors as numbers."""
    operation, recorder = _compiled(name, *dtypes), _told.recorder
    return operation if recorder is None else partial(recorder.call, operation)


@cache
def _compiled(name: str, *dtypes: torch.dtype) -> Callable[..., None]:
    compiled = library()
    assert compiled is not None
    operation = compiled["_".join([name, *(str(dtype).removeprefix("torch.") for dtype in dtypes)])]
    operation.argtypes, operation.restype = ARGUMENTS[name], None
    return operation


def _at(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def attend(
    q: torch.Tensor,
    kv: KV,
    page_ids: torch.Tensor,
    counts: torch.Tensor,
    tails: torch.Tensor,
    scale: float,
    split: int,
) -> torch.Tensor:
    """See ``kernels.attend``."""
    rows, q_heads, dim = q.shape
    heads, block, width = kv.shape[1], kv.shape[3], page_ids.shape[2]
    numbers, scales = tensors(kv)
    dtype, computed = (kv.dtype, kv.dtype) if scales is None else (q.dtype, torch.float32)
    q, counts, tails = q.to(computed).contiguous(), counts.contiguous(), tails.contiguous()
    if page_ids.stride(2) != 1:
        page_ids = page_ids.contiguous()
    group = q_heads // heads
    out = torch.empty_like(q)
    partials = rows * heads * -(-width // split)
    workspace = _workspace(partials * group * (dim + 2))
    _operation("attend", kv.dtype)(
        q.data_ptr(),
        numbers.data_ptr(),
        _at(scales),
        page_ids.data_ptr(),
        page_ids.stride(0),
        page_ids.stride(1),
        counts.data_ptr(),
        tails.data_ptr(),
        out.data_ptr(),
        workspace.data_ptr(),
        *(rows, heads, group, block, dim, width, split),
        scale,
    )
    return out.to(dtype)


def score(
    features: torch.Tensor, summary: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int
) -> torch.Tensor:
    """See ``kernels.score``."""
    rows, heads, vectors, width = features.shape
    features, lengths = features.float().contiguous(), lengths.contiguous()
    pages = page_table.shape[1]
    out = torch.empty(rows, heads, pages, dtype=torch.float32)
    _operation("score", summary.dtype)(
        features.data_ptr(),
        summary.data_ptr(),
        page_table.data_ptr(),
        page_table.stride(0),
        lengths.data_ptr(),
        out.data_ptr(),
        *(rows, heads, vectors, width, pages, block),
    )
    return out


def select(
    scores: torch.Tensor, page_table: torch.Tensor, lengths: torch.Tensor, block: int, k: int, sink: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.select``, without a threshold; ``k`` is at least the number of forced blocks."""
    rows, heads, width = scores.shape
    k = min(k, width)
    scores, lengths = scores.float().contiguous(), lengths.contiguous()
    page_ids = torch.empty(rows, heads, k, dtype=torch.int64)
    counts = torch.empty(rows, heads, dtype=torch.int64)
    _operation("select_blocks")(
        scores.data_ptr(),
        page_table.data_ptr(),
        page_table.stride(0),
        lengths.data_ptr(),
        page_ids.data_ptr(),
        counts.data_ptr(),
        *(rows, heads, width, block, k, sink),
    )
    return page_ids, counts


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See ``kernels.norm``."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    at = x.data_ptr(), weight.data_ptr(), out.data_ptr()
    _operation("rms_norm", x.dtype)(*at, x.numel() // width, width, eps)
    return out


def rotate_append(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    kv: KV,
    pages: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """See ``kernels.append``; q, k, v and a cache that is not int8 are of one dtype, the tables float32."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    cos, sin = cos.contiguous(), sin.contiguous()
    pages, offsets = pages.contiguous(), offsets.contiguous()
    tokens, q_heads, dim = q.shape
    out = torch.empty_like(q)
    numbers, scales = tensors(kv)
    _operation("rotate_append", q.dtype, kv.dtype)(
        *map(_at, (q, k, v, cos, sin, numbers, scales, pages, offsets, out)),
        *(tokens, q_heads, k.shape[1], kv.shape[3], dim),
    )
    return out


def gate_query(
    q: torch.Tensor,
    weight: torch.Tensor,
    norm: torch.Tensor | None,
    table: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    scale: float,
) -> torch.Tensor:
    """See ``kernels.gate_query``."""
    q, weight = q.contiguous(), weight.contiguous()
    cos, sin = (part.contiguous() for part in table) if table is not None else (None, None)
    rows, heads, inputs, dim = q.shape[0], weight.shape[0], weight[0, ..., 0].numel(), weight.shape[-1]
    out = torch.empty(rows, heads, dim, dtype=torch.float32)
    at = map(_at, (q, weight, norm, cos, sin, out))
    _operation("gate_query", q.dtype, weight.dtype)(*at, rows, heads, inputs, dim, eps, scale)
    return out


def linear(
    x: torch.Tensor, weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]]
) -> list[torch.Tensor]:
    """See ``kernels.linear``."""
    x = x.contiguous()
    outs = [x.new_empty((*x.shape[:-1], weight.shape[0])) for weight, _ in weights]
    _operation("linear", x.dtype)(_products(x, weights, outs))
    return outs


def mlp(
    x: torch.Tensor,
    gate: tuple[torch.Tensor, torch.Tensor | None],
    up: tuple[torch.Tensor, torch.Tensor | None],
    down: tuple[torch.Tensor, torch.Tensor | None],
) -> torch.Tensor:
    """See ``kernels.linear``."""
    x = x.contiguous()
    inner, out = (x.new_empty((*x.shape[:-1], weight.shape[0])) for weight, _ in (up, down))
    _operation("mlp", x.dtype)(_products(x, (gate, up, down), (inner, inner, out)))
    return out


def _products(
    x: torch.Tensor,
    weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    outs: Sequence[torch.Tensor],
) -> ctypes.Array[ctypes.c_int64]:
    """``Products`` of linear.cpp. One block of numbers: with a hundred calls a step each object counts."""
    inner = x.shape[-1]
    numbers = [x.data_ptr(), x.numel() // inner, inner, len(weights)]
    for (weight, bias), out in zip(weights, outs, strict=True):
        bias_at = 0 if bias is None else bias.data_ptr()
        numbers += weight.data_ptr(), bias_at, out.data_ptr(), weight.shape[0]
    return (ctypes.c_int64 * len(numbers))(*numbers)


def target_max(
    q: torch.Tensor, k: torch.Tensor, sums: torch.Tensor, block: int, scale: float, first: int
) -> torch.Tensor:
    """The target of ``kernels.target``, kind ``max``; ``sums [q_heads, tokens]`` are the rows' log sums."""
    (tokens, q_heads, dim), heads = q.shape, k.shape[1]
    blocks = (tokens - 1) // block
    keys = k[: blocks * block].float().view(blocks, block, heads, dim).permute(2, 0, 3, 1).contiguous()
    q, sums = (q.float() * scale).contiguous(), sums.contiguous()
    out = torch.zeros(tokens - first, heads, blocks)
    at = map(_at, (q, keys, sums, out))
    _operation("target_max")(*at, tokens, first, heads, q_heads // heads, dim, block, blocks)
    return out
