"""What goes into an engine and what comes out of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from seer_ray.engine.forcing import Thinking


@dataclass(frozen=True)
class Structure:
    """The form that a completion must have: see ``guide``."""

    kind: str
    """``json`` (a schema), ``regex``, or ``choice`` (a JSON list of texts)."""
    text: str
    asked: str = "structure"
    """What it is called in errors."""
    thinking: tuple[int, int] | None = None
    """Tokens that open and close reasoning, which is free; None: the model does not think."""
    begun: bool = False
    """The prompt has opened it."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Complete: nothing is left to a default elsewhere.

    Order of operations as in ``transformers``, with what that does not have in its midst: repetition penalty,
    frequency and presence penalty, logit bias, no end before ``min_new_tokens``, structure, temperature,
    top-k, top-p, min-p.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    """Taken from the logits of tokens that were generated before."""
    frequency_penalty: float = 0.0
    """The same, times how often."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, each once, and what is added to their logits."""
    min_new_tokens: int = 0
    """Before so many there is no end token, and stop strings are text."""
    stop: tuple[str, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    """Log-probabilities of the token and of so many of the most likely ones; None: none."""
    structure: Structure | None = None
    thinking: Thinking | None = None
    """Where thinking is ended; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the tokens of a request cost. On disk under these names: ``results.chain``, ``results.schema``."""

    attended_kv: int = 0
    """KV tokens read to produce them, summed over steps, layers and KV heads; by drafts, too."""
    available_kv: int = 0
    """KV tokens that dense attention would have read."""
    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    attended_layers: tuple[int, ...] = ()
    """``attended_kv`` of each layer; empty: not known."""
    first_token_s: float = 0.0
    """From its submission to an engine to its first token; 0: not known."""
    drafted: tuple[int, ...] = ()
    """Passes with a draft token at each place behind the token before; empty: none was drafted."""
    accepted: tuple[int, ...] = ()
    """Those of them that became tokens."""
    draft_kv: int = 0
    """Of ``attended_kv``, what drafts read."""


class TokenLogprobs(NamedTuple):
    """Log-probabilities at one token, by the model alone: before penalties, temperature and ranks."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """Token ids and log-probabilities of the most likely ones, in falling order."""

    @classmethod
    def parse(cls, data: bytes) -> TokenLogprobs:
        """From how they travel: fp32 of the chosen, of the top ones, and their ids."""
        chosen, *rest = array("f", data)
        count = len(rest) // 2
        return cls(chosen, tuple(zip(map(int, rest[count:]), rest[:count], strict=True)))


@dataclass(frozen=True)
class Progress:
    """How far a request has come: enough to continue it in another engine."""

    tokens: tuple[int, ...] = ()
    """Generated so far."""
    counters: Counters = Counters()
    logprobs: tuple[bytes, ...] = ()
    """Of the tokens, if asked for."""


@dataclass(frozen=True)
class Request:
    """One chain to generate: a function of (prompt, sampling, seed, problem, sample) and the model alone."""

    id: str
    """Unique in the engine; the job uses ``<problem>/<sample>``."""
    prompt: Sequence[int]
    """Token ids."""
    sampling: SamplingParams
    seed: int = 0
    problem: str = ""
    sample: int = 0
    progress: Progress = Progress()
    """Where to continue, for a request that another engine has begun."""
    record: bool = False
    """Tell which blocks each step attended (``Delta.trace``)."""
    opening: str = ""
    """The end of the prompt's text that the chat template puts behind the chat."""
    document: tuple[int, int] | None = None
    """Of the prompt's tokens those that a sparse prefill may read sparsely, the first and past the last;
    None: all."""


class Reading(NamedTuple):
    """What a completion says."""

    text: str
    """With the marks of reasoning and no other special tokens."""
    reasoning: str | None = None
    answer: str | None = None
    """What is not reasoning; None: the reasoning did not end, or the completion is an error."""
    thinking_tokens: int | None = None
    """None: the marks of thinking are not known."""
    thinking_forced: bool | None = None
    """Whether the budget ended the thinking; None: there was none."""


@dataclass
class Completion:
    """What a request became."""

    request: Request
    tokens: Sequence[int]
    text: str
    finish_reason: str
    """``stop`` (end token or stop string), ``length``, ``abort`` or ``error``."""
    error: str | None = None
    counters: Counters = Counters()
    preemptions: int = 0
    logprobs: list[bytes] = field(default_factory=list)
    """Of each token, if asked for: ``TokenLogprobs.parse``."""
    reading: Reading | None = None
    """None: nobody has read it yet."""


@dataclass
class Delta:
    """New tokens of one request since the last delta; the last one carries the completion."""

    request_id: str
    tokens: Sequence[int] = field(default_factory=list)
    counters: Counters | None = None
    """After these tokens."""
    completion: Completion | None = None
    trace: list[bytes] = field(default_factory=list)
    """What the step of each token attended, see ``trace``; empty for requests that are not recorded."""
    logprobs: list[bytes] = field(default_factory=list)
    """Of each token, for requests that ask for them."""
