"""Requests in, completions out, on one device: no Ray, no MLflow, no datasets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import EngineConfig, PlanConfig, SelectorConfig
from seer_ray.engine.bandwidth import copy_rate
from seer_ray.engine.ending import Endings
from seer_ray.engine.flight import Flight, Mark
from seer_ray.engine.guide import Guides
from seer_ray.engine.memory import Memory
from seer_ray.engine.possible import impossible
from seer_ray.engine.request import Completion, Delta, Request, SamplingParams
from seer_ray.engine.runner import Runner
from seer_ray.engine.sequence import Sequence
from seer_ray.engine.sizing import fitting
from seer_ray.engine.speculation.speculator import Verified
from seer_ray.engine.totals import Totals
from seer_ray.models.load import LoadedModel


class Engine:
    """Continuous batching with block-sparse decoding.

    Args:
        model: from ``seer_ray.load_model``.
        settings: batch, memory and exactness.
        selector: which KV blocks a decode step reads; dense by default.
        plan: which layers do otherwise; by default none.
        memory: of the device, where it is not what torch says of it.

    Raises:
        ConfigError: settings that the model cannot honour.

    Attributes:
        overlap: results of a step are taken in (stop strings, text, counts) while the next one runs, as they
            are on a GPU. Only captured steps are launched ahead: those of exact mode and of the oracle wait
            for the results of the step before, and so do those with a chain that must keep to a form.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: EngineConfig | None = None,
        selector: SelectorConfig | None = None,
        plan: PlanConfig | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.model, self._memory = model, memory
        self.tokenizer = model.tokenizer
        self._endings = Endings(model.tokenizer)
        self._guides = Guides(model.tokenizer, model.model.config.vocab_size)
        self._sequences: dict[str, Sequence] = {}
        self._outbox: list[Delta] = []
        self._flight: Flight | None = None
        self._totals = Totals()
        self._copy_rate: float | None = None
        self._make(settings or EngineConfig(), selector or SelectorConfig(), plan or PlanConfig())

    def configure(
        self, settings: EngineConfig, selector: SelectorConfig, plan: PlanConfig | None = None
    ) -> None:
        """Decode with other settings from now on: the same weights, a new cache. Counters go on.

        For the time between requests, as every setting is to have the whole memory and the device alone.

        Raises:
            ConfigError: settings that the model cannot honour; those of before stay.
            RuntimeError: there are requests.
        """
        if self.busy:
            raise RuntimeError("an engine with requests in it cannot be configured anew")
        before = self._asked
        self._totals.leave(self.runner, self.scheduler)
        # The old cache goes first: two do not fit.
        del self.runner, self.scheduler
        refused: ConfigError | None = None
        try:
            self._make(settings, selector, plan or PlanConfig())
        except ConfigError as error:
            refused = error
        if refused is not None:
            # What the error was raised over holds memory that is needed now.
            refused.__traceback__ = refused.__context__ = refused.__cause__ = None
            vars(self).pop("runner", None)
            self._make(*before)
            raise refused

    def warm_up(self) -> None:
        """What happens once happens now, and is in no counter: on a GPU the largest chunk of prompts and the
        largest batch, and the capture of all steps; then two tokens after a block of nothing. Measures the
        device's copy rate, for ``stats``.

        Raises:
            ConfigError: it does not fit into the memory.
        """
        self._copy_rate = copy_rate(self.model.device) * self.model.group.size
        with fitting(self._asked[0]):
            self.runner.warm_up()
        self._require_fast()
        prompt = (0,) * min(self.settings.block_size, self.runner.capacity.max_length - 2)

        def two_tokens() -> None:
            self.submit(Request("warm-up", prompt, SamplingParams(2)))
            for _ in self.run():
                pass

        self._totals.without(two_tokens)
        self.scheduler = self.runner.new_scheduler()
        self.runner.steps = dict.fromkeys(self.runner.steps, 0)
        self.runner.prompt_reads.forget()

    def _make(self, settings: EngineConfig, selector: SelectorConfig, plan: PlanConfig) -> None:
        self._asked = settings, selector, plan
        with fitting(self._asked[0]):
            self.runner = Runner(self.model, settings, selector, plan, self._memory)
        self.settings, self.selector, self.layout = self.runner.settings, selector, plan
        self._require_fast()
        self.plan = self.runner.plan
        self.overlap = self.runner.device.type == "cuda"
        self.scheduler = self.runner.new_scheduler()

    @property
    def plan_id(self) -> str:
        """How rows are decoded, and with speculation what drafts."""
        return self.runner.plan_id

    @property
    def slow(self) -> str | None:
        """Why decode steps run operation by operation though nobody asked for it, in a line; None: they do
        not."""
        reason = self.runner.uncaptured
        if reason is None or self.settings.exact:
            return None
        return f"decode steps run operation by operation, slower: {reason}"

    def _require_fast(self) -> None:
        reason = self.runner.uncaptured
        if self.settings.require_fast and reason is not None:
            raise ConfigError(
                f"engine.require_fast=true: decode steps would run operation by operation: {reason}"
            )

    # -- requests ------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue a request. One that can never run comes back as a completion with an error.

        Raises:
            ValueError: a request of this id is already here.
        """
        if request.id in self._sequences:
            raise ValueError(f"request {request.id!r} is already in the engine")
        capacity, vocabulary = self.runner.capacity, self.runner.vocabulary
        sequence = Sequence(request, self.settings.block_size, capacity.max_length)
        problem = impossible(sequence, capacity, vocabulary) or self._guide(sequence)
        if problem:
            self._outbox.append(sequence.complete("", "error", problem))
            return
        self._sequences[request.id] = sequence
        if self._endings.reason(sequence) is not None:  # a continued chain that had its last token
            self._outbox.append(self._complete(sequence))
        else:
            self.scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """Give a request up; its completion, with the tokens so far, comes with the next step."""
        if request_id in self._sequences:
            self.settle()
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.remove(sequence)
            self._outbox.append(sequence.complete(self._endings.text(sequence), "abort"))

    @property
    def busy(self) -> bool:
        """There is work, or a completion to hand out."""
        return bool(self._sequences or self._outbox)

    def room(self) -> int:
        """Requests that would start soon: free rows and a small queue that keeps them filled."""
        scheduler = self.scheduler
        if scheduler.waiting and scheduler.starved:
            return 0
        rows = self.runner.max_batch
        return max(0, rows + max(1, rows // 4) - len(self._sequences))

    def waiting(self) -> list[str]:
        """Requests of which nothing is being computed."""
        return [sequence.request.id for sequence in self.scheduler.waiting]

    # -- running -------------------------------------------------------------------------------------

    def run(self) -> Iterator[Completion]:
        """Completions in order of finishing, until nothing is left."""
        for delta in self._deltas(tell=False):
            if delta.completion is not None:
                yield delta.completion

    def stream(self) -> Iterator[Delta]:
        """New tokens as they come; the last delta of a request carries its completion."""
        return self._deltas(tell=True)

    def _deltas(self, tell: bool) -> Iterator[Delta]:
        while self.busy:
            deltas = deque(self.step(tell))
            try:
                while deltas:
                    yield deltas.popleft()
            finally:  # who stops in the middle of a step gets the rest next time
                self._outbox[:0] = deltas

    def step(self, tell: bool = True) -> list[Delta]:
        """One batch step: at most one chunk of prompts, then one token of every chain in decoding, or with
        speculation at least one. With ``overlap`` the tokens that come back are those of the step before,
        read while this one runs.

        Args:
            tell: what chains in decoding have come to; else only what has ended is told, and the rest comes
                with a later step: making up a row's progress costs more than the row's host time of a step.
        """
        began = time.perf_counter()
        scheduled = self.scheduler.schedule(self.settle)
        ahead = self.overlap and self.runner.leads(scheduled.decode)
        if not ahead and self.settle():
            scheduled.prune()
        self._outbox += [self._strand(sequence) for sequence in scheduled.stranded]
        self.runner.prepare(scheduled)
        if scheduled.prefill:
            begun = Mark(self.runner.device)
            self.runner.prefill(scheduled.prefill)
            self._totals.prefilled(begun, Mark(self.runner.device))
        launched, verified = None, None
        if scheduled.decode:
            speculator = self.runner.speculator
            chosen = speculator.choose(scheduled.decode) if speculator is not None else None
            if chosen is not None:
                verified = self.runner.speculate(chosen, self.scheduler.lengthen)
            else:
                launched = self.runner.launch(scheduled.decode, ahead)
        self.scheduler.commit(scheduled)
        before, self._flight = self._flight, launched
        if before is not None:
            self._collect(before)
        if verified is not None:
            self._accept(verified)
        if not ahead or not self._sequences:
            self.settle()
        counts = self._totals.counts
        counts["steps"] += 1
        counts["prefill_tokens"] += sum(chunk.end - chunk.start for chunk in scheduled.prefill)
        counts["step_s"] += time.perf_counter() - began
        if not self._sequences:
            self.scheduler.check()
        deltas, self._outbox = self._outbox, []
        if tell:
            deltas += [sequence.report() for sequence in self._sequences.values() if not sequence.told]
        return deltas

    def settle(self) -> bool:
        """Take in the step in flight: its tokens come with the next ``step``. Whether there was one."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._collect(flight)
        return flight is not None

    def _collect(self, flight: Flight) -> None:
        """Wait for a step and take its tokens. ``self._flight`` is the step after it, if that is launched."""
        made = self.runner.collect(flight)
        self._totals.counts["new_tokens"] += len(made)
        for sequence, sampled, logprobs in made:
            token = sequence.append(sampled, logprobs)
            if not self._ended(sequence, token):
                continue
            # It has computed a token too many: nobody sees it. Its page is written again or given to others
            # by steps after that one.
            if self._flight is not None and self._flight.drop(sequence):
                sequence.cached -= 1
            self._outbox.append(self._complete(sequence))
        if self.runner.speculator is not None:
            self._totals.drafts.add(0, 0, 0.0, 0.0)
        self._count_decode(flight.seconds)

    def _accept(self, verified: Verified) -> None:
        """Take the tokens of a pass that speculated: those of each row up to the first wrong draft, and the
        one in its place."""
        counts, drafted, right = self._totals.counts, 0, 0
        for row in verified.rows:
            accepted, ended, made = row.take(self._ended)
            counts["new_tokens"] += made
            drafted, right = drafted + len(row.given.drafts), right + accepted
            if ended:
                self._outbox.append(self._complete(row.given.sequence))
            else:
                self.scheduler.shorten(row.given.sequence)
        self._totals.drafts.add(drafted, right, verified.draft_s, verified.verify_s)
        self._count_decode(verified.draft_s + verified.verify_s)

    def _ended(self, sequence: Sequence, token: int) -> bool:
        """Whether its last token has ended it. Most rows have not, and that is to cost little."""
        looked = token in sequence.ends or len(sequence.tokens) >= sequence.limit or sequence.watched
        return looked and self._endings.reason(sequence) is not None

    def _count_decode(self, seconds: float) -> None:
        counts = self._totals.counts
        counts["decode_s"] += seconds
        self._totals.time_prefills()
        counts["decode_bytes"] += self.runner.take_bytes()

    def stats(self) -> dict[str, float]:
        """See ``Totals``."""
        return self._totals.stats(self.runner, self.scheduler, self._copy_rate)

    # -- finishing -----------------------------------------------------------------------------------

    def _guide(self, sequence: Sequence) -> str | None:
        """Gives a sequence its guide, if it needs one; why that cannot be."""
        request = sequence.request
        if request.sampling.structure is not None:
            try:
                sequence.guide = self._guides.make(request.sampling.structure, request.progress.tokens)
            except ConfigError as error:
                return str(error)
        return None

    def _complete(self, sequence: Sequence) -> Delta:
        reason = self._endings.reason(sequence)
        assert reason is not None
        self._sequences.pop(sequence.request.id)
        if sequence.slot >= 0:
            self.scheduler.finish(sequence)
        error = sequence.guide.error if reason == "error" and sequence.guide is not None else None
        return sequence.complete(self._endings.text(sequence), reason, error)

    def _strand(self, sequence: Sequence) -> Delta:
        self._sequences.pop(sequence.request.id)
        self.scheduler.remove(sequence)
        held = self.runner.capacity.cached or sequence.cached
        error = f"the chain outgrew the cache at {held} tokens: raise engine.kv_memory"
        return sequence.complete(self._endings.text(sequence), "error", error)
