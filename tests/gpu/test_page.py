"""The page that a run on a GPU ends with; needs none."""

from __future__ import annotations

from gpu.page import page


def test_the_page_says_what_ran_what_failed_and_how_fast() -> None:
    step = {
        "batch": 16,
        "context": 32768,
        "budget": 4096,
        "ms_per_step": {"dense": 20.0, "seer": 8.0, "generate": 90.0},
        "floor_ms": {"dense": 16.0, "seer": 6.0},
        "of_floor": {"dense": 0.8, "seer": 0.75},
    }
    report = {
        "checks": 400,
        "check_seconds": 90,
        "launches": {"seer": {"layer": 13.0, "beside": 40.0, "captured": 1.0}},
        "engine": {"decode": [step]},
    }
    lines = page(report, {"attend x": "AssertionError far off"}).splitlines()
    assert "ran: 400 checks in 90 s, engine" in lines
    assert lines[lines.index("failed: 1") + 1] == "  attend x: AssertionError far off"
    assert "launches, seer: 13 a layer, 40 beside; 100% of steps captured" in lines
    assert "  seer: 8.0 ms, floor 6.0 ms, 75% of it" in lines and "generate" not in "".join(lines)


def test_a_run_of_nothing_has_a_page() -> None:
    assert "ran: nothing" in page({}, {})
