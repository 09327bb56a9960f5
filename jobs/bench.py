"""Benchmarks: ratios measured side by side in one run, medians, one JSON line for machines.

``kernels``: decode attention with its gate against the best dense attention. ``engine``: whole engines
against ``model.generate`` and ``generate_batch``, decode steps at long context. ``memory``: peak memory of a
full cache. ``all``: these three, unattended. ``distill``: training steps of gates. Needs neither Ray nor
MLflow nor Hydra.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from rich.console import Console

from seer_ray.jobs import bench_distill, bench_engine, bench_kernels, bench_memory
from seer_ray.jobs.bench_case import Refused
from seer_ray.jobs.bench_models import SHAPES
from seer_ray.jobs.bench_show import numbers
from seer_ray.jobs.bench_timing import machine
from seer_ray.models.load import DTYPES

WIDTH = 140
"""Of tables where no terminal says how wide it is."""


def main(arguments: list[str]) -> int:
    """``seer-ray bench``. Returns the exit code: 1 where an operation's own check failed, 2: bad options."""
    options = parser().parse_args(arguments)
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console = Console(stderr=options.json, width=WIDTH)
    report: dict[str, Any] = {"bench": options.what, **machine()}
    try:
        if options.what in ("kernels", "all"):
            report["kernels"] = bench_kernels.bench_kernels(options, console)
        if options.what in ("engine", "all"):
            report["engine"] = bench_engine.bench_engine(options, console)
        if options.what == "distill":
            report["distill"] = bench_distill.bench_distill(options, console)
    except Refused as problem:
        print(f"seer-ray bench: refused: {problem}", file=sys.stderr)
        return 1
    except ValueError as problem:
        print(f"seer-ray bench: {problem}", file=sys.stderr)
        return 2
    if options.what == "memory":
        report["memory"] = bench_memory.bench_memory(options, console)
    elif options.what == "all":
        report["memory"] = _memory_alone(options, console)
    if options.json:
        print(json.dumps(report))
    return 0


def _memory_alone(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """In a process of its own: the peak of this one has been."""
    command = [sys.executable, "-m", "seer_ray.jobs.bench", "memory", "--json"]
    command += ["--batch", str(max(options.batch)), "--kv-memory", options.kv_memory]
    command += ["--model", options.model, "--dtype", options.dtype]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"seer-ray bench memory failed: {result.stderr.strip()[-400:]}")
    console.print(result.stderr, end="", highlight=False, markup=False)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["memory"]
    return found


def parser() -> argparse.ArgumentParser:
    """Of all that can be measured; defaults are those of this machine."""
    made = argparse.ArgumentParser(prog="seer-ray bench", description=(__doc__ or "").splitlines()[0])
    made.add_argument("what", choices=("kernels", "engine", "memory", "all", "distill"))
    made.add_argument("--json", action="store_true", help="one JSON line on stdout, tables on stderr")
    usual = bench_engine.defaults()
    shapes = ", ".join(SHAPES)
    made.add_argument(
        "--batch", type=numbers, default=usual.batch, help=f"engine, memory (the most): rows {usual.batch}"
    )
    made.add_argument(
        "--model",
        default=usual.model,
        help=f"engine, memory, distill: as model.name, or with random weights {shapes} ({usual.model})",
    )
    made.add_argument(
        "--dtype", choices=tuple(DTYPES), default=usual.dtype, help=f"engine, memory, distill: {usual.dtype}"
    )
    made.add_argument("--kv-memory", default="2GiB", help="memory: as engine.kv_memory")
    bench_kernels.add_options(made.add_argument_group("kernels"))
    bench_engine.add_options(made.add_argument_group("engine"))
    bench_distill.add_options(made.add_argument_group("distill"))
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
