"""Reports of runs that the writers made: what the page says, carries and escapes."""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from analysis.made_runs import BLOCK, EVIL, HEADS, LAYERS, make_run, make_sweep

from seer_ray.analysis.comparison import attended_by_layer, compare
from seer_ray.config.errors import ConfigError
from seer_ray.engine.trace import Trace, TraceEncoder
from seer_ray.report import style
from seer_ray.report.drawing import colour
from seer_ray.report.embed import fit, natural
from seer_ray.report.html import Report, make_report
from seer_ray.report.plots import draw
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import open_store

SETTINGS = ["dense", "quest 96", "quest 48", "seer 96", "seer 48"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five settings, each a run folder."""
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def report(sweep: Path) -> Report:
    return make_report([str(path) for path in sorted(sweep.iterdir())], title=f"A sweep {EVIL}")


def unpack(html: str) -> dict[str, Any]:
    """The data of a page."""
    (found,) = re.findall(r'<script type="text/plain" id="data">([^<]*)</script>', html)
    return json.loads(zlib.decompress(base64.b64decode(found)))


def maps(html: str) -> list[bytes]:
    found = re.findall(r'<script type="text/plain" id="map-(\d+)">([^<]*)</script>', html)
    assert [int(number) for number, _ in found] == list(range(len(found)))
    return [zlib.decompress(base64.b64decode(data)) for _, data in found]


def test_the_page_carries_every_chain(report: Report, sweep: Path) -> None:
    data = unpack(report.html)
    assert [setting["name"] for setting in data["settings"]] == SETTINGS
    ids = [problem["id"] for problem in data["problems"]]
    assert ids == [EVIL, *(f"p{n}" for n in range(12) if n != 1)], "p2 comes before p10"
    for setting, folder in zip(
        data["settings"], ("dense", "quest-96", "quest-48", "seer-96", "seer-48"), strict=True
    ):
        rows = RunFolder.view(str(sweep / folder)).read().to_pylist()
        chains = setting["chains"]
        assert len(chains["p"]) == len(rows) == 24
        for row in rows:
            where = (ids.index(row["problem_id"]), row["sample"])
            place = list(zip(chains["p"], chains["s"], strict=True)).index(where)
            assert chains["t"][place] == row["completion"]
            assert data["prompts"][chains["q"][place]] == row["prompt"]
            assert chains["a"][place] == row["extracted_answer"]
            assert chains["n"][place] == row["completion_tokens"]
    verdicts = dict(
        zip(
            zip(*(data["settings"][0]["chains"][c] for c in "ps"), strict=True),
            data["settings"][0]["chains"]["k"],
            strict=True,
        )
    )
    assert verdicts[ids.index("p2"), 0] == "error"
    assert verdicts[ids.index("p3"), 1] == "none"
    assert set(verdicts.values()) >= {"right", "error", "none"}


def test_nothing_in_a_run_can_leave_its_place(report: Report) -> None:
    html = report.html
    assert "<script>window" not in html and "<img" not in html
    assert html.count("<script") == html.count("</script>")
    scripts = re.findall(r"<script([^>]*)>", html)
    assert scripts.count("") == 1, "one script of ours"
    assert all(s == "" or s.startswith(' type="text/plain" id="') for s in scripts)
    assert "&lt;/script&gt;&lt;script&gt;" in html, "the title is there, as text"
    assert not re.findall(
        r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html.replace("http://www.w3.org", "")
    )
    assert "default-src 'none'" in html


def test_summary_and_table_say_what_the_comparison_found(report: Report) -> None:
    html = report.html
    (recommendation,) = report.comparison.recommendations
    assert recommendation.sentence.split(":")[0] in html
    for one in report.comparison.runs:
        assert f"</span>{one.name}</span>" in html
        assert one.accuracy is not None
        assert f"{100 * one.accuracy.value:.1f} %<small>{100 * one.accuracy.low:.1f} to" in html
    assert "12 problems · 2 samples each · 5 settings" in html
    for assessment in recommendation.assessments:
        assert f">{assessment.keeps}</span>" in html


def test_the_same_rows_give_the_same_files(report: Report, sweep: Path, tmp_path: Path) -> None:
    names = report.write(open_store(str(tmp_path)))
    again = make_report(
        [str(path) for path in sorted(sweep.iterdir(), reverse=True)], title=f"A sweep {EVIL}"
    )
    assert unpack(again.html)["problems"] == unpack(report.html)["problems"]
    again.write(open_store(str(tmp_path / "again")))
    for name in names:
        assert (tmp_path / name).stat().st_size > 0
        if name.endswith((".svg", ".png")):
            assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_every_plot_is_there_as_png_and_svg_in_the_page(report: Report, tmp_path: Path) -> None:
    report.write(open_store(str(tmp_path)))
    names = {plot.name for plot in report.plots}
    assert names >= {
        "accuracy-by-budget",
        "accuracy-by-reads",
        "difference",
        "length-drift",
        "lengths",
        "layers",
    }
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{n}.{k}" for n in names for k in ("png", "svg")
    }
    for plot in report.plots:
        assert plot.png.startswith(b"\x89PNG")
        ElementTree.fromstring(plot.svg)
        inlined = style.inline(plot.svg, plot.name)
        ElementTree.fromstring(inlined.replace("xlink:href", "href"))
        assert inlined in report.html
        assert not re.search(r"#1c2430|#5b6675", inlined), "ink follows the theme"
        targets = set(re.findall(r'(?:href="|url\()#([^")]+)', inlined))
        assert targets <= set(re.findall(r'\bid="([^"]+)"', inlined))
    ids = re.findall(r'\bid="([^"]+)"', report.html)
    assert len(ids) == len(set(ids)), "ids are unique on the page"


def test_thinking_budgets_are_a_map_and_lines(tmp_path: Path) -> None:
    for selector, skill in (("dense", 0.8), ("quest", 0.7)):
        for thinking in (60, 90, 1000):
            make_run(tmp_path, selector, 48, skill=skill * thinking / (thinking + 40), thinking=thinking)
    comparison = compare([str(path) for path in sorted(tmp_path.iterdir())])
    plots = {plot.name: plot for plot in draw(comparison)}
    assert plots.keys() >= {"accuracy-by-thinking", "both-budgets"} and "accuracy-by-budget" not in plots
    both = plots["both-budgets"].svg
    assert all(f">{text}</text>" in both for text in ("dense", "quest 48", "60", "90", "1,000"))
    for run in comparison.runs:
        assert run.accuracy and f"{100 * run.accuracy.value:.1f}" in both
    ElementTree.fromstring(style.inline(both, "both-budgets").replace("xlink:href", "href"))


def test_a_selector_has_one_colour_everywhere(report: Report) -> None:
    by_selector: dict[str, set[str]] = {}
    for one in report.comparison.runs:
        by_selector.setdefault(one.selector, set()).add(colour(one))
    assert all(len(colours) == 1 for colours in by_selector.values())
    assert len({colour for colours in by_selector.values() for colour in colours}) == 3
    assert style.colour("a new one") == style.colour("a new one")


def test_reads_by_layer_are_those_of_the_rows(report: Report) -> None:
    for one in report.comparison.runs:
        assert one.layers is not None and one.attended_share is not None
        assert one.layers[0] == pytest.approx(1.0)
        assert np.mean(one.layers) == pytest.approx(one.attended_share), (
            "each layer has an equal part of what there is"
        )


def test_maps_are_the_recorded_selections(report: Report, sweep: Path) -> None:
    data, packed = unpack(report.html), maps(report.html)
    assert len(packed) == len(data["maps"]) == 2 * 5
    for about in data["maps"]:
        folder = RunFolder.view(str(sweep / SETTINGS[about["setting"]].replace(" ", "-")))
        recording = folder.read_selection((data["problems"][about["problem"]]["id"], about["sample"]))
        assert (about["layers"], about["heads"], about["block"]) == (LAYERS, HEADS, BLOCK)
        assert (about["merged"], about["stride"], about["missing"]) == (False, 1, [])
        assert about["tokens"] == list(recording.tokens)
        found = unflip(packed[about["map"]], recording.trace, HEADS, 1)
        for ours, theirs in zip(found, recording.trace.steps(), strict=True):
            assert theirs is not None and (ours == theirs).all()


def unflip(data: bytes, trace: Trace, heads: int, stride: int) -> list[np.ndarray]:
    """As the page's script reads a map."""
    bits, at, found = np.zeros(0, np.uint8), 0, []
    for step in range(0, len(trace.entries), stride):
        blocks, layers = trace.blocks(step), trace.shape[0]
        size = -(-blocks * layers * heads // 8)
        flips = np.frombuffer(data[at : at + size], np.uint8).copy()
        flips[: len(bits)] ^= bits
        bits, at = flips, at + size
        found.append(
            np.unpackbits(bits, count=blocks * layers * heads).astype(bool).reshape(blocks, layers, heads)
        )
    assert at == len(data)
    return found


def test_a_map_that_is_too_large_merges_heads_then_leaves_steps_out() -> None:
    noise, encoder = np.random.default_rng(0), TraceEncoder(4)
    seen = [noise.random(((9 + step) // 4 + 1, 3, 4)) < 0.3 for step in range(200)]
    entries = [encoder.add(one) for one in seen]
    entries[7] = b""  # not recorded
    encoder = TraceEncoder(4)
    entries[8:] = [encoder.add(one) for one in seen[8:]]
    trace = Trace(10, entries)
    sizes = [10**9]
    for heads, stride in ((4, 1), (1, 1), (1, 2)):
        limit = sizes[-1] - 1
        data, about = fit(trace, limit)
        assert (about["heads"], about["stride"], about["merged"]) == (heads, stride, heads == 1)
        assert len(data) <= limit
        sizes.append(len(data))
        found = unflip(zlib.decompress(base64.b64decode(data)), trace, heads, stride)
        assert about["missing"] == ([7] if stride == 1 else [])
        for step, ours in zip(range(0, 200, stride), found, strict=True):
            if step != 7:
                assert (ours == (seen[step] if heads > 1 else seen[step].any(2, keepdims=True))).all()


def test_a_small_page_cuts_texts_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "quest", 48, problems=8, evil=random.Random(0).randbytes(25_000).hex(), record=1)
    whole, small = make_report([str(run)]), make_report([str(run)], limit=12_000)
    assert len(small.html) < len(whole.html)
    assert "shown without their middle" in small.html and "shown without their middle" not in whole.html
    texts = unpack(small.html)["settings"][0]["chains"]["t"]
    assert max(map(len, texts)) < 7_000
    assert any("characters left out" in text and text.endswith("}.") for text in texts), "answers stay"
    assert max(map(len, unpack(whole.html)["settings"][0]["chains"]["t"])) > 50_000


def test_a_page_that_cannot_hold_all_chains_has_those_of_some_problems(tmp_path: Path) -> None:
    """Figures are of all; what has a map is there."""
    run = make_run(tmp_path, "quest", 48, problems=60, evil=random.Random(0).randbytes(500).hex(), record=1)
    recorded = RunFolder.view(str(run)).recorded()
    whole, small = make_report([str(run)]), make_report([str(run)], limit=9_000)
    told = unpack(small.html)
    names = [problem["id"] for problem in told["problems"]]
    assert len(names) < 60 == len(unpack(whole.html)["problems"])
    assert f"Chains of {len(names)} of the 60 problems are on this page" in small.html
    assert (
        {key[0] for key in recorded} <= set(names) == {names[p] for p in told["settings"][0]["chains"]["p"]}
    )
    assert [names[said["problem"]] for said in told["maps"]] == [key[0] for key in recorded]
    assert small.comparison.runs[0].metrics == whole.comparison.runs[0].metrics


def test_one_run_alone_has_tiles_and_no_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path, "seer", 96, problems=5, samples=1)
    report = make_report([str(run)])
    assert report.comparison.recommendations == ()
    assert {plot.name for plot in report.plots} == {"lengths", "layers"}
    assert "of the KV read" in report.html and "Against dense" not in report.html
    assert "5 problems · 1 sample each" in report.html


def test_a_run_without_counts_by_layer_has_no_such_plot() -> None:
    empty = pa.table(
        {"attended_kv_layers": pa.array([None], pa.list_(pa.int64())), "available_kv": [5], "error": [None]}
    )
    assert attended_by_layer(empty.to_batches()) is None
    layers, errors = [[1, 2], None, [9, 9]], [None, None, "lost"]
    mixed = pa.table({"attended_kv_layers": layers, "available_kv": [8, 100, 100], "error": errors})
    assert attended_by_layer(mixed.to_batches()) == (0.25, 0.5)


def test_a_run_without_rows_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, problems=0)
    with pytest.raises(ConfigError, match="has no rows yet"):
        make_report([str(run)])


def test_several_runs_need_the_same_problems(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", problems=3), make_run(tmp_path / "b", "quest", 48, problems=3)
    assert len(compare([str(first), str(second)]).recommendations) == 1


def test_plots_leave_no_state(report: Report) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(report.comparison)
    assert dict(matplotlib.rcParams) == before


def test_natural_order() -> None:
    assert sorted(["p10", "p2", "p", "2", "q1"], key=natural) == ["2", "p", "p2", "p10", "q1"]
