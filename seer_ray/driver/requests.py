"""From problems to requests. Needs the tokenizer, not the weights."""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig, RunConfig
from seer_ray.driver.rendering import RenderPool, processes_for
from seer_ray.engine.request import Request, SamplingParams, Structure
from seer_ray.engine.sampling import end_tokens, own_sampling, resolve_sampling
from seer_ray.engine.thinking import ThinkingRules
from seer_ray.models.allocation import allocation_of
from seer_ray.models.catalog import check_engine
from seer_ray.models.load import load_config, load_tokenizer
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import resolve_plan
from seer_ray.tasks.asked import Form
from seer_ray.tasks.documents import document_tokens
from seer_ray.tasks.problem import Problem, Prompt
from seer_ray.tasks.prompts import adds_special, opening, render, rendered
from seer_ray.tasks.thinking import ReasoningParser

RENDERING = "1"
"""Changes whenever this package renders a problem in another way."""
KEPT = 4096
"""Prompts that a renderer keeps."""
MEASURED = 64
"""Prompts after which it knows what one takes."""


def check_model(config: RunConfig) -> None:
    """That the model can do what the run asks of it.

    Raises:
        ConfigError: No such model, or it cannot; says what.
    """
    hf_config = load_config(config.model)
    check_engine(hf_config, config.engine)
    resolve_plan(
        config.selector,
        layer_mixers(hf_config),
        config.engine.block_size,
        config.plan,
        kv_heads=getattr(hf_config, "num_key_value_heads", None),
        allocation=allocation_of(config.selector, config.model.gates, config.model.prefill_gates),
    )


class Renderer:
    """Makes prompts of problems, one by one as they are needed; of many problems in processes beside it too.

    Args:
        config: The model, and what the task says of prompts.
        clock: What a template that writes the date reads; None: the time of each call.

    Raises:
        ConfigError: No such model.
    """

    def __init__(self, config: RunConfig, clock: datetime | None = None) -> None:
        self.clock = clock
        self.tokenizer: Any = load_tokenizer(config.model)
        self._config = config
        self._thinks = bool(ReasoningParser(self.tokenizer, config.task.thinking_marks).marks)
        self._made: OrderedDict[str, Prompt] = OrderedDict()
        self._pool: RenderPool | None = None
        self._wanted = self._count = 0
        self._seconds = 0.0

    def plan(self, problems: int) -> None:
        """So many are to be rendered. If that takes long, processes help, which end with ``close``."""
        self._wanted += problems

    @property
    def waited(self) -> float:
        """Seconds that it took to wait for the processes."""
        return 0.0 if self._pool is None else self._pool.waited

    def close(self) -> None:
        """Ends the processes."""
        if self._pool is not None:
            self._pool.close()

    def expect(self, problems: Sequence[Problem]) -> None:
        """These are asked for soon."""
        if self._pool is None and self._count > MEASURED:
            each = self._seconds / (self._count - 1)
            processes = processes_for(each * (self._wanted - self._count))
            self._pool = RenderPool(self._config, self.clock, processes) if processes else None
        if self._pool is not None:
            self._pool.expect([problem for problem in problems if problem.id not in self._made])

    def check(self, problems: Iterable[Problem]) -> None:
        """
        Raises:
            ConfigError: The chat template refuses every problem.
        """
        first: str | None = None
        for problem in problems:
            error = self.render(problem).error
            if error is None:
                return
            first = first or error
        raise ConfigError(str(first))

    def render(self, problem: Problem) -> Prompt:
        """A problem as the model sees it. One with an error becomes a prompt with it; so does one that the
        chat template refuses. Several runs over the same problems share the last ones."""
        if problem.id not in self._made and self._pool is not None:
            for prompt in self._pool.ready(problem.id):
                self._keep(prompt)
        if (found := self._made.get(problem.id)) is None:
            began = time.thread_time()
            found = self.made(problem)
            self._keep(found)
            # The first one compiles the template.
            self._seconds += time.thread_time() - began if self._count else 0.0
            self._count += 1
        return found

    def _keep(self, prompt: Prompt) -> None:
        self._made[prompt.problem.id] = prompt
        if len(self._made) > KEPT:
            self._made.popitem(last=False)

    @cached_property
    def fingerprint(self) -> str:
        """Of what decides how problems are rendered beside options and clock: where it is the same, so are
        the prompts."""
        tokenizer = self.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        said = [
            [RENDERING, *(f"{name} {version(name)}" for name in ("transformers", "tokenizers", "jinja2"))],
            type(tokenizer).__name__,
            backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
            repr(tokenizer.chat_template),
            repr(sorted(tokenizer.special_tokens_map.items())),
        ]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def made(self, problem: Problem) -> Prompt:
        """The same, made here and now, and not kept."""
        if problem.error is not None:
            return Prompt(problem, "", (), error=problem.error)
        task, tokenizer = self._config.task, self.tokenizer
        try:
            check_named(problem, self._config.model)
            if (budget := problem.asked.thinking_budget) is not None and not self._thinks:
                raise ConfigError(
                    f"problem '{problem.id}': thinking_token_budget={budget}: the marks that this model puts "
                    "around its thinking are not known; give them, such as "
                    "task.thinking_marks=[<think>,</think>]"
                )
            text, tokens = render(problem, tokenizer, task, self.clock)
            document = document_tokens(
                problem,
                tokenizer,
                lambda each: rendered(each, tokenizer, task, self.clock),
                adds_special(problem, tokenizer),
            )
            begun = opening(problem, tokenizer, task, text, self.clock)
            return Prompt(problem, text, array("i", tokens), begun, document=document)
        except ConfigError as error:
            return Prompt(problem, "", (), error=problem.at(str(error)))


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


class RequestMaker:
    """Makes the requests of prompts.

    Args:
        config: Of the run, with the model as it is to be read.
        renderer: Whose prompts they are.
        thinking: Where thinking ends.

    Raises:
        ConfigError: No such model.
    """

    def __init__(self, config: RunConfig, renderer: Renderer, thinking: ThinkingRules) -> None:
        tokenizer = renderer.tokenizer
        self._config, self._thinking = config, thinking
        self._usual = resolve_sampling(config.model, config.sampling, tokenizer)
        self._ends = end_tokens(config.model, tokenizer)
        self._parser = ReasoningParser(tokenizer, config.task.thinking_marks)

    def make(self, place: int, prompt: Prompt, sample: int) -> Request:
        """A sample of a problem, also of one without a prompt.

        Args:
            place: Of the problem in the dataset.
        """
        config, engine, problem = self._config, self._config.engine, prompt.problem
        seed = config.seed if problem.asked.seed is None else problem.asked.seed
        id = request_id(problem.id, sample)
        record = (sample == 0 and place < engine.record_selection) or id in engine.record_requests
        sampling = self._usual if prompt.error else self._sampling(prompt)
        return Request(
            id,
            prompt.tokens,
            sampling,
            seed,
            problem.id,
            sample,
            record=record,
            opening=prompt.opening,
            document=prompt.document,
        )

    def _sampling(self, prompt: Prompt) -> SamplingParams:
        asked, params = prompt.problem.asked, self._usual
        if asked.sampling:
            params = own_sampling(params, self._config.sampling, asked.sampling, self._ends)
        if asked.form is not None:
            params = replace(params, structure=_structure(asked.form, prompt, self._parser))
        if self._thinking.budget is not None or asked.thinking_budget is not None:
            params = replace(params, thinking=self._thinking.of(prompt.opening, asked.thinking_budget))
        return params


def request_id(problem: str, sample: int) -> str:
    """Of a sample of a problem."""
    return f"{problem}/{sample}"


def _structure(form: Form, prompt: Prompt, parser: ReasoningParser) -> Structure:
    """The form of the answer: a model that thinks may do so first."""
    raw = prompt.problem.raw is not None
    thinks = parser.may_think(prompt.text if raw else prompt.opening)
    if thinks is None or (raw and not thinks[1]):
        return Structure(form.kind, form.text, form.key)
    return Structure(form.kind, form.text, form.key, *thinks)
