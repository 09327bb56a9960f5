"""What a run on a GPU came to, on one page: ``run.py`` ends with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from engines import request, run, tokens
from gpu.graph_checks import make

SELECTORS = ("dense", "quest", "seer")


def launches(selector: str) -> dict[str, float]:
    """Kernels that a replayed step of a tiny model runs for each layer, and for all else; and the share of
    the steps of some chains that were captured."""
    totals, share = {}, 0.0
    for layers in (2, 4):
        engine = make(selector, torch.bfloat16, layers)
        engine.warm_up()
        engine.submit(request("a", tokens(40), 60))
        for _ in range(8):
            engine.step()
        engine.settle()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            engine.step()
            engine.settle()
            torch.cuda.synchronize()
        events = profile.events() or []
        totals[layers] = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
        run(engine, [])
        stats = engine.stats()
        share = stats["captured_steps"] / (stats["captured_steps"] + stats["eager_steps"])
    layer = (totals[4] - totals[2]) / 2
    return {"layer": layer, "beside": totals[2] - 2 * layer, "captured": share}


def page(report: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    """In plain text.

    Args:
        report: what ``run.py`` writes as JSON.
        failed: first line of each failure, by check or part.
    """
    checks = report.get("checks")
    ran = [f"{checks} checks in {report['check_seconds']} s"] if checks is not None else []
    ran += [part for part in ("kernels", "engine", "distill") if part in report]
    lines = ["", "== This GPU on one page", f"ran: {', '.join(ran) or 'nothing'}"]
    lines.append(f"failed: {len(failed)}")
    lines += [f"  {name}: {reason}" for name, reason in failed.items()]
    for selector, found in report.get("launches", {}).items():
        lines.append(
            f"launches, {selector}: {found['layer']:g} a layer, {found['beside']:g} beside; "
            f"{found['captured']:.0%} of steps captured"
        )
    for step in report.get("engine", {}).get("decode", ()):
        lines.append(
            f"decode step, batch {step['batch']}, context {step['context']}, budget {step['budget']}:"
        )
        lines += [
            f"  {name}: {took} ms, floor {step['floor_ms'][name]} ms, {step['of_floor'][name]:.0%} of it"
            for name, took in step["ms_per_step"].items()
            if name in step["floor_ms"]
        ]
    return "\n".join(lines)
