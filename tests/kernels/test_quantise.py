"""K and V in 8 bits: what is kept of a vector, and that attention reads just that, by every path of a CPU."""

from __future__ import annotations

import pytest
import torch
from append_case import AppendCase, draw
from packed_case import PackedCase
from paged_case import Case, error, limit

from seer_ray.kernels import attend as attend_module
from seer_ray.kernels import compiled
from seer_ray.kernels.append import append, rotate_append
from seer_ray.kernels.attend import SPLIT, attend, reference
from seer_ray.kernels.chunks import Chunks
from seer_ray.kernels.prefill import prefill
from seer_ray.kernels.quantise import TOP, Quantised, quantise, vector_bytes
from seer_ray.kernels.rotary import rotate

INT8, FLOAT8 = torch.int8, torch.float8_e4m3fn
KEPT = pytest.mark.parametrize("kept", list(TOP), ids=["int8", "float8"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@KEPT
def test_a_vector_keeps_its_numbers_up_to_rounding(kept: torch.dtype) -> None:
    """From 1e-20 to 1e20; int8 is off by half a step of the scale, float8 by a sixteenth of the number."""
    x = draw(41, 3, 64) * 10.0 ** torch.arange(-20, 21).view(-1, 1, 1)
    numbers, scales = quantise(x, kept)
    off = (numbers.double() * scales.double().unsqueeze(-1) - x).abs()
    step = scales.double().unsqueeze(-1)
    # The smallest numbers of float8 have steps of 2**-9.
    most = step / 2 if kept == INT8 else torch.maximum(x.abs().double() / 16, step * 2**-10)
    assert (off <= most * (1 + 1e-6)).all()
    assert (numbers.float().abs().amax(-1) == TOP[kept]).all()


@KEPT
def test_zeros_stay_zeros(kept: torch.dtype) -> None:
    numbers, scales = quantise(torch.zeros(2, 5), kept)
    assert not numbers.float().any() and scales.isfinite().all()


@KEPT
def test_what_is_kept_of_a_token_depends_on_it_alone(kept: torch.dtype) -> None:
    """Bit for bit: all at once, and one by one in other slots."""
    k, v = draw(6, 2, 48), 100 * draw(6, 2, 48, seed=1)
    together, alone = (Quantised.zeros((3, 2, 2, 4, 48), kept, torch.device("cpu")) for _ in range(2))
    at = torch.arange(6)
    append(k, v, together, at // 4, at % 4)
    for token in range(6):
        one, slot = slice(token, token + 1), torch.tensor([5 - token])
        append(k[one], v[one], alone, slot // 4 + 1, slot % 4)
    for token in range(6):
        here, there = (token // 4, slice(None), slice(None), token % 4), 5 - token
        assert torch.equal(together[here], alone[there // 4 + 1, :, :, there % 4])
    assert together.nbytes == 3 * 2 * 2 * 4 * vector_bytes(kept, 48)


@DTYPES
def test_rotation_and_append_in_one(dtype: torch.dtype) -> None:
    case = AppendCase.of(dtype)
    q, k, v, cos, sin, pages, offsets = case
    for kept in TOP:  # the first is compiled
        found, expected = (Quantised.zeros(case.cache, kept, torch.device("cpu")) for _ in range(2))
        append(rotate(k, cos, sin), v, expected, pages, offsets)
        rotated = rotate_append(q, k, v, cos, sin, found, pages, offsets)
        assert rotated.dtype == dtype
        torch.testing.assert_close(rotated, rotate(q, cos, sin), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.scales, expected.scales, atol=0, rtol=1e-6)
        apart = (found.numbers.float() != expected.numbers.float()).sum()
        assert apart <= (2 if dtype == torch.float32 else 0)  # fused multiply-add, on the edge of a rounding
        assert torch.equal(found.numbers[:, :, 1].float(), expected.numbers[:, :, 1].float())


@KEPT
@DTYPES
@pytest.mark.parametrize(("dim", "block", "group"), [(64, 16, 4), (80, 32, 3), (128, 64, 5)])
def test_attend(
    dtype: torch.dtype,
    kept: torch.dtype,
    dim: int,
    block: int,
    group: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against float64 over what is kept; int8 by the compiled path."""
    case = Case(dtype, dim=dim, block=block, group=group, seed=dim, kv_dtype=kept)
    found = reference(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert error(found, case.expected()) < limit(dtype)
    if kept == INT8 and compiled.binary() is not None:
        monkeypatch.setattr(attend_module, "reference", None)
    found = attend(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert error(found, case.expected()) < limit(dtype)


@KEPT
@DTYPES
def test_a_row_of_attend_does_not_depend_on_its_mates(dtype: torch.dtype, kept: torch.dtype) -> None:
    case = Case(dtype, rows=16, group=3, k=9 * SPLIT, kv_dtype=kept)
    together = attend(*case.arguments())  # type: ignore[arg-type]
    for row in range(16):
        alone = attend(*case.rows(torch.tensor([row]), int(case.counts[row].max())))  # type: ignore[arg-type]
        assert torch.equal(alone, together[row : row + 1])


@KEPT
@DTYPES
@pytest.mark.parametrize("k", [0, 3], ids=["dense", "sparse"])
def test_prefill(dtype: torch.dtype, kept: torch.dtype, k: int) -> None:
    case = PackedCase(dtype, k=k, kv_dtype=kept)
    found = prefill(*case.arguments())  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert error(found, case.expected()) < limit(dtype)


@KEPT
def test_how_a_prompt_is_cut_is_rounding(kept: torch.dtype) -> None:
    """A chunk reads its own tokens as they are kept, as later chunks do."""
    case = PackedCase(spans=((0, 60),), kv_dtype=kept)
    whole = prefill(case.q, case.kv, case.chunks, case.scale)
    parts = [
        prefill(
            case.q[start:end], case.kv, Chunks(((start, end),), case.chunks.table, case.block), case.scale
        )
        for start, end in ((0, 21), (21, 32), (32, 60))
    ]
    assert error(torch.cat(parts), whole.double()) < limit(torch.float32)


@KEPT
def test_attention_over_what_is_kept_is_near_attention(kept: torch.dtype) -> None:
    """Random K and V: the error of 8 bits, as a share of the result."""
    exact, case = Case(k=20, seed=4), Case(k=20, seed=4, kv_dtype=kept)
    assert 1e-3 < error(case.expected(), exact.expected()) < (0.02 if kept == INT8 else 0.08)
