"""GGUF files: a small one written here, and the embedded model."""

from pathlib import Path

import pytest
import torch
from tiny import make_tiny
from tiny_gguf import write_gguf

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models import gguf as gguf_cache
from seer_ray.models.load import generation_defaults, load_config, load_model, load_tokenizer

pytest.importorskip("gguf")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny-llama.gguf"
    return write_gguf(path, make_tiny("llama"))


@torch.no_grad()
def check(config: ModelConfig) -> None:
    loaded = load_model(config)
    tokens = torch.randint(0, 256, (1, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loaded.model(tokens).logits, make_tiny("llama")(tokens).logits, atol=1e-4, rtol=0
    )
    assert (loaded.dtype, loaded.max_context) == (torch.float32, 1024)
    text = "one two\n"
    assert loaded.tokenizer.decode(loaded.tokenizer(text, add_special_tokens=False).input_ids) == text
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"
    assert generation_defaults(config).eos_token_ids == (258,)


def test_a_file_is_converted_once_and_then_read_from_the_cache(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(name=str(file), device="cpu")
    assert len(load_tokenizer(config)) == 260 and load_config(config).num_hidden_layers == 2
    (folder,) = (gguf_cache.cache_folder() / "gguf").iterdir()
    assert not (folder / "model.safetensors").exists()  # nobody asked for weights yet
    check(config)
    assert capfd.readouterr().err == ""  # no bars

    def fail(*args: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_cache, "_make", fail)
    monkeypatch.setattr(gguf_cache, "_add_weights", fail)
    check(config)
    assert {f.name for f in folder.iterdir() if f.name.startswith(".")} == set()


def test_another_file_of_the_same_name_is_converted_anew(file: Path) -> None:
    config = ModelConfig(name=str(file), device="cpu")
    load_tokenizer(config)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    load_tokenizer(config)
    assert len(list((gguf_cache.cache_folder() / "gguf").iterdir())) == 2


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_converted_file_that_was_cut_short_is_made_again(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig(name=str(file), device="cpu")
    load_model(config)
    (folder,) = (gguf_cache.cache_folder() / "gguf").iterdir()
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    check(config)
    assert (folder / name).read_bytes() == whole
    assert [other.name for other in folder.parent.iterdir()] == [folder.name]


def test_a_process_that_is_second_takes_the_first_ones_result(file: Path) -> None:
    folder = gguf_cache.converted(file, "model.name=x", weights=True)
    before = (folder / "config.json").stat().st_mtime_ns
    gguf_cache._make(folder, file, "model.name=x")
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


def test_without_a_cache_the_file_is_loaded_directly(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.with_name("a-file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.with_name("a-file")))
    check(ModelConfig(name=str(file), device="cpu"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.with_name("other-cache")))
    monkeypatch.setattr(gguf_cache, "LARGEST_CACHED", 1000)
    check(ModelConfig(name=str(file), device="cpu"))
    assert not list(file.with_name("other-cache").rglob("*.safetensors"))


def test_files_that_are_not_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:2000])
    with pytest.raises(ConfigError, match=r"^model.name=.*tiny-llama.gguf: cannot convert it: "):
        load_model(ModelConfig(name=str(file), device="cpu"))
    file.write_bytes(content)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="GGUF files need the gguf package: pip install gguf"):
        load_tokenizer(ModelConfig(name=str(file)))


@pytest.mark.slow
@torch.no_grad()
def test_the_embedded_model_answers() -> None:
    """Uses the user's own cache: half a minute the first time, a second from then on."""
    loaded = load_model(ModelConfig(name="smollm2", device="cpu"))
    chat = [{"role": "user", "content": "What is 2+2?"}]
    prompt = loaded.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    tokens = loaded.model.generate(**prompt, max_new_tokens=16, do_sample=False)
    answer = loaded.tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "4" in answer
    assert (loaded.name, loaded.max_context, loaded.hf_config.num_hidden_layers) == ("smollm2", 8192, 30)
