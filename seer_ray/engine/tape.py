"""A decode step on a CPU, taped once and run again without its Python: what a CUDA graph is on a GPU.

Of a step of 30 layers with 8 rows a third was Python. A tape holds every operation that computed something,
in order, with the memory that it read and wrote; running it again does the same to whatever is in that memory
by then. Views need not be taken again, and what the operations of ``kernels`` give is not allocated again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ops = torch.ops.aten
EMPTY = {ops.empty, ops.empty_like, ops.empty_strided, ops.new_empty, ops.new_empty_strided}
"""They compute nothing: the memory is there."""
ASKING = {ops._local_scalar_dense, ops.equal, ops.is_nonzero, ops.item, ops.nonzero}
"""They ask what a tensor holds, so what follows may differ from step to step."""

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], list[tuple[int, torch.Tensor]]]
"""An operation, its arguments, and which of what it gives goes to memory that is there already."""


class Tape(TorchDispatchMode):
    """Of what is done inside ``with tape:``, by this thread."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in ASKING:
            raise RuntimeError(f"{func} asks what a tensor holds")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [(i, leaf) for i, leaf in enumerate(tree_leaves(out)) if isinstance(leaf, torch.Tensor)]
        given = {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        fresh = [(index, tensor) for index, tensor in made if _memory(tensor) not in given]
        if func.overloadpacket not in EMPTY and (fresh or func._schema.is_mutable):
            # What an OpOverload calls: with hundreds of operations a step its own Python counts.
            self._calls.append((func._op, args, kwargs, fresh))
        return out

    def run(self) -> None:
        """All of it again."""
        for func, args, kwargs, fresh in self._calls:
            out = func(*args, **kwargs)
            if fresh:
                made = tree_leaves(out) if isinstance(out, (tuple, list)) else (out,)
                for index, tensor in fresh:
                    tensor.copy_(made[index])


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Runs a step and gives what runs it again, but for the first call: that is the run it was recorded in.

    The step must read and write memory that stays, and ask no tensor what it holds.

    Raises:
        RuntimeError: it asks.
    """
    tape, done = Tape(), False
    with tape:
        step()

    def again() -> None:
        nonlocal done
        if done:
            tape.run()
        done = True

    return again


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
