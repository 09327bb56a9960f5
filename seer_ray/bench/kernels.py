"""The attention of one decode step, gate included, against the best dense attention that can be had."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seer_ray.bench.case import MODELS, Case, Refused, Shape
from seer_ray.bench.rivals import OURS, dense_paths, twin_paths
from seer_ray.bench.show import numbers, show
from seer_ray.bench.timing import side_by_side
from seer_ray.engine.bandwidth import Copy

if TYPE_CHECKING:
    from rich.console import Console

BLOCK = 64
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
BASE = {"cpu": Shape("qwen3-8b", 1, 32768, 2048), "cuda": Shape("qwen3-8b", 8, 32768, 4096)}
"""From which the default shapes differ in one thing each."""
VARIED: dict[str, dict[str, tuple[Any, ...]]] = {
    "cpu": {
        "model": ("smollm2-135m", "qwen3-14b"),
        "batch": (2, 4),
        "context": (8192, 16384),
        "budget": (1024, 4096),
    },
    "cuda": {
        "model": ("smollm2-135m", "qwen3-14b"),
        "batch": (1, 4, 16, 32, 64),
        "context": (4096, 8192, 16384, 65536, 131072),
        "budget": (1024, 2048, 8192),
    },
}
FURTHER: dict[str, tuple[Shape, ...]] = {"cpu": (), "cuda": (Shape("qwen3-8b", 16, 131072, 4096),)}
TURNS = {"cpu": 15, "cuda": 30}
COLUMNS = {
    "model": "model",
    "batch": "batch",
    "context": "context",
    "budget": "budget",
    "gate_us": "gate",
    "attention_us": "attend",
    "attention_gb_s": "GB/s",
    "attention_of_copy": "of copy",
    "total_us": "total",
    "twin_us": "twin",
    "dense_us": "dense",
    "dense_of_copy": "of copy",
    "dense_is": "best dense",
    "speedup": "x",
    "speedup_torch": "x torch",
}
"""Of the table: key of a row, heading."""


def add_options(parser: argparse._ArgumentGroup) -> None:
    """With any of the lists, all combinations are measured."""
    parser.add_argument("--models", type=_names, help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument("--contexts", type=numbers, help="tokens in the cache of a row, comma-separated")
    parser.add_argument("--batches", type=numbers, help="rows, comma-separated")
    parser.add_argument("--budgets", type=numbers, help="tokens that a sparse step reads, comma-separated")
    parser.add_argument(
        "--block", type=int, help=f"tokens a page ({BLOCK}; of prompts that of the gates in the package)"
    )
    parser.add_argument("--kv-dtype", choices=tuple(DTYPES), default="bfloat16", help="of K, V and queries")
    parser.add_argument("--turns", type=int, help="medians are of so many (15 on a CPU, 30 on a GPU)")
    parser.add_argument("--cold", type=int, help="bytes of K and V over which calls rotate (1 GiB, 3 GiB)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the speedups")


def shapes(options: argparse.Namespace, kind: str) -> list[Shape]:
    """What is to be measured on a device of this kind."""
    base, varied, block = BASE[kind], VARIED[kind], options.block or BLOCK
    lists = (options.models, options.batches, options.contexts, options.budgets)
    if any(lists):
        middle = (base.model, base.batch, base.context, base.budget)
        chosen = product(*(given or (single,) for given, single in zip(lists, middle, strict=True)))
        found = [Shape(model, batch, context, budget, block) for model, batch, context, budget in chosen]
    else:
        found = [base, *(replace(base, **{name: value}) for name in varied for value in varied[name])]
        found = [replace(shape, block=block) for shape in (*found, *FURTHER[kind])]
    bad = [s for s in found if s.context % s.block or s.budget % s.block or s.budget < 2 * s.block]
    if bad:
        raise ValueError(f"{bad[0]}: context and budget must be multiples of the block, two at least")
    sparse = [shape for shape in found if shape.budget < shape.context]
    if not sparse:
        raise ValueError("every budget is as long as its context: nothing is sparse")
    return sorted(sparse, key=lambda s: (list(MODELS).index(s.model), s.context, s.batch, s.budget))


def bench_kernels(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows.

    Raises:
        Refused: the operation's own check failed: there are no figures.
        ValueError: options that make no sense.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[options.kv_dtype]
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    wanted = shapes(options, device.type)
    with torch.inference_mode():
        for shape in wanted:
            if device.type == "cuda" and _needs(shape, dtype) > torch.cuda.mem_get_info()[0]:
                missing[f"{shape.model} {shape.batch} x {shape.context}"] = "does not fit"
                continue
            row, without = measure(shape, dtype, device, options.turns or TURNS[device.type], options.cold)
            rows.append(row)
            missing |= without
            console.print(f"[dim]{_line(row)}[/dim]", highlight=False)
    if not rows:
        raise ValueError("no shape fits into the device's memory")
    title = f"Decode attention, {options.kv_dtype}, times in µs, medians; x: best dense over total"
    cells = [tuple(_cell(row[key]) for key in COLUMNS) for row in rows]
    show(console, title, tuple(COLUMNS.values()), cells)
    for name, reason in missing.items():
        console.print(f"[dim]not measured: {name} ({reason})[/dim]", highlight=False)
    if options.plots:
        from seer_ray.bench.plots import draw

        for name in draw(rows, options.plots):
            console.print(f"[dim]{options.plots / name}[/dim]", highlight=False)
    return {"dtype": options.kv_dtype, "block": options.block or BLOCK, "rows": rows, "not_measured": missing}


def measure(
    shape: Shape, dtype: torch.dtype, device: torch.device, turns: int, cold: int | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """One row of the table, and which rivals are missing from it.

    ``total`` is gate and attention in one call, and a ``block``-th of a page's compressed key for each row.

    Raises:
        Refused: the operation's own check failed.
    """
    case = Case(shape, dtype, device, cold)
    try:
        case.check()
    except Refused as problem:
        raise Refused(f"{shape}: {problem}") from None
    dense, without = dense_paths(case)
    twins, lacking = twin_paths(case)
    copy = Copy(device, cold)
    calls: dict[str, Callable[[int], Any]] = {
        "gate": case.gate,
        "attention": case.attention,
        "compress": case.compress,
        "sparse": case.sparse,
        "copy": copy,
        **{f"dense {name}": call for name, call in dense.items()},
        **{f"twin {name}": call for name, call in twins.items()},
    }
    times = side_by_side(calls, device, turns)
    del case, dense, twins, calls
    gc.collect()
    rate = copy.bytes / times["copy"]  # bytes per µs
    by_dense = {name: times[f"dense {name}"] for name in _names_of(times, "dense ")}
    by_twin = {name: times[f"twin {name}"] for name in _names_of(times, "twin ")}
    best, twin = min(by_dense, key=by_dense.__getitem__), min(by_twin, key=by_twin.__getitem__)
    best_torch = min((name for name in by_dense if name != OURS), key=by_dense.__getitem__)
    completion = times["compress"] * shape.batch / shape.block
    total = times["sparse"] + completion
    gate_bytes, attention_bytes = shape.sparse_bytes(dtype)
    row = {
        "model": shape.model,
        "batch": shape.batch,
        "context": shape.context,
        "budget": shape.budget,
        "gate_us": times["gate"] + completion,
        "attention_us": times["attention"],
        "total_us": total,
        "compress_us": times["compress"],
        "gate_bytes": gate_bytes,
        "attention_bytes": attention_bytes,
        "attention_gb_s": attention_bytes / times["attention"] / 1e3,
        "attention_of_copy": attention_bytes / times["attention"] / rate,
        "total_gb_s": (gate_bytes + attention_bytes) / total / 1e3,
        "twin_us": by_twin[twin],
        "twin_is": twin,
        "dense_us": by_dense[best],
        "dense_is": best,
        "dense_bytes": shape.kv_bytes(dtype),
        "dense_gb_s": shape.kv_bytes(dtype) / by_dense[best] / 1e3,
        "dense_of_copy": shape.kv_bytes(dtype) / by_dense[best] / rate,
        "torch_us": by_dense[best_torch],
        "torch_is": best_torch,
        "copy_gb_s": rate / 1e3,
        "speedup": by_dense[best] / total,
        "speedup_torch": by_dense[best_torch] / total,
        "speedup_ours": by_dense[OURS] / total,
        "dense_all_us": {name: round(value, 2) for name, value in by_dense.items()},
        "twin_all_us": {name: round(value, 2) for name, value in by_twin.items()},
    }
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, without | lacking


def _needs(shape: Shape, dtype: torch.dtype) -> int:
    """Bytes of two caches, one more while the check runs, and what is beside them."""
    return 3 * shape.kv_bytes(dtype) + (6 << 30)


def _names_of(times: Iterable[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in times if name.startswith(prefix)]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: must be of {', '.join(MODELS)}")
    return names


def _line(row: dict[str, Any]) -> str:
    shape = f"{row['model']}, batch {row['batch']}, context {row['context']}, budget {row['budget']}"
    return f"{shape}: {row['total_us']:,.0f} µs, {row['speedup']:.2f}x {row['dense_is']}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return str(value)
