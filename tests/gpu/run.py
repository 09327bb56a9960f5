"""All checks and timings on one GPU, unattended: ``python tests/gpu/run.py [--json FILE]``.

Needs torch, triton, transformers and rich; neither pytest nor an installed package. Prints what fails, the
tables of ``seer-ray bench kernels``, ``engine`` and ``distill``, all of it on one page, and one JSON line at
the end. Exit code 1: a check failed (times are taken all the same).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkout  # noqa: F401
import torch
from gpu.graph_checks import graph_checks
from gpu.overlap_checks import overlap_checks
from gpu.page import SELECTORS, launches, page
from triton_checks import gpu_checks

DISTILL = ["distill", "--model", "qwen3-4b", "--length", "32768"]
PARTS = ("checks", "kernels", "engine", "distill")


def first_line(problem: Exception) -> str:
    """Of what a failure says."""
    said = str(problem).strip().splitlines()
    return f"{type(problem).__name__} {said[0] if said else ''}"[:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the JSON line to this file")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument("--filter", default="", help="only checks whose name contains this")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU")
        return 2
    parts = (options.only,) if options.only else PARTS
    report: dict[str, object] = {}
    failed: dict[str, str] = {}
    if "checks" in parts:
        start = time.monotonic()
        checks = [
            check
            for check in [*gpu_checks(), *graph_checks(), *overlap_checks()]
            if options.filter in check[0]
        ]
        for name, check in checks:
            try:
                check()
            except Exception as problem:  # one kernel that fails must not hide the others
                failed[name] = first_line(problem)
                print(f"FAILED {name}: {failed[name]}", flush=True)
                if "CUDA error" in str(problem) or "illegal" in str(problem):
                    print("the device is lost to this process: stopped")
                    break
        seconds = time.monotonic() - start
        print(f"checks: {len(checks)}, failed: {len(failed)}, {seconds:.0f} s", flush=True)
        report |= {"checks": len(checks), "failed": list(failed), "check_seconds": round(seconds)}
        counted = {}
        for selector in SELECTORS:
            try:
                counted[selector] = launches(selector)
            except Exception as problem:
                failed[f"launches {selector}"] = first_line(problem)
        report["launches"] = counted
    if set(parts) - {"checks"}:
        from rich.console import Console
        from timing import SHAPES, sweep

        from seer_ray.bench.distill import bench_distill
        from seer_ray.bench.engine import bench_engine
        from seer_ray.bench.kernels import bench_kernels
        from seer_ray.bench.timing import machine
        from seer_ray.jobs import bench

        defaults, console = bench.parser().parse_args(["all"]), Console(width=bench.WIDTH)
        report |= machine()
        benches = {
            "kernels": lambda: bench_kernels(defaults, console),
            "sweeps": lambda: [sweep(shape) for shape in SHAPES],
            "engine": lambda: bench_engine(defaults, console),
            "distill": lambda: bench_distill(bench.parser().parse_args(DISTILL), console),
        }
        for name, measure in benches.items():
            if name in parts or (name == "sweeps" and "kernels" in parts):
                try:
                    report[name] = measure()
                except Exception as problem:  # one table that cannot be had must not hide the others
                    failed[name] = first_line(problem)
    print(page(report, failed))
    line = json.dumps(report)
    if options.json:
        options.json.write_text(line + "\n")
    print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
