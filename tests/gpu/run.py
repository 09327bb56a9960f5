"""All checks and timings on one GPU, unattended: ``python tests/gpu/run.py [--json FILE]``.

Needs torch, triton, transformers and rich; neither pytest nor an installed package. Prints what fails, then
the tables of ``seer-ray bench kernels``, ``engine`` and ``distill``, and one JSON line at the end. Exit
code 1: a check failed (times are taken all the same).
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
from triton_checks import gpu_checks

DISTILL = ["distill", "--model", "qwen3-4b", "--length", "32768"]
PARTS = ("checks", "kernels", "engine", "distill")


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
    failed: list[str] = []
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
                failed.append(name)
                print(f"FAILED {name}: {type(problem).__name__} {str(problem).strip()[:300]}", flush=True)
                if "CUDA error" in str(problem) or "illegal" in str(problem):
                    print("the device is lost to this process: stopped")
                    break
        seconds = time.monotonic() - start
        print(f"checks: {len(checks)}, failed: {len(failed)}, {seconds:.0f} s", flush=True)
        report |= {"checks": len(checks), "failed": failed, "check_seconds": round(seconds)}
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
        if "kernels" in parts:
            report["kernels"] = bench_kernels(defaults, console)
            report["sweeps"] = [sweep(shape) for shape in SHAPES]
        if "engine" in parts:
            report["engine"] = bench_engine(defaults, console)
        if "distill" in parts:
            report["distill"] = bench_distill(bench.parser().parse_args(DISTILL), console)
    line = json.dumps(report)
    if options.json:
        options.json.write_text(line + "\n")
    print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
