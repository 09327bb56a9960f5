"""How benchmarks measure: medians of calls that take turns, over memory that is no longer in any cache."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
import transformers

Call = Callable[[int], Any]
"""One call of what is measured; its argument says which of several buffers to read."""

GRAPH_CALLS = 20
"""Calls in one CUDA graph."""


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def side_by_side(calls: Mapping[str, Call], device: torch.device, turns: int) -> dict[str, float]:
    """Median time of one call of each, in microseconds.

    The calls take turns, so that what else the machine does falls on all of them alike. On a GPU a turn is
    one replay of a CUDA graph of ``GRAPH_CALLS`` calls; on a CPU it is one call, with an argument that no
    call had for as long as possible.
    """
    timed = _replayed(calls) if device.type == "cuda" else _called(calls)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-2, turns):
        for name, once in timed.items():
            taken = once()
            if turn >= 0:
                times[name].append(taken)
    return {name: median(values) for name, values in times.items()}


def _called(calls: Mapping[str, Call]) -> dict[str, Callable[[], float]]:
    number = iter(range(1 << 62))

    def timed(call: Call) -> Callable[[], float]:
        return lambda: 1e6 * seconds(lambda: call(next(number)))

    return {name: timed(call) for name, call in calls.items()}


def _replayed(calls: Mapping[str, Call]) -> dict[str, Callable[[], float]]:
    return {name: replay(call) for name, call in calls.items()}


def replay(call: Call, count: int = GRAPH_CALLS) -> Callable[[], float]:
    """Captures ``count`` calls into a CUDA graph; each call of what is returned replays it.

    Returns:
        Gives the microseconds of one call.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for index in range(3):
            call(index)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(count):
            call(index)

    def once() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / count

    return once


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]}, {len(names)} cores" if names else f"{platform.machine()} CPU"
