"""Peak memory of an engine whose cache is full, against weights + ``engine.kv_memory``."""

from __future__ import annotations

import argparse
import resource
from typing import Any

from rich.console import Console

from seer_ray.config import EngineConfig, ModelConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.jobs.bench_engine import VOCABULARY, stretch
from seer_ray.jobs.bench_show import show
from seer_ray.models.load import load_model


def measure(config: ModelConfig, kv_memory: str, batch: int) -> dict[str, Any]:
    """Peak resident memory, prompts computed and then decoding in a full cache, less what imports took."""
    before = _resident()
    loaded = load_model(config)
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak of reading the file: another format has another one
    engine = Engine(loaded, EngineConfig(max_batch=batch, kv_memory=kv_memory))
    capacity, block = engine.runner.capacity, engine.settings.block_size
    context = (capacity.pages // batch - 1) * block
    prompt = min(context, engine.settings.prefill_chunk)
    for index in range(batch):
        tokens = tuple((index * 7919 + i) % VOCABULARY for i in range(prompt))
        engine.submit(Request(str(index), tokens, SamplingParams(max_new_tokens=context)))
    while len(engine.scheduler.running) < batch or engine.stats()["waiting"]:
        engine.step()
    stretch(engine, context)
    for _ in range(3):
        engine.step()
    expected = weights + capacity.pages * capacity.page_bytes
    return {
        "weights_mib": round(weights / 2**20),
        "kv_mib": round(capacity.pages * capacity.page_bytes / 2**20),
        "peak_mib": round((_peak() - before) / 2**20),
        "over_expected": round((_peak() - before) / expected - 1, 3),
        "cache_used": round(engine.stats()["pages_used"] / capacity.pages, 3),
    }


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak() -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def bench_memory(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows."""
    model = ModelConfig(name=options.model, dtype=options.dtype)
    found = measure(model, options.kv_memory, options.batch)
    show(console, "Peak memory", tuple(found), [tuple(found.values())])
    return {"model": options.model, "dtype": options.dtype, **found}
