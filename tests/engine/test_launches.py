"""Kernels that a layer of a decode step launches on a GPU, counted on interpreted ones.

Each costs more than a microsecond beside what it reads: a step of 36 layers that launches sixty a layer is
slower than one that reads everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from interpreter import need_interpreter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

need_interpreter()

from engines import request, tiny_model, tokens  # noqa: E402

from seer_ray.config.options import EngineConfig, SelectorConfig  # noqa: E402
from seer_ray.engine import Engine  # noqa: E402
from seer_ray.engine.graphs import ANY, DecodeGraphs  # noqa: E402
from seer_ray.engine.tape import EMPTY  # noqa: E402
from seer_ray.kernels import (  # noqa: E402
    compiled,
    gpu,
    triton_append,
    triton_attend,
    triton_draw,
    triton_rows,
    triton_score,
    triton_select,
    triton_summary,
)

KERNELS = {
    triton_append: ["rotate_append_head"],
    triton_attend: ["attend_splits", "fold_splits"],
    triton_draw: ["draw_row"],
    triton_rows: ["add_norm_row", "silu_product_tile"],
    triton_score: ["score_chunk"],
    triton_select: ["select_narrow", "select_wide"],
    triton_summary: ["compress_page", "extremes_page"],
}
WIDE = 2048
"""Tokens of the longest chain that there is room for: attention then has several splits."""


def memory(tree: Any) -> set[int]:
    """Of the tensors."""
    return {x.untyped_storage().data_ptr() for x in tree_leaves(tree) if isinstance(x, torch.Tensor)}


class Launches(TorchDispatchMode):
    """Names of the operations that compute something, and of Triton kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.inside and func.overloadpacket not in EMPTY:
            given, made = (
                {
                    leaf.untyped_storage().data_ptr()
                    for leaf in tree_leaves(x)
                    if isinstance(leaf, torch.Tensor)
                }
                for x in ((args, kwargs), out)
            )
            if made - given or func._schema.is_mutable:
                self.seen[str(func)] += 1
        return out

    @contextmanager
    def kernel(self, name: str) -> Iterator[None]:
        self.seen[name] += 1
        self.inside = True
        yield
        self.inside = False


class Kernel:
    """Tells of its launches."""

    def __init__(self, name: str, kernel: Any, launches: Launches) -> None:
        self.name, self.kernel, self.launches = name, kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **constants: Any) -> None:
            with self.launches.kernel(self.name):
                self.kernel[grid](*arguments, **constants)

        return launch


def step(
    family: str, selector: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], Counter[str]]:
    """What the layers, and the sampling, of a captured step of a model with so many layers launch."""
    monkeypatch.setattr(compiled, "binary", lambda: None)
    monkeypatch.setattr(gpu, "takes", lambda tensor: tensor.dtype == torch.float32)
    model = tiny_model(family, num_hidden_layers=layers, max_position_embeddings=WIDE)
    settings = EngineConfig(block_size=16, max_batch=4, prefill_chunk=16)
    engine = Engine(model, settings, SelectorConfig(name=selector, budget=512))
    runner = engine.runner
    captured = runner.captured = DecodeGraphs(runner.loaded, runner.decoder, 4, lambda step: step)
    engine.submit(request("a", tokens(16), 4))
    while not engine.scheduler.running or engine.scheduler.running[0].generated < 1:
        engine.step()
    of_layers, of_sampling = Launches(), Launches()
    for launches, launch in (
        (of_layers, lambda: captured.layers(1, runner.cache.max_pages, fills=True)),
        (of_sampling, lambda: captured.sample(1, ANY[False], [])),
    ):
        with monkeypatch.context() as patched, torch.inference_mode():
            for module, names in KERNELS.items():
                for name in names:
                    patched.setattr(module, name, Kernel(name, getattr(module, name), launches))
            with launches:
                launch()
    return of_layers.seen, of_sampling.seen


LLAMA: list[Any] = [
    pytest.param("llama", *of, marks=pytest.mark.long) for of in (("quest", 13, 29), ("seer", 13, 33))
]


@pytest.mark.parametrize(
    ("family", "selector", "most", "beside"),
    [
        ("qwen3", "dense", 11, 27),
        ("qwen3", "quest", 13, 29),
        ("qwen3", "seer", 13, 33),
        ("llama", "dense", 11, 27),
        *LLAMA,
    ],
)
def test_launches_of_a_layer(
    family: str, selector: str, most: int, beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two, sampling), (four, _) = (step(family, selector, layers, monkeypatch) for layers in (2, 4))
    layer = {name: (count - two[name]) / 2 for name, count in four.items() if count != two[name]}
    assert sum(layer.values()) <= most, layer
    assert sum(two.values()) - 2 * sum(layer.values()) <= beside
    assert sum(sampling.values()) <= 7 and sampling["draw_row"] == 1, sampling
    assert layer["attend_splits"] == layer["fold_splits"] == 1 and layer["add_norm_row"] == 2, layer
