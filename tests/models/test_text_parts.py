"""Checkpoints of images and text: the text's part is loaded, with its own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import make_family
from safetensors.torch import load_file, save_file
from tiny import tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from seer_ray.config.options import ModelConfig
from seer_ray.models.families import TEXT_PARTS
from seer_ray.models.load import load_model

_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 4}
_VISION: dict[str, dict[str, Any]] = {
    "gemma3": _SIZES | {"model_type": "siglip_vision_model", "num_hidden_layers": 1, "image_size": 16},
    "mistral3": _SIZES | {"model_type": "pixtral", "num_hidden_layers": 1, "image_size": 16},
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), _SIZES | {"depth": 1, "num_heads": 2, "out_hidden_size": 64}),
}


@pytest.fixture(params=TEXT_PARTS)
def whole(request: pytest.FixtureRequest) -> Any:
    """A random model of both."""
    text = make_family(TEXT_PARTS[request.param]).config
    config = CONFIG_MAPPING[request.param](
        text_config=text.to_dict(),
        vision_config=_VISION[request.param],
        tie_word_embeddings=text.tie_word_embeddings,
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.2)
    return model


@torch.no_grad()
def test_the_text_part_has_the_weights_of_the_whole(whole: Any, tmp_path: Path) -> None:
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tokens = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(1))
    kind = whole.config.model_type
    types = {"token_type_ids": torch.zeros_like(tokens)} if kind == "gemma3" else {}
    expected = whole(input_ids=tokens, attention_mask=torch.ones_like(tokens), **types).logits

    loaded = load_model(ModelConfig(name=str(tmp_path), device="cpu"))
    assert loaded.hf_config.model_type == TEXT_PARTS[kind]
    assert torch.equal(loaded.model(input_ids=tokens).logits, expected)

    # Others have the names that transformers has in memory.
    file = tmp_path / "model.safetensors"
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head.", "lm_head."
        ): weight
        for name, weight in load_file(file).items()
    }
    save_file(renamed, file, metadata={"format": "pt"})
    again = load_model(ModelConfig(name=str(tmp_path), device="cpu"))
    assert torch.equal(again.model(input_ids=tokens).logits, expected)
