"""The decode step that a CUDA graph holds, on interpreted Triton kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

from engines import make_engine, outcome, request, run, tokens  # noqa: E402

from seer_ray.engine.graphs import DecodeGraphs  # noqa: E402
from seer_ray.kernels import gpu, triton_summary  # noqa: E402


@pytest.mark.parametrize(("selector", "kernel"), [("seer", "compress"), ("quest", "extremes")])
def test_completions(selector: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the compiled CPU paths. Three pages of budget; pages fill in prefill and after it."""
    requests = [request(f"p{n}", tokens(n, seed=n), new=4, temperature=0.8) for n in (14, 62)]
    done = run(make_engine(selector=selector, budget=48), requests)
    launched: list[int] = []
    right = getattr(triton_summary, kernel)

    def watched(*arguments: Any, **named: Any) -> Any:
        launched.append(len(arguments))
        return right(*arguments, **named)

    monkeypatch.setattr(triton_summary, kernel, watched)
    monkeypatch.setattr(gpu, "takes", lambda tensor: tensor.dtype == torch.float32)
    engine = make_engine(selector=selector, budget=48)
    runner = engine.runner
    runner.captured = DecodeGraphs(runner.loaded, runner.decoder, 4, lambda step: step)
    found = run(engine, requests)
    assert [outcome(found[item.id]) for item in requests] == [outcome(done[item.id]) for item in requests]
    assert len(launched) >= 2 * 4  # layers, steps
