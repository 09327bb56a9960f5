"""Requests that can never run are told so at once."""

from __future__ import annotations

from seer_ray.engine.sequence import Sequence
from seer_ray.engine.sizing import Capacity


def impossible(sequence: Sequence, capacity: Capacity, vocabulary: int) -> str | None:
    """Why an engine of this capacity can never run a sequence, in a line; None: it can.

    Args:
        sequence: new.
        capacity: of the engine.
        vocabulary: entries of the logits.
    """
    cached, length = capacity.cached, sequence.prompt_length
    if length == 0:
        return "the prompt has no tokens"
    if not 0 <= min(sequence.tokens) <= max(sequence.tokens) < vocabulary:
        return f"a token id is not in the model's vocabulary of {vocabulary}"
    if unknown := [id for id, _ in sequence.request.sampling.logit_bias if id >= vocabulary]:
        return f"logit_bias: token {unknown[0]} is not in the vocabulary of {vocabulary}"
    if length >= capacity.max_length:
        limit = capacity.max_length
        return f"the prompt has {length} tokens; with a limit of {limit} there is no room to answer"
    if cached is not None and length > cached:
        return f"the prompt has {length} tokens; the cache holds {cached}: raise engine.kv_memory"
    return None
