from __future__ import annotations

import os
from pathlib import Path

import pytest

from seer_ray.tracking.spool import Sent, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    found = Spool(tmp_path / "tracking")
    found.open_to_append()
    return found


def events(spool: Spool) -> list[object]:
    return [event for event, _ in spool.read(0, 100)]


def test_events_come_back_in_order(spool: Spool) -> None:
    assert events(spool) == []
    for i in range(3):
        spool.append({"i": i, "text": "line\nbreak"})
    first, second, third = spool.read(0, 100)
    assert [event["i"] for event, _ in (first, second, third) if event] == [0, 1, 2]
    assert spool.read(0, 1) == [first]
    assert spool.read(first[1], 100) == [second, third]
    assert spool.unsent() == 3
    spool.save(Sent("t", None, "r", second[1]))
    assert spool.unsent() == 1
    assert Spool(spool.folder).sent() == Sent("t", None, "r", second[1])


def test_half_a_line_is_cut_off(spool: Spool) -> None:
    """The process was killed while it appended."""
    spool.append({"i": 0})
    with spool.path.open("ab") as file:
        file.write(b'{"i": 1, "te')
    assert events(spool) == [{"i": 0}]
    again = Spool(spool.folder)
    again.open_to_append()
    again.append({"i": 2})
    assert events(again) == [{"i": 0}, {"i": 2}]


def test_a_full_disk_leaves_whole_lines(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append({"i": 0})
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:5]))
        with pytest.raises(OSError, match="full"):
            spool.append({"i": 1})
    spool.append({"i": 2})
    assert events(spool) == [{"i": 0}, {"i": 2}]


def test_a_damaged_line_hides_no_other(spool: Spool) -> None:
    spool.append({"i": 0})
    with spool.path.open("ab") as file:
        file.write(b"{broken\n[1]\n")
    spool.append({"i": 1})
    assert events(spool) == [{"i": 0}, None, None, {"i": 1}]


def test_a_note_that_does_not_fit_begins_again(spool: Spool) -> None:
    spool.append({"i": 0})
    spool.save(Sent("t", "u", "r", 10_000))
    assert spool.sent() == Sent("t", "u", "r", 0)
    (spool.folder / "sent.json").write_text('{"target": "t", "off')
    assert spool.sent() == Sent()


@pytest.mark.parametrize("damage", ["a flipped bit", "another run's"])
def test_a_line_that_is_not_as_it_was_written_is_no_event(tmp_path: Path, damage: str) -> None:
    spool = Spool(tmp_path, "a run")
    spool.open_to_append()
    spool.append({"kind": "metrics", "time": 1, "step": 1, "values": {"x": 1.5}})
    spool.append({"kind": "finish", "time": 2, "status": "FINISHED"})
    spool.close()
    whole = [event for event, _ in spool.read(0, 9)]
    assert whole == [
        {"kind": "metrics", "time": 1, "step": 1, "values": {"x": 1.5}},
        {"kind": "finish", "time": 2, "status": "FINISHED"},
    ]
    if damage == "another run's":
        assert [event for event, _ in Spool(tmp_path, "another").read(0, 9)] == [None, None]
    else:
        spool.path.write_bytes(spool.path.read_bytes().replace(b"1.5", b"1.7"))
        assert [event for event, _ in spool.read(0, 9)] == [None, whole[1]]


@pytest.mark.parametrize("damage", ["a flipped bit", "another run's", "no object"])
def test_what_is_sent_is_told_again_where_that_is_not_sure(tmp_path: Path, damage: str) -> None:
    spool, sent = Spool(tmp_path, "a run"), Sent("t", "http://host", "abc", 0)
    spool.path.touch()
    spool.save(sent)
    assert spool.sent() == sent
    file = tmp_path / "sent.json"
    if damage == "another run's":
        spool = Spool(tmp_path, "another")
    else:
        file.write_text(file.read_text().replace("abc", "abd") if damage == "a flipped bit" else "[]")
    assert spool.sent() == Sent()
    file.write_text('{"target": "t", "uri": "http://host", "run_id": "abc", "offset": 0}')
    assert spool.sent() == sent, "of an earlier version"
