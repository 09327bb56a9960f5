"""From the options and the model's own defaults to complete sampling parameters."""

from __future__ import annotations

import logging

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

    ends = (*defaults.eos_token_ids, *token_ids(tokenizer.eos_token_id))
    return SamplingParams(
        max_new_tokens=sampling.max_new_tokens,
        temperature=float(choose("temperature")),
        top_p=float(choose("top_p")),
        top_k=int(choose("top_k")),
        min_p=float(choose("min_p")),
        repetition_penalty=float(choose("repetition_penalty")),
        stop=(*sampling.stop, *(text for text in defaults.stop if text not in sampling.stop)),
        eos_token_ids=() if sampling.ignore_eos else tuple(dict.fromkeys(ends)),
    )
