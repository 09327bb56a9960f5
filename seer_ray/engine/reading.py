"""What a completion says: its text, with the reasoning told apart from the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seer_ray.config.options import RunConfig, SamplingConfig
from seer_ray.engine.request import Completion, Reading, Request
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.tasks.thinking import ReasoningParser


class CompletionReader:
    """Reads token ids. It takes milliseconds for a long chain, so workers do it, not the driver.

    Args:
        parser: Token ids to text, reasoning and answer.
        thinking: Counts thinking tokens.
    """

    def __init__(self, parser: ReasoningParser, thinking: ThinkingRules) -> None:
        self._parser, self._thinking = parser, thinking

    @classmethod
    def of(cls, tokenizer: Any, marks: Sequence[str] | None) -> CompletionReader:
        """For requests that bring their own budgets of thinking.

        Args:
            marks: ``task.thinking_marks``.
        """
        parser = ReasoningParser(tokenizer, None if marks is None else list(marks))
        return cls(parser, ThinkingRules(RunConfig(sampling=SamplingConfig()), parser, tokenizer))

    def read(self, completion: Completion, request: Request) -> Reading:
        """Of a completion with all its tokens."""
        sampling, failed = request.sampling, completion.finish_reason == "error"
        said = self._parser.parse(
            completion.tokens,
            request.opening,
            sampling.stop,
            completion.finish_reason == "stop",
            sampling.min_new_tokens,
        )
        if failed:
            return Reading(said.text)
        count, forced = self._thinking.count(request.opening, completion.tokens, sampling.thinking)
        return Reading(said.text, said.reasoning, said.answer, count, forced)
