"""A tokenizer that cannot be had or cannot encode is found from its files, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import FAMILIES, make_tiny, save_tiny

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.load import load_tokenizer
from seer_ray.models.tokenizer_files import check_tokenizer_files


def emptied(folder: Path) -> None:
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    said["model"]["vocab"], said["added_tokens"] = {}, []
    file.write_text(json.dumps(said))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (
        lambda p: [file.unlink() for file in p.glob("*token*")],
        "has no tokenizer .none of tokenizer.json, ",
    ),
    "settings alone": (lambda p: (p / "tokenizer.json").unlink(), "has no tokenizer"),
    "torn": (
        lambda p: (p / "tokenizer.json").write_bytes((p / "tokenizer.json").read_bytes()[:900]),
        "cannot load its",
    ),
    "no JSON": (lambda p: (p / "tokenizer.json").write_text("<html>"), "cannot load its tokenizer"),
    "empty": (emptied, "makes no tokens of text"),
    "settings torn": (
        lambda p: (p / "tokenizer_config.json").write_text("{"),
        "cannot read tokenizer_config.json",
    ),
    "settings a list": (
        lambda p: (p / "tokenizer_config.json").write_text("[]"),
        "tokenizer_config.json: must hold",
    ),
    "config torn": (lambda p: (p / "config.json").write_text("{"), "cannot read config.json"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_refused(what: str, tmp_path: Path) -> None:
    edit, words = BROKEN[what]
    folder = save_tiny(tmp_path, "qwen3")
    check_tokenizer_files(folder, "model.name=m")
    edit(folder)
    with pytest.raises(ConfigError, match=f"^model.name=m: .*{words}") as caught:
        check_tokenizer_files(folder, "model.name=m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_files_there_is_none(family: str, tmp_path: Path) -> None:
    """Some families make an empty one, that encodes every text to nothing."""
    make_tiny(family).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot load its tokenizer|makes no tokens of text"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))


def test_code_of_its_own_has_files_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["mine.Mine", null]}}')
    check_tokenizer_files(tmp_path, "model.name=m")
