"""Benchmarks: ratios measured side by side in one run, medians, one JSON line for machines.

``kernels``: decode attention with its gate against the best dense attention. ``engine``: whole engines
against ``model.generate`` and ``generate_batch``, decode steps at long context. ``memory``: peak memory of a
full cache. ``all``: these three, unattended. ``distill``: training steps of gates. ``layers``:
decode steps of models with layers of other kinds. ``host``: what a step costs beside its device.
``prompts``: long prompts, sparse against dense. ``speculate``: drafts that dense passes verify.
``driver``: the driver of a run, with simulated workers. All but it need neither Ray nor MLflow nor Hydra.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from seer_ray.bench import distill as bench_distill
from seer_ray.bench import driver as bench_driver
from seer_ray.bench import engine as bench_engine
from seer_ray.bench import host as bench_host
from seer_ray.bench import kernels as bench_kernels
from seer_ray.bench import layers as bench_layers
from seer_ray.bench import memory as bench_memory
from seer_ray.bench import prompts as bench_prompts
from seer_ray.bench import speculate as bench_speculate
from seer_ray.bench.case import Refused
from seer_ray.bench.command import WIDTH, memory_alone, parser
from seer_ray.bench.timing import machine


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
        if options.what == "layers":
            report["layers"] = bench_layers.bench_layers(options, console)
        if options.what == "host":
            report["host"] = bench_host.bench_host(options, console)
        if options.what == "prompts":
            report["prompts"] = bench_prompts.bench_prompts(options, console)
        if options.what == "speculate":
            report["speculate"] = bench_speculate.bench_speculate(options, console)
        if options.what == "distill":
            report["distill"] = bench_distill.bench_distill(options, console)
        if options.what == "driver":
            report["driver"] = bench_driver.bench_driver(options, console)
    except Refused as problem:
        print(f"seer-ray bench: refused: {problem}", file=sys.stderr)
        return 1
    except ValueError as problem:
        print(f"seer-ray bench: {problem}", file=sys.stderr)
        return 2
    if options.what == "memory":
        report["memory"] = bench_memory.bench_memory(options, console)
    elif options.what == "all":
        report["memory"] = memory_alone(options, console)
    if options.json:
        print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
