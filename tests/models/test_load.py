"""Models from folders, and the refusals; GGUF files have their own tests."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, IM_END, make_tiny, save_tiny, tiny_tokenizer
from transformers.utils import logging

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates, save_gates
from seer_ray.models.load import generation_defaults, load_config, load_model, load_tokenizer, resolve_device
from seer_ray.models.quiet import quiet

MESSAGES = [{"role": "user", "content": "Wie heißt du?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3."""
    return save_tiny(tmp_path_factory.mktemp("model"), "qwen3")


def refused(config: ModelConfig, words: str, load: object = load_model) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_folder(family: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, family)
    loaded = load_model(ModelConfig(name=str(tmp_path), device="cpu"))
    tokens = torch.randint(0, 256, (1, 20))
    assert torch.equal(loaded.model(tokens).logits, make_tiny(family)(tokens).logits)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert (loaded.dtype, loaded.device, loaded.max_context) == (torch.float32, torch.device("cpu"), 1024)
    text = loaded.tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.name = "other"


def test_dtype(folder: Path, tmp_path: Path) -> None:
    make_tiny("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for name, dtype, expected in [
        (tmp_path, "auto", torch.bfloat16),
        (tmp_path, "float32", torch.float32),
        (folder, "auto", torch.float32),
        (folder, "float16", torch.float16),
    ]:
        loaded = load_model(ModelConfig(name=str(name), dtype=dtype, device="cpu"))
        assert loaded.dtype == expected == loaded.model.lm_head.weight.dtype


def test_tied_embeddings_are_not_missing(tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", tie_word_embeddings=True)
    model = load_model(ModelConfig(name=str(tmp_path), device="cpu")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_what_the_driver_asks_needs_no_weights(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = ModelConfig(name=str(tmp_path))
    assert load_config(config).num_hidden_layers == 2
    assert len(load_tokenizer(config)) == 260
    assert generation_defaults(config).eos_token_ids == (IM_END,)
    refused(config, f"model.name={tmp_path}: has no .safetensors weights")


def test_gates_come_with_the_model(folder: Path, tmp_path: Path) -> None:
    hf_config = load_config(ModelConfig(name=str(folder)))
    save_gates(tmp_path, init_gates(hf_config, GateConfig(16, 8)), hf_config, "tiny/tiny-qwen3")
    loaded = load_model(ModelConfig(name=str(folder), gates=str(tmp_path), device="cpu"))
    gates = loaded.load_gates(16)
    assert len(gates) == 2 and gates[0].dtype == torch.float32
    with pytest.raises(ConfigError, match=r"set engine\.block_size=16"):
        loaded.load_gates(32)
    with pytest.raises(ConfigError, match=r"^selector.name=seer: .* model.gates is not set"):
        load_model(ModelConfig(name=str(folder), device="cpu")).load_gates(16)


def test_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    refused(ModelConfig(name=str(tmp_path)), "name another with model.tokenizer", load_tokenizer)
    loaded = load_model(ModelConfig(name=str(tmp_path), tokenizer=str(folder), device="cpu"))
    assert loaded.tokenizer.decode(loaded.tokenizer("ab").input_ids) == "ab"
    make_tiny("llama", vocab_size=100, pad_token_id=None, eos_token_id=None).save_pretrained(tmp_path)
    config = ModelConfig(name=str(tmp_path), tokenizer=str(folder), device="cpu")
    refused(config, f"model.tokenizer={folder}: has 260 tokens, {tmp_path} only 100")


def test_checkpoints_that_are_not_whole(tmp_path: Path) -> None:
    config = ModelConfig(name=str(save_tiny(tmp_path, "llama")), device="cpu")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    refused(config, "1 weights are missing, first model.layers.1.self_attn.k_proj.weight")
    file.write_bytes(file.read_bytes()[:1000])
    refused(config, "cannot load the weights: ")
    (tmp_path / "config.json").write_text("{")
    refused(config, "cannot read its config: ")


def test_an_architecture_that_is_not_supported(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "config.json").read_text()) | {"model_type": "gemma2"}
    (tmp_path / "config.json").write_text(json.dumps(data))
    refused(
        ModelConfig(name=str(tmp_path)),
        f"model.name={tmp_path}: model type gemma2 is not supported",
        load_config,
    )


def test_models_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "quantised").mkdir()
    (tmp_path / "quantised" / "q4.gguf").touch()
    for name, words in {
        str(tmp_path / "nowhere"): "no such file or folder; is the path right",
        "./nowhere/model": "no such file or folder; is the path right",
        "nowhere.gguf": "no such file or folder; is the path right",
        str(tmp_path): "the folder has no config.json, so it is not a model",
        str(tmp_path / "quantised"): f"to use its GGUF file, name it: {tmp_path / 'quantised' / 'q4.gguf'}",
        str(tmp_path / "x.txt"): "not a GGUF file",
        "nobody/no-model": "no such file or folder here, and as a hub id it is not in the local cache",
        "no-model": "no such file or folder here, and as a hub id it is not in the local cache",
    }.items():
        for load in (load_config, load_tokenizer, load_model):
            with pytest.raises(
                ConfigError, match=f"^{re.escape(f'model.name={name}: ')}.*{re.escape(words)}"
            ):
                load(ModelConfig(name=name))


def test_what_transformers_says_is_kept_for_errors(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet() as said:
        logging.get_logger("transformers.modeling_utils").warning(
            "\x1b[1mLOAD REPORT\x1b[0m\n----+--\nq | odd"
        )
    assert said.first() == " (transformers: LOAD REPORT; q | odd)" and capfd.readouterr().err == ""
    with quiet() as said:
        pass
    assert said.first() == ""


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match=f"^model.device={name}: no GPU is visible here"):
            resolve_device(name)
    for name in ("gpu", "cpu:0", "cuda:", "cuda:x", "mps"):
        with pytest.raises(ConfigError, match=f"^model.device={name}: must be auto, cpu, cuda or cuda:N"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"^model\.device=cuda:2: only cuda:0 to cuda:1 are visible here"):
        resolve_device("cuda:2")
