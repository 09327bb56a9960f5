import re
from pathlib import Path

import pytest
import torch

from seer_ray.kernels.zeros import HUGE, zeros


def test_zeros_large_and_small():
    for shape in ((3, 5), (0, 4), (HUGE // 4 + 7,), (64, 2, 16, 1024)):
        for dtype in (torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn):
            x = zeros(shape, dtype, torch.device("cpu"))
            assert x.shape == shape and x.dtype == dtype and x.is_contiguous()
            assert not x.float().any()
            if x.numel():
                x.view(-1)[-1] = 1
                assert x.float().sum() == 1


def test_memory_outlives_its_views_only():
    x = zeros((HUGE,), torch.float32, torch.device("cpu"))
    view = x[HUGE // 2 :]
    del x
    view.fill_(2)
    assert (view == 2).all()


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages here")
def test_in_huge_pages():
    x = zeros((8 * HUGE,), torch.int8, torch.device("cpu"))
    assert "hg" in flags_at(x.data_ptr())
    assert "hg" not in flags_at(torch.zeros(8 * HUGE, dtype=torch.int8).data_ptr())


def flags_at(address: int) -> list[str]:
    """Of the mapping that an address of this process lies in, as Linux tells them."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"nothing is mapped at {address:x}")
