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
