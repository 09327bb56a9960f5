"""A whole engine on the Triton kernels, interpreted: the completions of the other paths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreter import need_interpreter

need_interpreter()

from engines import eager, make_engine, outcome, request, run, tokens  # noqa: E402

from seer_ray.kernels import gpu, triton_attend, triton_prefill  # noqa: E402


@pytest.mark.parametrize(
    ("selector", "kv_dtype"),
    [pytest.param("dense", "auto", marks=pytest.mark.long), ("seer", "auto"), ("quest", "int8")],
)
def test_completions(selector: str, kv_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that end before, at and after the end of a page; two pages of budget."""

    def completions() -> list[object]:
        requests = [request(f"p{n}", tokens(n, seed=n), new=3) for n in (15, 48)]
        done = run(eager(make_engine(selector=selector, budget=32, kv_dtype=kv_dtype)), requests)
        return [outcome(done[item.id]) for item in requests]

    expected = completions()
    launched = set()

    def watch(module: Any, name: str) -> None:
        kernel = getattr(module, name)

        def watched(*arguments: Any) -> torch.Tensor:
            launched.add(name)
            return kernel(*arguments)

        monkeypatch.setattr(module, name, watched)

    watch(triton_attend, "attend")
    watch(triton_prefill, "prefill")
    monkeypatch.setattr(gpu, "takes", lambda tensor: tensor.dtype in (torch.float32, torch.int8))
    assert completions() == expected
    assert launched == {"attend", "prefill"}
