"""What the sparse operation is measured against: every dense attention that can be had, and sparse twins.

A twin reads the same selection through another library. Each path is checked before it is timed; one that
cannot be imported, does not take the shape or gives something else is named with the reason, and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from seer_ray.bench.case import Case, error
from seer_ray.bench.timing import Call, replay

OURS = "seer-ray"
LIMIT = 3e-2
"""Relative error of the others: some round logits to 16 bits."""

Maker = Callable[[Case], Call]
"""Gives a call that returns ``[batch, q_heads, head_dim]`` in any shape of as many numbers."""


def dense_paths(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    """Dense attention of the whole cache: paths by name, and why others are missing."""
    makers: dict[str, tuple[Maker, torch.Tensor]] = {}
    contiguous, paged = case.contiguous_dense(), case.paged_dense()
    for name, maker in _torch_dense(case):
        makers[name] = maker, contiguous
    if case.device.type == "cuda":
        makers["flex"] = _flex, contiguous
        makers["flash-attn 3 paged"] = _flash3_dense, paged
        makers["flashinfer"] = _flashinfer_dense, paged
    makers[OURS] = (lambda case: case.dense), paged
    return _usable(case, makers)


def twin_paths(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    """Attention over ``case.chosen`` by other libraries."""
    expected = case.over(case.kv[0], case.chosen[0][0])
    makers: dict[str, tuple[Maker, torch.Tensor]] = {"gather + sdpa": (_gathered, expected)}
    if case.device.type == "cuda":
        makers["flash-attn 3 paged"] = _flash3_twin, expected
        makers["flashinfer"] = _flashinfer_twin, expected
    return _usable(case, makers)


def _usable(
    case: Case, makers: dict[str, tuple[Maker, torch.Tensor]]
) -> tuple[dict[str, Call], dict[str, str]]:
    found: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for name, (maker, expected) in makers.items():
        try:
            call = maker(case)
            apart = error(call(0).reshape(expected.shape), expected)
            if case.device.type == "cuda":
                replay(call, 1)  # one that cannot be captured cannot be timed beside the others
        except Exception as problem:  # a rival that fails must not end the run
            lines = str(problem).strip().splitlines() or [""]
            missing[name] = f"{type(problem).__name__}: {lines[0][:120]}"
            continue
        if apart < LIMIT:
            found[name] = call
        else:
            missing[name] = f"relative error {apart:.2g}"
    return found, missing


# -- torch -----------------------------------------------------------------------------------------------


def _torch_dense(case: Case) -> Iterator[tuple[str, Maker]]:
    """On a CPU torch chooses for itself; on a GPU each backend is a path of its own."""
    forms = {"sdpa packed": _packed, "sdpa enable_gqa": _grouped}
    if case.device.type == "cuda":
        for backend in (
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.EFFICIENT_ATTENTION,
        ):
            for name, form in forms.items():
                yield f"{name} {backend.name.split('_')[0].lower()}", _with_backend(form, backend)
    else:
        yield from forms.items()
    yield "matmul", _matmul


def _with_backend(form: Maker, backend: SDPBackend) -> Maker:
    def make(case: Case) -> Call:
        call = form(case)

        def run(i: int) -> torch.Tensor:
            with sdpa_kernel(backend):
                return call(i)

        return run

    return make


def _parts(case: Case, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q with the group's heads as positions ``[batch, kv_heads, group, head_dim]``, k and v contiguous."""
    kv = case.contiguous[i % case.sets]
    return _queries(case, i), kv[:, :, 0], kv[:, :, 1]


def _queries(case: Case, i: int) -> torch.Tensor:
    return case.q[i % case.variants].view(-1, case.heads, case.group, case.dim)


def _packed(case: Case) -> Call:
    """K and V are read once for each KV head."""
    return lambda i: scaled_dot_product_attention(*_parts(case, i), scale=case.scale)


def _grouped(case: Case) -> Call:
    def run(i: int) -> torch.Tensor:
        q, k, v = _parts(case, i)
        q = q.reshape(-1, case.q_heads, 1, case.dim)
        return scaled_dot_product_attention(q, k, v, scale=case.scale, enable_gqa=True)

    return run


def _matmul(case: Case) -> Call:
    def run(i: int) -> torch.Tensor:
        q, k, v = _parts(case, i)
        logits = torch.matmul(q, k.transpose(2, 3)).float().mul_(case.scale)
        return torch.matmul(torch.softmax(logits, -1).to(v.dtype), v)

    return run


def _flex(case: Case) -> Call:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Any = torch.compile(flex_attention, dynamic=False)

    def run(i: int) -> torch.Tensor:
        q, k, v = _parts(case, i)
        q = q.reshape(-1, case.q_heads, 1, case.dim)
        return compiled(q, k, v, scale=case.scale, enable_gqa=True)

    return run


def _gathered(case: Case) -> Call:
    """Copies the selected pages together, into buffers that are there, and attends to the copy."""
    size = (case.shape.batch, case.heads, case.k * case.block, case.dim)
    buffers = [torch.empty(size, dtype=case.dtype, device=case.device) for _ in range(2)]
    rows = [2 * slots.reshape(-1) for slots in _slots(case)]

    def run(i: int) -> torch.Tensor:
        flat = case.kv[i % case.sets].view(-1, case.block * case.dim)
        for part, buffer in enumerate(buffers):
            at = rows[i % case.variants] + part
            torch.index_select(flat, 0, at, out=buffer.view(-1, flat.shape[1]))
        return scaled_dot_product_attention(_queries(case, i), buffers[0], buffers[1], scale=case.scale)

    return run


# -- other libraries, on a GPU ---------------------------------------------------------------------------
#
# A selection differs from KV head to KV head. Their page tables know rows alone, so (row, KV head) becomes a
# row and a page of one KV head a page: the same memory, with the page number page * kv_heads + head.


def _slots(case: Case) -> list[torch.Tensor]:
    head = torch.arange(case.heads, device=case.device).view(1, -1, 1)
    return [ids * case.heads + head for ids, _ in case.chosen]


def _folded(case: Case, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V as pages of one KV head, ``[pages * kv_heads, block, head_dim]``."""
    kv = case.kv[i % case.sets].view(-1, 2, case.block, case.dim)
    return kv[:, 0], kv[:, 1]


def _flash3_dense(case: Case) -> Call:
    from flash_attn_interface import flash_attn_with_kvcache

    tables = [view.page_table.int() for view in case.views]
    lengths = case.lengths.int()

    def run(i: int) -> torch.Tensor:
        kv = case.kv[i % case.sets]
        k, v = (kv[:, :, part].transpose(1, 2) for part in (0, 1))
        return flash_attn_with_kvcache(
            case.q[i % case.variants].unsqueeze(1),
            k,
            v,
            cache_seqlens=lengths,
            page_table=tables[i % case.sets],
            softmax_scale=case.scale,
        )

    return run


def _flash3_twin(case: Case) -> Call:
    from flash_attn_interface import flash_attn_with_kvcache

    tables = [slots.view(-1, case.k).int() for slots in _slots(case)]
    lengths = torch.full((len(tables[0]),), case.k * case.block, dtype=torch.int32, device=case.device)

    def run(i: int) -> torch.Tensor:
        k, v = _folded(case, i)
        return flash_attn_with_kvcache(
            case.q[i % case.variants].view(-1, 1, case.group, case.dim),
            k.unsqueeze(2),
            v.unsqueeze(2),
            cache_seqlens=lengths,
            page_table=tables[i % case.variants],
            softmax_scale=case.scale,
        )

    return run


def _flashinfer(case: Case, tables: list[torch.Tensor], q_heads: int, heads: int) -> list[Any]:
    """A planned wrapper for each page table ``[rows, n]`` of full pages."""
    import flashinfer

    workspace = torch.empty(128 << 20, dtype=torch.uint8, device=case.device)
    wrappers = []
    for table in tables:
        rows, width = table.shape
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=True)
        wrapper.plan(
            torch.arange(rows + 1, dtype=torch.int32, device=case.device) * width,
            table.reshape(-1).int(),
            torch.full((rows,), case.block, dtype=torch.int32, device=case.device),
            q_heads,
            heads,
            case.dim,
            case.block,
            q_data_type=case.dtype,
            kv_data_type=case.dtype,
            sm_scale=case.scale,
        )
        wrappers.append(wrapper)
    return wrappers


def _flashinfer_dense(case: Case) -> Call:
    wrappers = _flashinfer(case, [view.page_table for view in case.views], case.q_heads, case.heads)

    def run(i: int) -> torch.Tensor:
        kv = case.kv[i % case.sets]
        return wrappers[i % case.sets].run(case.q[i % case.variants], (kv[:, :, 0], kv[:, :, 1]))

    return run


def _flashinfer_twin(case: Case) -> Call:
    wrappers = _flashinfer(case, [slots.view(-1, case.k) for slots in _slots(case)], case.group, 1)

    def run(i: int) -> torch.Tensor:
        k, v = _folded(case, i)
        q = case.q[i % case.variants].view(-1, case.group, case.dim)
        return wrappers[i % case.variants].run(q, (k.unsqueeze(1), v.unsqueeze(1)))

    return run
