from __future__ import annotations

from array import array

import pytest
from fake_engine import FakeEngine, expected_tokens, make_request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seer_ray.cluster.assignments import Assignments, Outcome
from seer_ray.engine.request import Completion, Counters, Delta, Progress, Request
from seer_ray.results.chain import Chain


def ids(requests: list[Request]) -> list[str]:
    return [request.id for request in requests]


def grid(problems: int, samples: int) -> list[Request]:
    return [make_request(f"p{p}", s) for p in range(problems) for s in range(samples)]


def tokens(id: str, *values: int) -> Delta:
    return Delta(id, list(values), Counters(attended_kv=7 * len(values)))


def done(request: Request, values: list[int]) -> Delta:
    return Delta(request.id, values, completion=Completion(request, values, "", "length"))


def test_new_requests_go_out_in_order_and_the_samples_of_a_problem_to_one_worker() -> None:
    assignments = Assignments(grid(4, 4), max_attempts=3)
    assert ids(assignments.dispatch("a", 2, 2)) == ["p0/0", "p0/1"]
    assert ids(assignments.dispatch("b", 4, 2)) == ["p1/0", "p1/1", "p1/2", "p1/3"]  # not p0: it is a's
    assert ids(assignments.dispatch("a", 3, 2)) == ["p0/2", "p0/3", "p2/0"]


def test_a_worker_takes_over_problems_of_others_when_nothing_else_is_left() -> None:
    assignments = Assignments(grid(1, 4), max_attempts=3)
    assert ids(assignments.dispatch("a", 1, 2)) == ["p0/0"]
    assert ids(assignments.dispatch("b", 8, 2)) == ["p0/1", "p0/2"]


def test_no_worker_holds_more_than_its_share() -> None:
    assignments = Assignments(grid(6, 1), max_attempts=3)
    assert len(assignments.dispatch("a", 16, 2)) == 3
    assert not assignments.wants("a", 2)
    assert assignments.wants("a", 1)
    assert len(assignments.dispatch("a", 16, 1)) == 3


def test_chains_that_were_begun_come_first_the_longest_before_all() -> None:
    short = make_request("p1", progress=Progress((5,)))
    long = make_request("p2", progress=Progress((5, 6, 7), Counters(attended_kv=30)))
    assignments = Assignments([make_request("p0"), short, long, make_request("p3")], max_attempts=3)
    first, second = assignments.dispatch("a", 2, 1)
    assert (first, second) == (long, short)


def test_near_the_end_problems_with_long_samples_come_first() -> None:
    assignments = Assignments([*grid(3, 1), make_request("p1", 1), make_request("p2", 1)], max_attempts=3)
    for worker, first in (("a", "p0/0"), ("b", "p1/0"), ("c", "p2/0")):
        assert ids(assignments.dispatch(worker, 1, 3)) == [first]
    assignments.report("b", [tokens("p1/0", 1)])
    assignments.report("c", [tokens("p2/0", 1, 2, 3)])
    assert ids(assignments.dispatch("a", 1, 3)) == ["p2/1"]


def test_a_lost_workers_chains_go_on_where_they_were() -> None:
    assignments = Assignments(grid(2, 1), max_attempts=3)
    assignments.dispatch("a", 2, 1)
    assignments.report("a", [tokens("p1/0", 11, 12)])
    assignments.report("a", [tokens("p1/0", 13)])
    assert assignments.lost("a", "gone") == []
    (again,) = assignments.dispatch("b", 1, 2)
    assert again.id == "p0/0"
    (again,) = assignments.dispatch("c", 1, 2)
    assert again.id == "p1/0"
    assert again.progress == Progress((11, 12, 13), Counters(attended_kv=7))
    (outcome,) = assignments.report("c", [done(again, [14])])
    assert (outcome.worker, outcome.attempts) == ("c", 2)


def test_suspects_are_tried_one_by_one_beside_chains_that_get_on() -> None:
    assignments = Assignments(grid(4, 1), max_attempts=3)
    assignments.dispatch("a", 4, 1)
    assert assignments.lost("a", "gone") == []
    for n in range(3):
        assert ids(assignments.dispatch("b", 4, 1)) == [f"p{n}/0"]
        assert not assignments.wants("b", 1) and assignments.dispatch("b", 4, 1) == []
        assignments.report("b", [tokens(f"p{n}/0", 1)])
    assert ids(assignments.dispatch("b", 4, 1)) == ["p3/0"]
    assert assignments.lost("b", "gone") == []  # p3/0 it is, which has to be alone now
    assert ids(assignments.dispatch("c", 4, 2)) == ["p3/0"]
    assert ids(assignments.dispatch("d", 4, 1)) == ["p0/0", "p1/0", "p2/0"]
    (outcome,) = assignments.lost("c", "gone")
    assert outcome.completion.request.id == "p3/0" and outcome.attempts == 3
    assert assignments.lost("d", "gone") == []


def test_what_got_on_since_it_came_is_no_suspect() -> None:
    """It goes on at once, with others; who came last is tried."""
    assignments = Assignments(grid(4, 1), max_attempts=3)
    assignments.dispatch("a", 3, 1)
    assignments.report("a", [tokens(f"p{n}/0", 1) for n in range(3)])
    assignments.dispatch("a", 1, 1)
    assert [pending.request.id for pending in assignments.suspects("a")] == ["p3/0"]
    assert assignments.lost("a", "gone") == []
    assert ids(assignments.dispatch("b", 4, 1)) == ["p3/0"] and assignments.on_trial("b")
    assert ids(assignments.dispatch("c", 4, 1)) == ["p0/0", "p1/0", "p2/0"]
    assignments.report("c", [tokens(f"p{n}/0", 1) for n in range(3)])
    assert assignments.suspects("c") == [] and assignments.lost("c", "gone") == [], "no request explains it"
    assert ids(assignments.dispatch("d", 4, 1)) == ["p0/0", "p1/0", "p2/0"] and not assignments.on_trial("d")


def test_what_only_waited_in_a_worker_is_no_suspect_the_first_time() -> None:
    assignments = Assignments(grid(4, 1), max_attempts=3)
    assignments.dispatch("a", 4, 1)
    assignments.lost("a", "gone", waiting={"p2/0", "p3/0"})
    assert ids(assignments.dispatch("b", 4, 2)) == ["p0/0"]
    assert ids(assignments.dispatch("c", 4, 2)) == ["p1/0"]
    for worker, request in (("b", "p0/0"), ("c", "p1/0")):
        assignments.report(worker, [tokens(request, 1)])
    assert ids(assignments.dispatch("b", 4, 1)) == ["p2/0", "p3/0"]
    assignments.lost("b", "gone", waiting={"p2/0", "p3/0"})
    assert [len(assignments.dispatch(worker, 4, 1)) for worker in "def"] == [1, 1, 1], "all suspects now"


def test_a_worker_that_goes_with_its_node_blames_nobody() -> None:
    assignments = Assignments(grid(3, 1), max_attempts=1)
    for life in range(5):
        assert len(assignments.dispatch(f"w{life}", 3, 1)) == 3
        assert assignments.lost(f"w{life}", "its node is gone", blameless=True) == []


def test_what_a_lost_worker_still_says_is_ignored() -> None:
    assignments = Assignments(grid(1, 1), max_attempts=3)
    (request,) = assignments.dispatch("a", 1, 1)
    assignments.lost("a", "silent")
    assert assignments.report("a", [done(request, [1])]) == []
    assignments.dispatch("b", 1, 1)
    assert assignments.report("a", [tokens("p0/0", 1)]) == []
    assert assignments.new_tokens == 0
    assert assignments.unfinished == 1


def test_chains_are_kept_up_to_date_as_long_as_they_are_unfinished() -> None:
    begun = make_request("p0", progress=Progress((9,)))
    chains = {"p0/0": Chain(array("i", [9]), attempts=4)}
    assignments = Assignments([begun, *grid(3, 1)[1:]], max_attempts=3, chains=chains)
    requests = assignments.dispatch("a", 3, 1)
    assignments.report("a", [tokens("p0/0", 1), tokens("p1/0", 2)])
    assignments.report("a", [done(requests[1], [3])])
    assignments.report("a", [tokens("p0/0", 2, 3)])
    assert chains["p0/0"].progress == Progress((9, 1, 2, 3), Counters(attended_kv=14))
    assert (chains["p0/0"].attempts, chains["p0/0"].changed) == (5, True)
    assert chains["p1/0"].progress.tokens == (2,), "a chain that is done is not continued"
    assert "p2/0" not in chains, "nothing is known of it"


@pytest.mark.parametrize("max_attempts", [1, 2, 3, 5])
def test_a_request_that_kills_workers_becomes_an_error_row_and_nobody_else(max_attempts: int) -> None:
    assignments = Assignments(
        [make_request("good", s) for s in range(3)] + [make_request("bad")], max_attempts
    )
    outcomes: list[Outcome] = []
    deaths = 0
    for life in range(40):
        worker = f"w{life}"
        while requests := assignments.dispatch(worker, 8, 1):
            held = assignments.held(worker)
            if "bad/0" in held:
                deaths += 1
                outcomes += assignments.lost(worker, "boom")
                break
            for request in requests:
                outcomes += assignments.report(worker, [done(request, expected_tokens(request))])
    assert assignments.unfinished == 0
    errors = {o.completion.request.id: o for o in outcomes if o.completion.finish_reason == "error"}
    assert deaths == max(2, max_attempts), "with others, then alone"
    assert set(errors) == {"bad/0"}
    assert "boom" in str(errors["bad/0"].completion.error)
    assert errors["bad/0"].worker is None
    assert errors["bad/0"].attempts == deaths


@pytest.mark.parametrize("samples", [1, 8])
def test_samples_of_a_convicted_problem_come_last_and_cost_one_worker_each(samples: int) -> None:
    assignments = Assignments([make_request("bad", s) for s in range(samples)] + grid(20, 1), max_attempts=3)
    outcomes: list[Outcome] = []
    deaths = 0
    for life in range(40):
        worker = f"w{life}"
        while requests := assignments.dispatch(worker, 4, 1):
            if any(id.startswith("bad") for id in assignments.held(worker)):
                deaths += 1
                outcomes += assignments.lost(worker, "boom")
                break
            for request in requests:
                outcomes += assignments.report(worker, [done(request, expected_tokens(request))])
    order = [outcome.completion.request.problem for outcome in outcomes]
    assert sorted(order[1:].index(id) for id in set(order[1:])) and order.count("bad") == samples
    assert order[-samples + 1 :] == ["bad"] * (samples - 1) or samples == 1
    assert deaths <= 4 + 2 + (samples - 1)


def test_a_chain_that_gets_on_is_never_given_up() -> None:
    assignments = Assignments([make_request("p", length=50)], max_attempts=2)
    for life in range(30):
        (request,) = assignments.dispatch(f"w{life}", 1, 1)
        assert len(request.progress.tokens) == life
        assignments.report(f"w{life}", [tokens("p/0", life)])
        assert assignments.lost(f"w{life}", "gone") == []


def test_on_trial_a_chain_is_alone_until_its_next_token() -> None:
    assignments = Assignments(grid(3, 1), max_attempts=2)
    assignments.dispatch("a", 1, 1)
    assignments.dispatch("b", 1, 1)
    assignments.lost("a", "gone")
    assert ids(assignments.dispatch("c", 4, 1)) == ["p0/0"]
    assert not assignments.wants("c", 1)
    assert assignments.dispatch("c", 4, 1) == []
    assignments.report("c", [tokens("p0/0", 1)])
    assert assignments.wants("c", 1)
    assert ids(assignments.dispatch("c", 4, 1)) == ["p2/0"]


def test_a_big_job_is_dispatched_in_reasonable_work() -> None:
    """The queue was once sorted at every dispatch: 40,000 requests took minutes."""
    assignments = Assignments(grid(10_000, 4), max_attempts=3)
    sent = 0
    while assignments.queued:
        for worker in ("a", "b"):
            for request in assignments.dispatch(worker, 16, 2):
                sent += 1
                assignments.report(worker, [done(request, [1])])
    assert sent == 40_000


class Machine(RuleBasedStateMachine):
    """Workers come, work and die at any moment; every request ends once, with the tokens it should have."""

    @initialize(
        lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
        samples=st.integers(1, 3),
        max_attempts=st.integers(1, 3),
        begun=st.integers(0, 2),
    )
    def begin(self, lengths: list[int], samples: int, max_attempts: int, begun: int) -> None:
        self.requests = {}
        for p, length in enumerate(lengths):
            for s in range(samples):
                request = make_request(f"p{p}", s, length)
                known = expected_tokens(request)[: min(begun if p % 2 else 0, length - 1)]
                self.requests[request.id] = make_request(f"p{p}", s, length, progress=Progress(tuple(known)))
        self.max_attempts = max_attempts
        self.assignments = Assignments(self.requests.values(), max_attempts)
        self.engines: dict[str, FakeEngine] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.known = {id: len(request.progress.tokens) for id, request in self.requests.items()}
        self.deaths_in_a_row = dict.fromkeys(self.requests, 0)
        self.convicted = {request.problem: False for request in self.requests.values()}
        self.alone: list[str] = []
        self.born = 0

    def take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            id = outcome.completion.request.id
            assert id not in self.outcomes
            assert outcome.completion.request == self.requests[id]
            self.outcomes[id] = outcome
            wanted = expected_tokens(self.requests[id])
            if outcome.completion.finish_reason == "error":
                assert self.deaths_in_a_row[id] >= self.max_attempts or self.convicted[id.partition("/")[0]]
                assert self.alone == [id]
                self.convicted[id.partition("/")[0]] = True
                assert list(outcome.completion.tokens) == wanted[: self.known[id]]
            else:
                assert list(outcome.completion.tokens) == wanted

    @rule()
    def hire(self) -> None:
        self.born += 1
        self.engines[f"w{self.born}"] = FakeEngine(rows=4)

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.engines)))

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def feed(self, data: st.DataObject) -> None:
        worker = self.pick(data)
        wants = self.assignments.wants(worker, len(self.engines))
        requests = self.assignments.dispatch(worker, self.engines[worker].room(), len(self.engines))
        assert wants or not requests
        assert requests or not wants or not self.engines[worker].room()
        for request in requests:
            assert len(request.progress.tokens) == self.known[request.id], "a chain lost tokens"
            self.engines[worker].submit(request)

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), times=st.integers(1, 4))
    def work(self, data: st.DataObject, times: int) -> None:
        worker = self.pick(data)
        for _ in range(times):
            deltas = self.engines[worker].step()
            for delta in deltas:
                self.known[delta.request_id] += len(delta.tokens)
                self.deaths_in_a_row[delta.request_id] = 0
            self.take(self.assignments.report(worker, deltas))

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), unreported=st.integers(0, 3))
    def die(self, data: st.DataObject, unreported: int) -> None:
        worker = self.pick(data)
        for _ in range(unreported):
            self.engines[worker].step()
        del self.engines[worker]
        self.alone = self.assignments.held(worker)
        for suspect in self.assignments.suspects(worker):
            self.deaths_in_a_row[suspect.request.id] += 1
        self.take(self.assignments.lost(worker, "killed"))
        assert self.assignments.held(worker) == []

    @invariant()
    def every_request_is_somewhere(self) -> None:
        if not hasattr(self, "assignments"):
            return
        c = self.assignments
        held = [id for worker in self.engines for id in c.held(worker)]
        assert len(held) == len(set(held)) == c.running
        assert c.queued + c.running == c.unfinished == len(self.requests) - len(self.outcomes)
        for worker in self.engines:
            suspects = [id for id in c.held(worker) if self.deaths_in_a_row[id]]
            assert len(suspects) <= 1, "which of them is it if the worker dies?"
            if suspects and self.deaths_in_a_row[suspects[0]] >= self.max_attempts - 1:
                assert c.held(worker) == suspects

    def teardown(self) -> None:
        """Whatever has happened, the job ends."""
        if not hasattr(self, "assignments"):
            return
        self.hire()
        rounds = 0
        while self.assignments.unfinished:
            rounds += 1
            assert rounds < 500, "nothing moves"
            for worker, engine in self.engines.items():
                for request in self.assignments.dispatch(worker, engine.room(), len(self.engines)):
                    engine.submit(request)
                self.take(self.assignments.report(worker, engine.step()))
        assert set(self.outcomes) == set(self.requests)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestMachine = Machine.TestCase
