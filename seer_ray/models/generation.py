"""What a model's generation config says about sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

# Settings that change which tokens come out and that the engine does not have, with the value that is off.
_NOT_IMPLEMENTED: dict[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "penalty_alpha": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}


@dataclass(frozen=True)
class GenerationDefaults:
    """A model's own way of sampling, in the terms of ``SamplingParams``. What it leaves open is off.

    ``transformers`` would put top_k=50 where the model's file names none: that is its own default, not
    the model's.
    """

    temperature: float
    """0 where the model does not ask for sampling."""
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    stop: tuple[str, ...]
    eos_token_ids: tuple[int, ...]
    ignored: tuple[str, ...]
    """Settings that have no counterpart here, as ``name=value``."""

    @classmethod
    def of(cls, generation: GenerationConfig, config: PreTrainedConfig) -> GenerationDefaults:
        """From the generation config; end tokens from the model's config if that names none."""

        def value(name: str, default: Any) -> Any:
            found = getattr(generation, name, None)
            return default if found is None else found

        sampled = value("do_sample", False)
        stop = value("stop_strings", ())
        eos = value("eos_token_id", getattr(config, "eos_token_id", None))
        return cls(
            temperature=float(value("temperature", 1.0)) if sampled else 0.0,
            top_p=float(value("top_p", 1.0)),
            top_k=int(value("top_k", 0)),
            min_p=float(value("min_p", 0.0)),
            repetition_penalty=float(value("repetition_penalty", 1.0)),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            eos_token_ids=token_ids(eos),
            ignored=tuple(
                f"{name}={getattr(generation, name)}"
                for name, off in _NOT_IMPLEMENTED.items()
                if getattr(generation, name, None) not in (None, off)
            ),
        )


def token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """One id, several or none, as configs write them."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
