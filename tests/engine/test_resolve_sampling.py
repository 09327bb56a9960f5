"""Options and a model's generation config become complete sampling parameters."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tiny import ENDOFTEXT, IM_END, save_tiny

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig, SamplingConfig
from seer_ray.engine.request import SamplingParams
from seer_ray.engine.sampling import resolve_sampling
from seer_ray.models.load import load_tokenizer

QWEN3 = {
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "eos_token_id": [IM_END, ENDOFTEXT],
    "pad_token_id": ENDOFTEXT,
    "bos_token_id": ENDOFTEXT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "qwen3")


def resolve(folder: Path, generation: dict | str | None, **options: Any) -> SamplingParams:
    file = folder / "generation_config.json"
    file.unlink(missing_ok=True)
    if generation is not None:
        file.write_text(generation if isinstance(generation, str) else json.dumps(generation))
    model = ModelConfig(name=str(folder))
    return resolve_sampling(model, SamplingConfig(**options), load_tokenizer(model))


def test_all_of_the_generation_config_counts(folder: Path) -> None:
    generation = QWEN3 | {"min_p": 0.01, "repetition_penalty": 1.05, "stop_strings": ["</answer>"]}
    assert resolve(folder, generation) == SamplingParams(
        max_new_tokens=512,
        temperature=0.6,
        top_p=0.95,
        top_k=20,
        min_p=0.01,
        repetition_penalty=1.05,
        stop=("</answer>",),
        eos_token_ids=(IM_END, ENDOFTEXT),
    )


def test_options_win(folder: Path) -> None:
    options = {
        "max_new_tokens": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
    }
    chosen = resolve(folder, QWEN3 | {"stop_strings": "END"}, **options, stop=["STOP", "END"])
    assert chosen == SamplingParams(**options, stop=("STOP", "END"), eos_token_ids=(IM_END, ENDOFTEXT))


@pytest.mark.parametrize("generation", [None, {}, {"do_sample": False, "temperature": 0.6, "top_p": 0.9}])
def test_a_model_that_does_not_ask_for_sampling_is_greedy(folder: Path, generation: dict | None) -> None:
    assert resolve(folder, generation).temperature == 0.0


def test_what_the_model_leaves_open_is_off(folder: Path) -> None:
    """transformers would take its own top_k=50."""
    chosen = resolve(folder, {"do_sample": True})
    assert (chosen.temperature, chosen.top_p, chosen.top_k) == (1.0, 1.0, 0)
    assert (chosen.min_p, chosen.repetition_penalty, chosen.stop) == (0.0, 1.0, ())


def test_end_tokens_are_those_of_generation_config_model_and_tokenizer(folder: Path) -> None:
    assert resolve(folder, None).eos_token_ids == (IM_END,)
    assert resolve(folder, {"eos_token_id": ENDOFTEXT}).eos_token_ids == (ENDOFTEXT, IM_END)
    assert resolve(folder, QWEN3, ignore_eos=True).eos_token_ids == ()


def test_what_is_not_implemented_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        resolve(folder, QWEN3 | {"typical_p": 0.9, "num_beams": 4, "no_repeat_ngram_size": 0})
    (message,) = caplog.messages
    assert "asks for num_beams=4, typical_p=0.9: ignored" in message
    caplog.clear()
    resolve(folder, QWEN3)
    assert not caplog.messages


def test_a_torn_generation_config(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model.name=.*: cannot read generation_config\.json: "):
        resolve(folder, "{")
