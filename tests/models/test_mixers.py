"""Which mixer each layer of a checkpoint has."""

from __future__ import annotations

import pkgutil

import pytest
from tiny import tiny_config
from transformers import Qwen2Config

from seer_ray.config.errors import ConfigError
from seer_ray.models.architecture import check_config
from seer_ray.models.mixers import MIXERS, layer_mixers


@pytest.mark.parametrize("name", [name for name, traits in MIXERS.items() if traits.attention])
def test_rows(name: str) -> None:
    kind = pkgutil.resolve_name(str(MIXERS[name].attention))
    assert callable(kind.prefill) and callable(kind.decode)


def test_layers_of_checkpoints() -> None:
    assert set(layer_mixers(tiny_config("llama"))) == {"attention"}
    assert set(layer_mixers(tiny_config("mistral", sliding_window=256))) == {"sliding"}
    assert set(layer_mixers(tiny_config("mistral", sliding_window=None))) == {"attention"}
    mixed = Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2, num_hidden_layers=3)
    assert layer_mixers(mixed) == ["attention", "attention", "sliding"]


@pytest.mark.parametrize(
    "kind, words",
    [
        ("chunked_attention", "layers of kind chunked_attention are not supported; supported are "),
        ("linear_attention", "type qwen3: with layers of kind linear it is not supported"),
        ("moe", "type qwen3: with layers of kind none it is not supported"),
    ],
)
def test_a_kind_of_layer_that_a_type_does_not_have_is_refused(kind: str, words: str) -> None:
    config = tiny_config("qwen3")
    config.layer_types = ["full_attention", kind]
    with pytest.raises(ConfigError, match=rf"^model\.name=x: .*{words}"):
        check_config(config, "model.name=x")
