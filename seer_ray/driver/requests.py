"""From problems to requests. Needs the tokenizer, not the weights."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig, RunConfig
from seer_ray.engine.request import Progress, Request, Structure
from seer_ray.engine.sampling import end_tokens, own_sampling, resolve_sampling
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.models.catalog import check_engine
from seer_ray.models.load import load_config, load_tokenizer
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import resolve_plan
from seer_ray.results.progress import ProgressLog
from seer_ray.tasks.asked import Form
from seer_ray.tasks.documents import document_tokens
from seer_ray.tasks.problem import Problem, Prompt
from seer_ray.tasks.prompts import adds_special, opening, render, rendered
from seer_ray.tasks.thinking import ReasoningParser


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
    thinks = bool(ReasoningParser(tokenizer, config.task.thinking_marks).marks)
    prompts = {problem.id: _prompt(problem, tokenizer, config, clock, thinks) for problem in problems}
    if all(prompt.error for prompt in prompts.values()):
        raise ConfigError(str(next(iter(prompts.values())).error))
    return prompts, tokenizer


def _prompt(
    problem: Problem, tokenizer: Any, config: RunConfig, clock: datetime | None, thinks: bool
) -> Prompt:
    """``thinks``: the model's marks of thinking are known."""
    if problem.error is not None:
        return Prompt(problem, "", (), error=problem.error)
    try:
        check_named(problem, config.model)
        if (budget := problem.asked.thinking_budget) is not None and not thinks:
            raise ConfigError(
                f"problem '{problem.id}': thinking_token_budget={budget}: the marks that this model puts "
                "around its thinking are not known; give them, such as task.thinking_marks=[<think>,</think>]"
            )
        text, tokens = render(problem, tokenizer, config.task, clock)
        document = document_tokens(
            problem,
            tokenizer,
            lambda each: rendered(each, tokenizer, config.task, clock),
            adds_special(problem, tokenizer),
        )
        begun = opening(problem, tokenizer, config.task, text, clock)
        return Prompt(problem, text, tuple(tokens), begun, document=document)
    except ConfigError as error:
        return Prompt(problem, "", (), error=str(error))


def check_named(problem: Problem, model: ModelConfig) -> None:
    """
    Raises:
        ConfigError: The row asks for another model.
    """
    named = problem.asked.model
    if named not in (None, model.name, model.short) and ModelConfig(name=str(named)).short != model.short:
        raise ConfigError(
            f"problem '{problem.id}': model={named}: this run's model is {model.name}; name that, or none"
        )


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
    usual = resolve_sampling(config.model, config.sampling, tokenizer)
    ends = end_tokens(config.model, tokenizer)
    parser = ReasoningParser(tokenizer, config.task.thinking_marks)
    engine, requests = config.engine, []
    for place, (problem, prompt) in enumerate(prompts.items()):
        asked, params = prompt.problem.asked, usual
        if asked.sampling:
            params = own_sampling(usual, config.sampling, asked.sampling, ends)
        if asked.form is not None:
            params = replace(params, structure=_structure(asked.form, prompt, parser))
        if thinking.budget is not None or asked.thinking_budget is not None:
            params = replace(params, thinking=thinking.of(prompt.opening, asked.thinking_budget))
        seed = config.seed if asked.seed is None else asked.seed
        for sample in range(prompt.problem.samples(config.samples)):
            if (problem, sample) in done:
                continue
            id = f"{problem}/{sample}"
            progress = log.chains[id].progress if id in log.chains else Progress()
            record = (sample == 0 and place < engine.record_selection) or id in engine.record_requests
            request = Request(
                id,
                prompt.tokens,
                params,
                seed,
                problem,
                sample,
                progress,
                record,
                prompt.opening,
                prompt.document,
            )
            requests.append(request)
    return requests


def _structure(form: Form, prompt: Prompt, parser: ReasoningParser) -> Structure:
    """The form of the answer: a model that thinks may do so first."""
    raw = prompt.problem.raw is not None
    thinks = parser.may_think(prompt.text if raw else prompt.opening)
    if thinks is None or (raw and not thinks[1]):
        return Structure(form.kind, form.text, form.key)
    return Structure(form.kind, form.text, form.key, *thinks)
