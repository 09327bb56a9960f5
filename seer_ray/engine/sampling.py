"""From the options and the model's own defaults to complete sampling parameters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from seer_ray.config.options import ModelConfig, SamplingConfig
from seer_ray.engine.request import SamplingParams
from seer_ray.models.generation import token_ids
from seer_ray.models.load import generation_defaults

logger = logging.getLogger(__name__)


def resolve_sampling(
    model: ModelConfig, sampling: SamplingConfig, tokenizer: PreTrainedTokenizerBase
) -> SamplingParams:
    """Options that are set win; the rest is as the model's generation config says; greedy if it says nothing.

    Weights are not loaded. Settings of the generation config that the engine does not have are warned of,
    not refused: no option could take them back.

    Args:
        model: whose generation config counts.
        sampling: the options.
        tokenizer: whose end token ends a completion, beside those of the generation config.

    Raises:
        ConfigError: there is no such model.
    """
    defaults = generation_defaults(model)
    if defaults.ignored:
        ignored = ", ".join(defaults.ignored)
        logger.warning("%s: its generation config also asks for %s: ignored", model.name, ignored)

    def choose(name: str) -> float:
        chosen = getattr(sampling, name)
        return getattr(defaults, name) if chosen is None else chosen

    return SamplingParams(
        max_new_tokens=sampling.max_new_tokens,
        temperature=float(choose("temperature")),
        top_p=float(choose("top_p")),
        top_k=int(choose("top_k")),
        min_p=float(choose("min_p")),
        repetition_penalty=float(choose("repetition_penalty")),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        min_new_tokens=sampling.min_new_tokens,
        logprobs=sampling.logprobs,
        stop=(*sampling.stop, *(text for text in defaults.stop if text not in sampling.stop)),
        eos_token_ids=() if sampling.ignore_eos else end_tokens(model, tokenizer),
    )


def end_tokens(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What ends a completion: the end tokens of generation config and tokenizer."""
    ends = (*generation_defaults(model).eos_token_ids, *token_ids(tokenizer.eos_token_id))
    return tuple(dict.fromkeys(ends))


def own_sampling(
    usual: SamplingParams, sampling: SamplingConfig, own: Mapping[str, Any], ends: tuple[int, ...]
) -> SamplingParams:
    """The sampling of a request that has settings of its own.

    Args:
        usual: of the others.
        sampling: the options that made it.
        own: by field of ``SamplingParams``; ``stop`` takes the place of the option's, not of the model's;
            ``ignore_eos`` that of the option, and ``stop_token_ids`` come to the end tokens.
        ends: the model's end tokens.
    """
    fields = dict(own)
    ignored = fields.pop("ignore_eos", sampling.ignore_eos)
    fields["eos_token_ids"] = tuple(
        dict.fromkeys((*(() if ignored else ends), *fields.pop("stop_token_ids", ())))
    )
    if "stop" in fields:
        models = [text for text in usual.stop if text not in sampling.stop]
        fields["stop"] = (*fields["stop"], *(text for text in models if text not in fields["stop"]))
    return replace(usual, **fields)
