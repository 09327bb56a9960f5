"""What goes into an engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from seer_ray.engine.forcing import Thinking


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Complete: nothing is left to a default elsewhere.

    Order of operations as in ``transformers``: repetition penalty, temperature, top-k, top-p, min-p.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    thinking: Thinking | None = None
    """Where thinking is ended; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the tokens of a request cost. On disk under these names: ``results.chain``, ``results.schema``."""

    attended_kv: int = 0
    """KV tokens read to produce them, summed over steps, layers and KV heads."""
    available_kv: int = 0
    """KV tokens that dense attention would have read."""
    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    attended_layers: tuple[int, ...] = ()
    """``attended_kv`` of each layer; empty: not known."""


@dataclass(frozen=True)
class Progress:
    """How far a request has come: enough to continue it in another engine."""

    tokens: tuple[int, ...] = ()
    """Generated so far."""
    counters: Counters = Counters()


@dataclass(frozen=True)
class Request:
    """One chain to generate: a function of (prompt, sampling, seed, problem, sample) and the model alone."""

    id: str
    """Unique in the engine; the job uses ``<problem>/<sample>``."""
    prompt: tuple[int, ...]
    """Token ids."""
    sampling: SamplingParams
    seed: int = 0
    problem: str = ""
    sample: int = 0
    progress: Progress = Progress()
    """Where to continue, for a request that another engine has begun."""
    record: bool = False
    """Tell which blocks each step attended (``Delta.trace``)."""


@dataclass
class Completion:
    """What a request became."""

    request: Request
    tokens: list[int]
    text: str
    finish_reason: str
    """``stop`` (end token or stop string), ``length``, ``abort`` or ``error``."""
    error: str | None = None
    counters: Counters = Counters()
    preemptions: int = 0


@dataclass
class Delta:
    """New tokens of one request since the last delta; the last one carries the completion."""

    request_id: str
    tokens: list[int] = field(default_factory=list)
    counters: Counters | None = None
    """After these tokens."""
    completion: Completion | None = None
    trace: list[bytes] = field(default_factory=list)
    """What the step of each token attended, see ``trace``; empty for requests that are not recorded."""
