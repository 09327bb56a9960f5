"""Whether a chain has ended, and its text."""

from __future__ import annotations

from typing import Any

from seer_ray.engine.sequence import Sequence
from seer_ray.tasks.stop import find_stop


class Endings:
    """Of chains.

    Args:
        tokenizer: None: they have no text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def reason(self, sequence: Sequence) -> str | None:
        """Why it has ended; None: it has not."""
        params, guide = sequence.request.sampling, sequence.guide
        if not sequence.generated:
            return None
        if guide is not None and guide.done:
            return "error" if guide.error is not None else "stop"
        if sequence.tokens[-1] in params.eos_token_ids:
            return "stop"
        if params.stop and self._stop_at(sequence, params.stop, tail=True) is not None:
            return "stop"
        return "length" if len(sequence.tokens) >= sequence.limit else None

    def text(self, sequence: Sequence) -> str:
        """The completion as a person reads it: no special tokens, nothing from a stop string on."""
        stop = sequence.request.sampling.stop
        cut = self._stop_at(sequence, stop, tail=False) if stop else None
        text = self._decode(sequence.tokens[sequence.prompt_length :])
        return text if cut is None else text[:cut]

    def _stop_at(self, sequence: Sequence, stop: tuple[str, ...], tail: bool) -> int | None:
        """Where the first stop string begins that ends behind the least tokens. With ``tail``, only looks
        where the last token can have finished one: every token in the midst of a string brings at least one
        of its bytes. There special tokens count as text, so that one of them can be a stop string."""
        tokens = sequence.tokens[sequence.prompt_length :]
        first = max(0, len(tokens) - max(len(s.encode()) for s in stop) - 8) if tail else 0
        text = self._decode(tokens[first:], special=tail)
        least = self._decode(tokens[first : sequence.least], special=tail) if sequence.least > first else ""
        return find_stop(text, stop, len(least))

    def _decode(self, tokens: list[int], special: bool = False) -> str:
        if self._tokenizer is None:
            return ""
        # As it was written: some tokenizers would take the space before a comma away.
        text = self._tokenizer.decode(
            tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)  # a list of them only for a list of lists
        return text
