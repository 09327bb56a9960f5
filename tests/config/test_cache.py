"""A cache that cannot be written is somewhere else; what lies in one is whole, or made again."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from seer_ray.config import cache
from seer_ray.config.cache import cache_folder, is_whole, note_digests, set_aside


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    cache._writable.cache_clear()


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_where_it_is(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    place = tmp_path / "mine" / ("" if variable == "XDG_CACHE_HOME" else ".cache") / "seer-ray"
    assert cache_folder() == place and place.is_dir()


@pytest.mark.parametrize("why", ["a file in the way", "read-only", "no home"])
def test_without_a_place_it_is_private_and_said_once(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if why == "a file in the way":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    elif why == "read-only":
        real = Path.mkdir

        def mkdir(self: Path, *args: object, **kwargs: object) -> None:
            if "ro" in self.parts:
                raise OSError(30, "Read-only file system")
            real(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setenv("HOME", "/ro")
    else:

        def nobody() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nobody)
        monkeypatch.delenv("HOME", raising=False)
    folder = cache_folder()
    assert folder.parent == tmp_path and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder() == folder
    assert len(caplog.records) == 1 and "set XDG_CACHE_HOME" in caplog.text


def test_a_folder_that_others_can_write_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    planted = tmp_path / f"seer-ray-{cache.os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert cache_folder() != planted and stat.S_IMODE(cache_folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("damage", ["none", "cut", "gone", "emptied", "no digests", "torn digests"])
def test_what_is_not_whole_is_told(tmp_path: Path, size: int, damage: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"a" * size)
    (folder / "b").write_bytes(b"")
    note_digests(folder, "digests")
    {
        "none": lambda: None,
        "cut": lambda: (folder / "a").write_bytes(b"a" * (size - 1)),
        "gone": lambda: (folder / "b").unlink(),
        "emptied": lambda: (folder / "a").write_bytes(bytes(size)),
        "no digests": lambda: (folder / "digests").unlink(),
        "torn digests": lambda: (folder / "digests").write_bytes(b'{"a": '),
    }[damage]()
    assert is_whole(folder, "digests") == (damage == "none")
    set_aside(folder)
    assert not list(tmp_path.iterdir())
