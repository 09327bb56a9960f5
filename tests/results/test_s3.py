"""Runs on a local S3: writers that sleep, die, meet or lose the network at any request."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from results.s3 import Requests, serving
from results.sample import CONFIG, row

import seer_ray
from seer_ray.config.errors import ConfigError
from seer_ray.results import ledger, lock
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import ABSENT, Conflict, open_store
from seer_ray.status.find import jobs_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving() as uri:
        yield uri


@pytest.fixture
def uri(s3: str) -> str:
    return s3.format(f"{uuid.uuid4().hex}/run")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the folder never gives a sign of life, and is taken for gone at once."""
    monkeypatch.setattr(lock, "BEAT", 1000.0)
    monkeypatch.setattr(lock, "STALE", 0.0)


def keys(uri: str) -> Counter[tuple[str, int]]:
    """As we read them, and as whoever reads all parts that are there."""
    table = seer_ray.read(uri, ["problem_id", "sample"]).read_all()
    found = Counter(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    plain: Counter[tuple[str, int]] = Counter()
    import pyarrow.parquet as pq

    store = open_store(uri)
    for name in store.list("completions"):
        part = pq.read_table(store.open(f"completions/{name}"))
        plain.update(zip(part["problem_id"].to_pylist(), part["sample"].to_pylist(), strict=True))
    assert plain == found and all(count == 1 for count in found.values())
    return found


def test_writes_are_conditional(uri: str) -> None:
    store = open_store(uri)
    first = store.put("a", b"1", ABSENT)
    assert store.read_tagged("a") == (b"1", first) and store.tag("a") == first and store.tag("b") == ABSENT
    for tag in (ABSENT, '"other"'):
        with pytest.raises(Conflict):
            store.put("a", b"2", tag)
    with pytest.raises(Conflict):
        store.put("b", b"2", first)
    second = store.put("a", b"22", first)
    assert store.tags() == {"a": second} and store.list() == {"a": 2}
    with store.open("a") as file:
        store.write("a", b"333")
        with pytest.raises(OSError, match="another process has written it"):
            file.read()
    store.delete(["a", "a", "b"])
    assert store.list() == {}
    with pytest.raises(FileNotFoundError):
        store.open("a")


def test_more_than_a_page_is_listed(uri: str, s3: str) -> None:
    store = open_store(uri)
    for number in range(1003):
        store.write(f"many/{number}", b"")
    assert len(store.list("many")) == 1003
    store.delete(f"many/{number}" for number in range(1003))
    assert store.list("many") == {}
    with RunFolder.open(s3.format("named/mine"), CONFIG):
        assert jobs_in(s3.format("named")) == ["mine"]


def test_an_address_that_is_none_is_refused(uri: str) -> None:
    for wrong, said in {"s3://": "no bucket", f"{uri}&colour=red": "?colour"}.items():
        with pytest.raises(ConfigError, match=r"must be s3://bucket/path") as caught:
            open_store(wrong)
        assert said in str(caught.value) and "secret" not in str(caught.value)


Action = Callable[[RunFolder], Any]
ACTIONS: dict[str, Action] = {
    "grow": lambda folder: folder.commit([row("c"), row("d")]),
    "retry": lambda folder: (folder.withdraw([("b", 0)]), folder.commit([row("b"), row("c"), row("d")])),
    "regrade": lambda folder: folder.rewrite("x", lambda rows: rows),
}


def begin(uri: str) -> RunFolder:
    folder = RunFolder.open(uri, CONFIG)
    folder.commit([row("a")])
    folder.commit([row("b", error="died")])
    return folder


@pytest.mark.parametrize("bytes_of_part", [1, 1 << 20])
@pytest.mark.parametrize("kind", ACTIONS)
def test_a_writer_that_wakes_up_after_it_was_taken_over_doubles_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch, kind: str, bytes_of_part: int
) -> None:
    """It sleeps before any of its requests: after it looked at its lock, between entry and part, ..."""
    monkeypatch.setattr(ledger, "PART_BYTES", bytes_of_part)
    for at, other in ((at, other) for at in itertools.count() for other in ACTIONS):
        place = uri.replace("/run?", f"/{at}-{other}?")
        asleep = begin(place)
        woken: list[RunFolder] = []

        def take_over(ask: Callable[[], Any], place=place, other=other, woken=woken) -> Any:
            woken.append(RunFolder.open(place, CONFIG))
            ACTIONS[other](woken[0])
            return ask()

        requests = Requests(asleep.store, at, take_over)  # type: ignore[arg-type]
        try:
            ACTIONS[kind](asleep)
        except (Conflict, ConfigError):
            assert requests.happened
        requests.at = -1
        if requests.happened:
            with pytest.raises(ConfigError, match="taken over by process"):
                asleep.commit([row("z")])
        else:
            asleep.close()
            return
        (owner,) = woken
        # It goes on, whatever it finds.
        there = owner.committed()
        for _ in range(2):
            try:
                owner.commit([row(name) for name in "abcd" if (name, 0) not in owner.committed()])
                break
            except Conflict:
                continue
        assert there <= owner.committed()
        owner.close()
        assert keys(place) == dict.fromkeys([(name, 0) for name in "abcd"], 1), (at, other)


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("kind", ACTIONS)
def test_at_each_request_all_readers_see_the_same_rows(uri: str, kind: str, dies: bool, done: bool) -> None:
    """The answer to a request is lost, or the request, and the process dies, or goes on."""
    for at in itertools.count():
        place = uri.replace("/run?", f"/{at}?")
        folder = begin(place)

        def lose(ask: Callable[[], Any]) -> Any:
            if done:
                ask()
            raise OSError("the network is gone")

        requests = Requests(folder.store, at, lose)  # type: ignore[arg-type]
        try:
            ACTIONS[kind](folder)
            assert not requests.happened
        except OSError:
            assert requests.happened
        requests.at = -1
        found = keys(place)
        assert ("a", 0) in found and (("b", 0) in found or kind == "retry")
        assert (("c", 0) in found) == (("d", 0) in found), "a commit is whole"
        if dies:
            folder = RunFolder.open(place, CONFIG)
        folder.commit([row(name) for name in "abcd" if (name, 0) not in folder.committed()])
        folder.close()
        assert keys(place) == dict.fromkeys([(name, 0) for name in "abcd"], 1)
        if not requests.happened:
            return


def test_of_two_that_open_one_folder_one_has_it(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "STALE", 60.0)
    with (
        RunFolder.open(uri, CONFIG) as folder,
        pytest.raises(ConfigError, match="in use by process"),
    ):
        folder.commit([row("a")])
        RunFolder.open(uri, CONFIG)
    with RunFolder.open(uri, CONFIG) as folder:
        assert folder.committed() == {("a", 0)}
