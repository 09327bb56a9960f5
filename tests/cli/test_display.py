"""What a person sees, at 80 columns and in logs."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from rich.console import Console
from rich.panel import Panel

from seer_ray.analysis.metrics import summarise
from seer_ray.cli.display.follow import PLAIN_INTERVAL
from seer_ray.cli.display.run import RunView, live_panel, print_summary
from seer_ray.status.live import LiveStats, Summary

BIG = LiveStats(
    total=1_234_567,
    done=999_999,
    errors=1234,
    running=512,
    queued=234_056,
    new_tokens=9_876_543_210,
    tokens_per_s=123_456.7,
    accuracy=0.41667,
    accuracy_se=0.0142,
    accuracy_low=0.389,
    accuracy_high=0.445,
    mean_attended=4096.0,
    sparsity=0.9381,
    workers_ready=126,
    workers_starting=2,
    workers_wanted=128,
    elapsed_s=86_401.0,
    eta_s=3_599.0,
    resumed=500_000,
    phase="decoding",
)


def shown(item: Summary | Panel, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(width=width, file=out)
    if isinstance(item, Summary):
        print_summary(console, item)
    else:
        console.print(item)
    return out.getvalue()


@pytest.mark.parametrize("live", [LiveStats(), LiveStats(total=1, phase="loading data"), BIG])
@pytest.mark.parametrize("title", ["x", "registers-a-model-with-a-very-long-name-quest256-1a2b3c4d" * 3])
def test_panel_keeps_its_shape(live, title):
    lines = shown(live_panel(title, live)).splitlines()
    assert len(lines) == 9
    assert {len(line) for line in lines} == {80}


def test_panel_tells_everything():
    text = shown(live_panel("mine", BIG))
    for part in (
        "999,999 of 1,234,567 rows 81%",
        "24:00:01 · about 59:59 left · 500,000 rows done before",
        "123,457 tokens/s · 9,876,543,210 tokens so far",
        "41.7 % (38.9 to 44.5), 95 % interval",
        "4,096 KV tokens read per head and token · 93.8 % skipped",
        "512 running · 234,056 waiting · 1,234 errors",
        "126 of 128 ready · 2 starting",
        "decoding",
    ):
        assert part in text


def test_summary_lines_that_one_copies_are_whole():
    folder = "s3://a-bucket/with/quite/a/long/prefix/for/the/runs/registers-smollm2-quest256-1a2b3c4d"
    uri = "sqlite:////home/somebody/with/a/long/path/to/the/place/where/the/project/lies/mlflow.db"
    told = {"elapsed_s": 75.0, "tracking_uri": uri, "next_commands": ["seer-ray run selector=dense"]}
    summary = Summary("mine", folder, **told, metrics={"accuracy/avg": 0.5}, rows=16, resumed=4)
    lines = [line.rstrip() for line in shown(summary).splitlines()]
    assert f"results      {folder}/completions/*.parquet" in lines
    assert f"MLflow       mlflow ui --backend-store-uri {uri}" in lines
    assert "next         seer-ray run selector=dense" in lines
    assert "rows         16, 4 of them from before, in 1:15" in lines
    assert not any("error" in line for line in lines)


def test_a_served_mlflow_is_opened_by_its_address():
    text = shown(Summary("mine", "runs/mine", rows=2, resumed=2, tracking_uri="http://mlflow:5000"))
    assert "MLflow       http://mlflow:5000\n" in text
    assert "rows         2, all from before, in 0:00" in text


def test_summary_text_is_not_markup():
    assert "[/red]" in shown(Summary("[/red]", "runs/[b]x"))


def test_plain_lines_come_in_time_and_on_events():
    now, out, result = [0.0], io.StringIO(), io.StringIO()
    consoles = Console(file=out, width=80), Console(file=result, width=80)
    reporter = RunView().follower(*consoles, "mine", lambda: now[0])
    reporter.start(LiveStats(total=3, phase="starting workers"))
    for second in range(1, 25):
        now[0] = float(second)
        reporter.update(LiveStats(total=3, done=second // 8, phase="decoding", elapsed_s=second))
    reporter.note("worker 2 died [1 of 3]")
    reporter.finish(Summary("mine", "runs/mine", metrics={"accuracy/avg": 0.5}, rows=3))
    lines = out.getvalue().splitlines()
    assert lines[0] == "mine" and "starting workers · 0/3 rows" in lines[1]
    times = [line.split()[0] for line in lines[2:-1]]
    assert times == ["0:01", f"0:{1 + PLAIN_INTERVAL:02.0f}", f"0:{1 + 2 * PLAIN_INTERVAL:02.0f}"]
    assert lines[-1] == "note: worker 2 died [1 of 3]"
    assert "50.0 %" in result.getvalue() and "50.0 %" not in out.getvalue()


def test_plain_lines_leave_out_what_is_not_known():
    out = io.StringIO()
    RunView().follower(Console(file=out, width=80), None, "mine").start(
        LiveStats(total=1, workers_wanted=1, phase="loading")
    )
    assert out.getvalue().splitlines()[1].strip() == "0:00  loading · 0/1 row · 0/1 worker"


def test_a_terminal_gets_the_panel_and_its_cursor_back():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    reporter = RunView().follower(console, None, "mine")
    reporter.start(BIG)
    reporter.note("worker 2 died")
    reporter.update(BIG)
    reporter.close()
    reporter.close()
    assert "worker 2 died" in out.getvalue()
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


def test_a_summary_tells_the_metrics():
    rows = [
        {
            "problem_id": problem,
            "sample": sample,
            "extracted_answer": answer,
            "correct": correct,
            "score": None,
            "in_form": None,
            "error": None,
            "finish_reason": reason,
            "prompt_tokens": 10,
            "completion_tokens": tokens,
            "thinking_tokens": tokens // 2,
            "thinking_forced": tokens == 500,
            "attended_kv": 25,
            "available_kv": 100,
            "drafted": None,
            "accepted": None,
            "draft_kv": None,
            "queued_s": 0.0,
            "prefill_s": 0.0,
            "first_token_s": 0.0,
            "decode_s": 1.0,
            "preemptions": 0,
            "attempts": 1,
            "selector": "2L:seer64b16",
        }
        for problem, sample, answer, correct, reason, tokens in [
            ("a", 0, "1", True, "stop", 100),
            ("a", 1, None, False, "length", 500),
            ("b", 0, "2", False, "stop", 200),
            ("b", 1, "3", None, "stop", 200),
        ]
    ]
    metrics = summarise(pa.Table.from_pylist(rows).to_batches())
    text = shown(Summary("mine", "runs/mine", metrics=metrics, rows=4, elapsed_s=1.0))
    found = {
        line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in text.splitlines() if "  " in line
    }
    assert found["avg@2"].startswith("33.3 % (") and found["avg@2"].endswith("), 95 % interval")
    assert found["pass@2"] == "100.0 %" and "pass@1" not in found
    assert found["majority@2"] == "50.0 %"
    assert found["ungraded"] == "1 row, not counted above"
    assert found["no answer"] == "25.0 % of the completions"
    assert found["length"] == "250 tokens on average, 500 at most · 25.0 % cut off at the limit"
    assert found["thinking"] == "125 tokens on average · 25.0 % ended at the budget"
    assert found["attention"] == "45 KV tokens read per head and token · 75.0 % skipped"


def test_a_summary_tells_errors_by_kind_and_accuracy_by_group():
    kinds = [
        {"kind": "engine", "reason": "the prompt is too long", "rows": 4, "examples": ("a/0", "a/1", "b/0")},
        *(
            {"kind": "worker", "reason": f"reason {letter}", "rows": 1, "examples": (f"{letter}/0",)}
            for letter in "defghi"
        ),
    ]
    groups = [
        {"column": "subject", "value": "Algebra", "rows": 8, "accuracy": 1.0, "low": 0.676, "high": 1.0},
        {"column": "subject", "value": "Geometry", "rows": 2, "accuracy": None, "low": None, "high": None},
    ]
    text = shown(Summary("mine", "runs/mine", rows=20, errors=10, error_kinds=kinds, groups=groups))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "engine: the prompt is too long (4: a/0, a/1, b/0, …)" in lines and "and 2 other kinds" in lines
    assert "Algebra 8 100.0 % (67.6 to 100.0)" in lines and "Geometry 2 not graded" in lines
