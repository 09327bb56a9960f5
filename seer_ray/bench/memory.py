"""Peak memory of an engine whose cache is full, against weights + ``engine.kv_memory``."""

from __future__ import annotations

import argparse
import resource
from typing import TYPE_CHECKING, Any, Protocol

import torch

from seer_ray.bench.engine import VOCABULARY
from seer_ray.bench.models import bench_model
from seer_ray.bench.show import show
from seer_ray.bench.steps import stretch
from seer_ray.config.options import EngineConfig
from seer_ray.engine import Engine, Request, SamplingParams

if TYPE_CHECKING:
    from rich.console import Console


def measure(model: str, dtype: str, kv_memory: str, batch: int) -> dict[str, Any]:
    """Peak memory of the device, prompts computed and then decoding in a full cache, less what was in use
    before (on a CPU: what imports took)."""
    memory = device_memory()
    loaded = bench_model(model, dtype)
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    memory.forget_peak()  # that of reading the file: another format has another one
    engine = Engine(loaded, EngineConfig(max_batch=batch, kv_memory=kv_memory))
    capacity, block = engine.runner.capacity, engine.settings.block_size
    pages = sum(capacity.pages)
    context = (pages // batch - 1) * block
    prompt = min(context, engine.settings.prefill_chunk)
    for index in range(batch):
        tokens = tuple((index * 7919 + i) % VOCABULARY for i in range(prompt))
        engine.submit(Request(str(index), tokens, SamplingParams(max_new_tokens=context)))
    while len(engine.scheduler.running) < batch or engine.stats()["waiting"]:
        engine.step()
    stretch(engine, context)
    for _ in range(3):
        engine.step()
    expected, peak = weights + capacity.bytes, memory.peak()
    return {
        "weights_mib": round(weights / 2**20),
        "kv_mib": round(capacity.bytes / 2**20),
        "peak_mib": round(peak / 2**20),
        "over_expected": round(peak / expected - 1, 3),
        "cache_used": round(engine.stats()["pages_used"] / pages, 3),
    }


class Memory(Protocol):
    """Bytes in use, above what was before this was made."""

    def forget_peak(self) -> None: ...

    def peak(self) -> int: ...


def device_memory() -> Memory:
    """Of the GPU, if there is one."""
    return DeviceMemory() if torch.cuda.is_available() else ResidentMemory()


class DeviceMemory:
    """What torch holds on the GPU."""

    def __init__(self) -> None:
        self.before = torch.cuda.memory_reserved()

    def forget_peak(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return torch.cuda.max_memory_reserved() - self.before


class ResidentMemory:
    """Of this process, by the kernel's account (Linux)."""

    def __init__(self) -> None:
        with open("/proc/self/statm") as file:
            self.before = int(file.read().split()[1]) * resource.getpagesize()

    def forget_peak(self) -> None:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    def peak(self) -> int:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 - self.before


def bench_memory(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows."""
    found = measure(options.model, options.dtype, options.kv_memory, max(options.batch))
    show(console, "Peak memory", tuple(found), [tuple(found.values())])
    return {"model": options.model, "dtype": options.dtype, **found}
