"""From problems to requests. Needs the tokenizer, not the weights."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.driver.thinking import ThinkingRules
from seer_ray.engine.request import Progress, Request
from seer_ray.engine.sampling import resolve_sampling
from seer_ray.models.catalog import check_engine
from seer_ray.models.load import load_config, load_tokenizer
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import resolve_plan
from seer_ray.results.progress import ProgressLog
from seer_ray.tasks.problem import Problem, Prompt
from seer_ray.tasks.prompts import opening, render


def check_model(config: RunConfig) -> None:
    """That the model can do what the run asks of it.

    Raises:
        ConfigError: No such model, or it cannot; says what.
    """
    hf_config = load_config(config.model)
    check_engine(hf_config, config.engine)
    resolve_plan(config.selector, layer_mixers(hf_config), config.engine.block_size, config.plan)


def make_prompts(
    config: RunConfig, problems: Sequence[Problem], clock: datetime | None = None
) -> tuple[dict[str, Prompt], Any]:
    """The problems as the model sees them, by id, and the tokenizer that made them so.

    Args:
        config: The model, and what the task says of prompts.
        problems: One with an error becomes a prompt with it; so does one that the chat template refuses.
        clock: What a template that writes the date reads; None: the time of this call.

    Raises:
        ConfigError: No such model, or its chat template refuses every problem.
    """
    tokenizer = load_tokenizer(config.model)
    prompts = {problem.id: _prompt(problem, tokenizer, config, clock) for problem in problems}
    if all(prompt.error for prompt in prompts.values()):
        raise ConfigError(str(next(iter(prompts.values())).error))
    return prompts, tokenizer


def _prompt(problem: Problem, tokenizer: Any, config: RunConfig, clock: datetime | None) -> Prompt:
    if problem.error is not None:
        return Prompt(problem, "", (), error=problem.error)
    try:
        text, tokens = render(problem, tokenizer, config.task, clock)
        return Prompt(problem, text, tuple(tokens), opening(problem, tokenizer, config.task, text, clock))
    except ConfigError as error:
        return Prompt(problem, "", (), error=str(error))


def make_requests(
    config: RunConfig,
    prompts: Mapping[str, Prompt],
    tokenizer: Any,
    done: Container[tuple[str, int]],
    log: ProgressLog,
    thinking: ThinkingRules,
) -> list[Request]:
    """All that is not done, the samples of a problem one after the other; also of a problem without a prompt.

    Raises:
        ConfigError: No such model.
    """
    plain = resolve_sampling(config.model, config.sampling, tokenizer)
    engine, requests = config.engine, []
    for place, (problem, prompt) in enumerate(prompts.items()):
        params = plain
        if thinking.budget is not None:
            params = replace(plain, thinking=thinking.of(prompt.opening))
        for sample in range(config.samples):
            if (problem, sample) in done:
                continue
            id = f"{problem}/{sample}"
            progress = log.chains[id].progress if id in log.chains else Progress()
            record = (sample == 0 and place < engine.record_selection) or id in engine.record_requests
            requests.append(
                Request(id, prompt.tokens, params, config.seed, problem, sample, progress, record)
            )
    return requests
