"""What files hold, by option: any change is named, and nothing else is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_tiny, save_tiny, tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.content import SAMPLE, WHOLE, digest
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates
from seer_ray.models.identity import contents, differences, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, gates and another tokenizer, beside each other."""
    place = tmp_path_factory.mktemp("files")
    model = make_tiny("qwen3")
    save_tiny(place / "model", "qwen3")
    save_gates(place / "gates", init_gates(model.config, GateConfig(16, 8)), model.config, "tiny")
    tiny_tokenizer().save_pretrained(place / "tokenizer")
    (place / "tokenizer" / "config.json").write_text('{"model_type": "qwen3"}')
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "files")


def options(place: Path, **settings: str) -> ModelConfig:
    return replace(ModelConfig(name=str(place / "model"), gates=str(place / "gates")), **settings)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def settle(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.5}))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (lambda p: flip(p / "model/model.safetensors"), "model.name: model.safetensors"),
    "weights of another seed": (
        lambda p: make_tiny("qwen3", 1).save_pretrained(p / "model"),
        "model.name: model.safetensors",
    ),
    "config": (lambda p: settle(p / "model/config.json"), "model.name: config.json"),
    "sampling": (lambda p: settle(p / "model/generation_config.json"), "model.name: generation_config.json"),
    "sampling gone": (
        lambda p: (p / "model/generation_config.json").unlink(),
        "model.name: generation_config.json",
    ),
    "template": (
        lambda p: (p / "model/chat_template.jinja").write_text("{{ 1 }}"),
        "model.tokenizer: chat_template.jinja",
    ),
    "vocabulary": (lambda p: flip(p / "model/tokenizer.json"), "model.tokenizer: tokenizer.json"),
    "more tokens": (
        lambda p: (p / "model/added_tokens.json").write_text("{}"),
        "model.tokenizer: added_tokens.json",
    ),
    "gates": (
        lambda p: flip(p / "gates/attn_gate_weights.safetensors"),
        "model.gates: attn_gate_weights.safetensors",
    ),
    "settings of gates": (lambda p: settle(p / "gates/config.json"), "model.gates: config.json"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named(what: str, place: Path) -> None:
    edit, named = CHANGES[what]
    before = contents(options(place))
    edit(place)
    (wrong,) = differences(contents(options(place)), before)
    assert re.fullmatch(rf"{re.escape(named)} \((\w{{16}}|none), (\w{{16}}|none)\)", wrong)


def test_what_is_no_change(place: Path, tmp_path: Path) -> None:
    before = contents(options(place))
    for file in place.rglob("*"):
        os.utime(file, (0, 0))
    (place / "model" / "README.md").write_text("what it is")
    (place / "model" / "trainer_state.json").write_text("{}")
    moved = shutil.move(place, tmp_path / "elsewhere")
    assert contents(options(Path(moved))) == before


def test_another_tokenizer_is_the_one_that_counts(place: Path) -> None:
    config = options(place, tokenizer=str(place / "tokenizer"))
    before = contents(config)
    flip(place / "model/tokenizer.json")
    assert contents(config) == before
    flip(place / "tokenizer/tokenizer.json")
    assert len(differences(contents(config), before)) == 1


def test_weights_in_several_files(place: Path) -> None:
    shutil.rmtree(place / "model")
    make_tiny("qwen3").save_pretrained(place / "model", max_shard_size="100KB")
    before = contents(options(place))
    shards = sorted((place / "model").glob("*.safetensors"))
    assert len(shards) > 1 and {file.name for file in shards} < before["model.name"].keys()
    flip(shards[-1])
    assert [wrong.split()[1] for wrong in differences(contents(options(place)), before)] == [shards[-1].name]


def test_large_files_are_sampled_from_end_to_end(tmp_path: Path) -> None:
    """16 GB, of which the disk has nothing: in the time that 64 samples take."""
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(16 * 2**30)
    began = time.process_time()
    before = digest(file)
    assert time.process_time() - began < 5  # seconds of computing; reading all would take minutes
    for place in (0, 16 * 2**30 - 1):
        with file.open("r+b") as out:
            out.seek(place)
            out.write(b"x")
        assert digest(file) != before
        before = digest(file)
    small = tmp_path / "small"
    small.write_bytes(bytes(WHOLE))
    first = digest(small)
    with small.open("r+b") as out:
        out.seek(SAMPLE + 5)  # where no sample of a larger file would be
        out.write(b"x")
    assert digest(small) != first


def test_a_commit_of_the_hub_is_a_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--me--tiny" / "snapshots" / "0123abcd"
    save_tiny(snapshot, "qwen3")
    monkeypatch.setattr("seer_ray.models.hub.snapshot_download", lambda *args, **settings: str(snapshot))
    found = contents(ModelConfig(name="me/tiny"))
    assert found == {"model.name": {"commit": "0123abcd"}, "model.tokenizer": {"commit": "0123abcd"}}


def test_a_folder_that_is_called_like_one_of_the_hub_is_looked_into(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "snapshots" / "step-100", "qwen3")
    assert "model.safetensors" in contents(ModelConfig(name=str(folder)))["model.name"]


def check(config: ModelConfig, expected: dict[str, dict[str, str]]) -> None:
    verify(f"model.name={config.name}", lambda: contents(config), expected)


def test_a_node_with_other_files_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    expected = contents(options(place))
    check(options(place), expected)
    flip(place / "model/model.safetensors")
    here = contents(options(place))["model.name"]["model.safetensors"]
    there = expected["model.name"]["model.safetensors"]
    words = f"node node7 has other files than where the job was started.*: model.safetensors .{here}, {there}"
    with pytest.raises(ConfigError, match=rf"^model.name={place}/model: {words}"):
        check(options(place), expected)
    shutil.rmtree(place / "gates")
    with pytest.raises(
        ConfigError, match=f"^node node7: model.gates={place}/gates: no such file or folder; but"
    ):
        check(options(place), expected)
    shutil.rmtree(place / "model")
    with pytest.raises(ConfigError, match=f"^node node7: model.name={place}/model: no such file or folder"):
        check(options(place), expected)


def test_weights_may_be_on_the_nodes_alone(place: Path) -> None:
    everything = contents(options(place))
    weights = (place / "model/model.safetensors").rename(place / "weights")
    small = contents(options(place))
    weights.rename(place / "model/model.safetensors")
    assert "model.safetensors" not in small["model.name"] and contents(options(place)) == everything
    check(options(place), small)
    settle(place / "model/config.json")
    with pytest.raises(ConfigError, match=r"model.name: config.json"):
        check(options(place), small)
