"""What a worker tells the driver, on its way through Ray."""

from __future__ import annotations

import pickle
from array import array

from fake_engine import make_request

from seer_ray.cluster.report import CHAINS, REPORT, WorkReport, interval
from seer_ray.engine.request import Completion, Counters, Delta, Reading


def test_a_report_comes_as_it_was_sent_but_for_what_the_driver_knows() -> None:
    reading = Reading("a</think>b", "a", "b", 1, None)
    done = Completion(make_request("q"), [1, 2, 3], "text", "stop", None, Counters(6), 2, reading=reading)
    deltas = [
        Delta(
            "p/0",
            [5, 6],
            Counters(7, 9, 0.5, 0.25, 2.0, (3, 4), 0.75, (5, 4), (3, 2), 6),
            trace=[b"t"],
            logprobs=[b"l", b"m"],
        ),
        Delta("q/0", array("i", [3]), Counters(6), done),
        Delta("\ud800/0"),
    ]
    sent = WorkReport(deltas, 3, True, {"steps": 2.0}, "plan", ["q/0"], "refused")
    came = pickle.loads(pickle.dumps(sent))
    assert (came.room, came.busy, came.stats) == (3, True, sent.stats)
    assert (came.plan, came.waiting, came.refused) == ("plan", ["q/0"], "refused")
    first, second, third = came.deltas
    assert (first.request_id, list(first.tokens), first.counters) == ("p/0", [5, 6], deltas[0].counters)
    assert (first.trace, first.logprobs, first.completion) == ([b"t"], [b"l", b"m"], None)
    assert list(second.tokens) == [3] and second.counters == Counters(6)
    assert second.completion.finish_reason == "stop" and second.completion.preemptions == 2
    assert second.completion.reading == reading and not second.completion.tokens
    assert third == Delta("\ud800/0", array("i"), None)


def test_the_more_chains_the_less_often_they_are_told_of() -> None:
    """Of so many the driver is told in a second at most, and of the last ones as often as is wanted."""
    assert interval(1.0, 2, 128) == 1.0 and interval(5.0, 100, 6400) == 5.0
    assert (64000 + 1000 * REPORT) / interval(1.0, 1000, 64000) == CHAINS
    assert interval(1.0, 1000, 300) == 1.0
