"""What a CUDA graph does, on a CPU: ``from tape import Capture``.

Capturing a step writes down every operation on tensors; a replay runs those operations again on the same
memory, and none of the step's Python. A step that asks a tensor what it holds is refused; what it decides by
what the host knows is frozen in the replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that make the host wait for what it holds."""

Step = Callable[[], None]


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
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

    def __call__(self, step: Step) -> Step:
        recorded = Tape()
        with unasked(), recorded:
            step()
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            recorded.replay()

        return replay
