"""The processes that compute one model together, each with a part of it: tensor parallelism."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

HOST = "127.0.0.1"
"""Ranks are on one machine, and nobody else is to reach them."""
PATIENCE = timedelta(days=365)
"""That a rank waits for the others: they may have nothing to do. Who watches the processes ends them."""


@dataclass(frozen=True)
class Group:
    """Ranks of this process's default group; alone, none is needed and nothing is sent."""

    rank: int = 0
    size: int = 1

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the ranks' tensors, which have one shape: the same bits on every rank.

        Gathered, then added in order of rank in float32. A ring would add the parts of a tensor in different
        orders, so that the bits of a row would depend on its place in the batch.
        """
        if self.size == 1:
            return x
        parts = x.new_empty(self.size * len(x), *x.shape[1:])
        _gather(parts, x.contiguous())
        first, *others = parts.chunk(self.size)
        whole = first.float() if x.is_floating_point() else first.clone()
        for part in others:
            whole += part
        return whole.to(x.dtype)

    def gathered(self, value: Any) -> list[Any]:
        """What each rank has, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def told(self, message: Any = None) -> Any:
        """The message of rank 0, which comes back on every rank."""
        box = [message]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]


ALONE = Group()


def _gather(parts: torch.Tensor, part: torch.Tensor) -> None:
    """All ranks' parts, one after the other."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its older name
    gather(parts, part)


def listen() -> socket.socket:
    """Where rank 0 waits for the others: a free port that this machine alone can reach."""
    meeting = socket.socket()
    meeting.bind((HOST, 0))
    meeting.listen()
    return meeting


def join(rank: int, size: int, meeting: socket.socket | int, device: torch.device) -> Group:
    """Makes this process one of the ranks; comes back when all are there.

    Args:
        rank: of this process.
        size: how many there are.
        meeting: from ``listen`` on rank 0, its port on the others.
        device: that the ranks compute on: NCCL between GPUs, gloo between CPUs and for messages.
    """
    # Else gloo listens where the machine's name leads.
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if isinstance(meeting, socket.socket):
        port = meeting.getsockname()[1]
        store = dist.TCPStore(
            HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=meeting.detach()
        )
    else:
        store = dist.TCPStore(HOST, meeting, wait_for_workers=False)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "cpu:gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    group = Group(rank, size)
    group.total(torch.zeros(1, device=device))  # NCCL takes its memory now, before the cache is measured out
    return group
