"""The compiled operations are an option: without a compiler the torch path runs and says so once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from seer_ray.kernels import compiled, cpu
from seer_ray.kernels.attend import attend, reference
from seer_ray.kernels.score import score


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Every test finds the library not looked for yet, and leaves it so."""
    compiled.binary.cache_clear()
    compiled._reasons.clear()
    yield
    compiled.binary.cache_clear()
    compiled._reasons.clear()


def arguments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    draw = torch.Generator().manual_seed(0)
    kv = torch.randn(20, 2, 2, 16, 32, generator=draw)
    page_ids = torch.randint(0, 20, (3, 2, 12), generator=draw)
    q = torch.randn(3, 8, 32, generator=draw)
    return q, kv, page_ids, torch.tensor([[1, 12], [9, 3], [8, 8]]), torch.tensor([1, 16, 5]), 0.2


def scoring() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    draw = torch.Generator().manual_seed(1)
    features, summary = torch.randn(2, 2, 3, 24, generator=draw), torch.randn(9, 2, 24, generator=draw)
    return features, summary, torch.randint(0, 9, (2, 5), generator=draw), torch.tensor([80, 80]), 16


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def assert_falls_back(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    with caplog.at_level(logging.WARNING):
        found = attend(*arguments())
        attend(*arguments())
    assert torch.equal(found, reference(*arguments()))
    assert [reason in record.getMessage() for record in caplog.records] == [True]


@needs_compiler
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected, scores = attend(*arguments()), score(*scoring())
    compiled.binary.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert_falls_back(caplog, "no C++ compiler")
    torch.testing.assert_close(attend(*arguments()), expected)
    torch.testing.assert_close(score(*scoring()), scores)


@pytest.mark.skipif(shutil.which("false") is None, reason="no command that fails")
def test_compiler_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert_falls_back(caplog, "failed")


@needs_compiler
def test_a_disk_that_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_run", lambda command: Path(command[-1]).touch())
    monkeypatch.setattr(compiled.os, "replace", full)
    assert_falls_back(caplog, "No space left")
    assert (
        compiled.fallback()
        == "attention on CPU takes the slower torch path: [Errno 28] No space left on device"
    )


def test_torn_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "paged.so"
    torn.write_bytes(b"\x7fELF")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(compiled, "_build", lambda compiler: torn)
    assert_falls_back(caplog, "paged.so")


@needs_compiler
def test_builds_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.binary() is not None
    (built,) = (tmp_path / "seer-ray").iterdir()  # and no draft is left
    changed = built.stat().st_mtime_ns
    compiled.binary.cache_clear()
    assert compiled.binary() is not None
    assert built.stat().st_mtime_ns == changed
    assert compiled.fallback() is None


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_library_that_is_not_whole_is_built_again(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading one that was cut short ends the process with SIGBUS."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_run", lambda command: Path(command[-1]).write_bytes(b"a library"))
    built = compiled._build("g++")
    assert compiled._build("g++") == built and not caplog.records
    content = {"cut": b"a lib", "empty": b"", "flipped": b"a librarx"}[damage]
    built.write_bytes(content)
    assert compiled._build("g++") == built
    assert built.read_bytes() == b"a library"
    assert "compiled again" in caplog.text


@needs_compiler
def test_loading_it_does_not_flush_denormal_numbers() -> None:
    """A library linked with -ffast-math sets the processor's flush-to-zero mode for the whole process."""
    assert compiled.binary() is not None
    assert (torch.tensor([1e-39]) * 0.5).item() > 0


def test_shapes_that_it_takes() -> None:
    if compiled.binary() is None:
        pytest.skip("no C++ compiler")
    cache = torch.zeros(1)
    assert cpu.takes(cache, cpu.MAX_GROUP, cpu.MAX_BLOCK, cpu.MAX_DIM)
    assert not cpu.takes(cache, cpu.MAX_GROUP + 1, 64, 128)
    assert not cpu.takes(cache, 4, cpu.MAX_BLOCK + 1, 128)
    assert not cpu.takes(cache, 4, 64, cpu.MAX_DIM + 1)
    assert not cpu.takes(cache.half(), 4, 64, 128)
