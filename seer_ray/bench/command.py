"""Arguments of ``seer-ray bench``, and peak memory in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from seer_ray.bench import distill as bench_distill
from seer_ray.bench import driver as bench_driver
from seer_ray.bench import engine as bench_engine
from seer_ray.bench import host as bench_host
from seer_ray.bench import kernels as bench_kernels
from seer_ray.bench import prompts as bench_prompts
from seer_ray.bench import speculate as bench_speculate
from seer_ray.bench.models import SHAPES
from seer_ray.bench.show import numbers
from seer_ray.models.load import DTYPES

if TYPE_CHECKING:
    from rich.console import Console

ABOUT = "Benchmarks: ratios measured side by side in one run, medians, one JSON line for machines."
WIDTH = 140
"""Of tables where no terminal says how wide it is."""


def memory_alone(options: argparse.Namespace, console: Console) -> dict[str, Any]:
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
    made = argparse.ArgumentParser(prog="seer-ray bench", description=ABOUT)
    kinds = (
        "kernels",
        "engine",
        "memory",
        "all",
        "distill",
        "layers",
        "host",
        "driver",
        "prompts",
        "speculate",
    )
    made.add_argument("what", choices=kinds)
    made.add_argument("--json", action="store_true", help="one JSON line on stdout, tables on stderr")
    usual = bench_engine.defaults()
    shapes = ", ".join(SHAPES)
    made.add_argument(
        "--batch",
        type=numbers,
        default=usual.batch,
        help=f"engine, speculate; memory, layers (the most): rows {usual.batch}",
    )
    made.add_argument(
        "--model",
        default=usual.model,
        help=f"engine, memory, distill, speculate: as model.name, or (but the last) with random weights "
        f"{shapes} ({usual.model})",
    )
    made.add_argument(
        "--dtype", choices=tuple(DTYPES), default=usual.dtype, help=f"all but kernels: {usual.dtype}"
    )
    made.add_argument(
        "--rows",
        type=numbers,
        help=f"host: rows of a step {bench_host.ROWS}; driver: requests of the job {bench_driver.ROWS}",
    )
    made.add_argument("--kv-memory", default="2GiB", help="memory: as engine.kv_memory")
    bench_kernels.add_options(made.add_argument_group("kernels"))
    bench_engine.add_options(made.add_argument_group("engine"))
    bench_distill.add_options(made.add_argument_group("distill"))
    bench_driver.add_options(made.add_argument_group("driver"))
    bench_prompts.add_options(made.add_argument_group("prompts"))
    bench_speculate.add_options(made.add_argument_group("speculate"))
    made.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return made
