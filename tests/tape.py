"""What a CUDA graph does, on a CPU: ``from tape import tape``.

Capturing a step writes down every operation on tensors; a replay runs those operations again on the same
memory, and none of the step's Python. A step that asks a tensor what it holds is refused; what it decides by
what the host knows is frozen in the replays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from seer_ray.kernels import cpu

HOST = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that make the host wait for what it holds."""

Step = Callable[[], None]


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.note(func, args, kwargs or {})

    def note(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            for kept, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                # The same memory: a view, or written in place.
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


def _refuse(name: str) -> Callable[..., Any]:
    def ask(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"Tensor.{name} asks the host")

    return ask


@contextmanager
def unasked(names: tuple[str, ...] = HOST) -> Iterator[None]:
    """Refuses whatever makes the host wait for what a tensor holds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(torch.Tensor, name, _refuse(name))
        yield


class Capture:
    """Counts its captures and replays."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.current: Tape | None = None

    def __call__(self, step: Step) -> Step:
        recorded = Tape()
        self.current = recorded
        try:
            with unasked(), recorded:
                step()
        finally:
            self.current = None
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            recorded.replay()

        return replay


def tape(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """A capture. The operations in C++ do not pass torch's dispatcher: each is written down as one."""
    capture = Capture()

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            current = capture.current
            if current is None:
                return function(*args, **kwargs)
            with _disable_current_modes():
                return current.note(function, args, kwargs)

        return call

    for name, function in list(vars(cpu).items()):
        ours = inspect.isfunction(function) and function.__module__ == cpu.__name__
        if ours and not name.startswith(("_", "takes")):
            monkeypatch.setattr(cpu, name, noted(function))
    return capture
