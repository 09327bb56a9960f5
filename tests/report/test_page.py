"""The report in a headless Chromium, where there is one: no errors, filters, viewer, map, themes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from analysis.made_runs import EVIL, keep_inputs, make_sweep

from seer_ray.report.html import make_report
from seer_ray.results.store import open_store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        keep_inputs(patch)
        runs = [str(path) for path in make_sweep(folder / "runs")]
        make_report(runs, title=EVIL).write(open_store(str(folder)))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The report, open and ready. Whatever it says on the console, or asks of the network, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, said = context.new_page(), list[str]()
    opened.set_default_timeout(10_000)
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready]", timeout=20_000)
    yield opened
    assert opened.evaluate("window.evil") is None
    context.close()
    assert said == []


def ids(page: Any) -> list[str]:
    """Problems in the table, in order."""
    return page.locator("#table .id").all_inner_texts()


def open_chain(page: Any, problem: str, place: int = 0) -> None:
    page.locator("#table tbody tr", has=page.get_by_text(problem, exact=True)).locator(".dot").nth(
        place
    ).click()


def test_every_problem_is_there(page: Any) -> None:
    assert page.title() == EVIL
    shown = ids(page)
    assert shown[0].startswith("</script><script>") and shown[1:] == [f"p{n}" for n in range(12) if n != 1]
    assert page.locator("#table .dot").count() == 12 * 2 * 5
    assert page.locator("#count").inner_text() == "12 problems"
    assert page.locator("#more").is_hidden()
    heads = page.locator("#table td.problem small").all_inner_texts()
    assert heads[1].startswith("… x0."), "what all prompts begin with is left out"


def test_filters_and_orders(page: Any) -> None:
    page.select_option("#outcome", "error")
    assert ids(page) == ["p2"]
    page.select_option("#outcome", "length")
    assert ids(page) == ["p3"]
    page.select_option("#outcome", "map")
    assert len(ids(page)) == 2 and ids(page)[1] == "p0"
    page.select_option("#outcome", "all")
    page.fill("#search", "compute X7.")
    assert ids(page) == ["p7"], "words in any case, all of them"
    page.fill("#search", "no such words")
    assert ids(page) == []
    assert page.locator("#count").inner_text() == "0 of 12 problems"
    page.fill("#search", "")
    page.select_option("#sort", "hard")
    hard = ids(page)
    page.select_option("#sort", "easy")
    assert sorted(hard) == sorted(ids(page)) and hard[0] == "p2" and ids(page)[0] != "p2"
    page.select_option("#sort", "split")
    assert ids(page)[-1] != ids(page)[0]
    page.select_option("#setting", label="quest 48")
    assert page.locator("#table .dot").count() == 12 * 2
    assert page.locator("#table thead th").all_inner_texts()[-1] == "quest 48"


def test_right_wrong_and_disagreeing_follow_the_dots(page: Any) -> None:
    dots = {
        name: page.locator("#table tbody tr").nth(row).locator(".dot").all_inner_texts()
        for row, name in enumerate(ids(page))
    }
    for outcome, holds in {
        "right": lambda signs: "✓" in signs,
        "wrong": lambda signs: bool({"✗", "∅", "!"} & set(signs)),
        "disagree": lambda signs: "✓" in signs and set(signs) != {"✓"},
    }.items():
        page.select_option("#outcome", outcome)
        assert ids(page) == [name for name, signs in dots.items() if holds(signs)], outcome


def test_columns_of_the_dataset_are_filters(page: Any) -> None:
    names = page.locator("#inputs label").all_inner_texts()
    assert [name.split("\n")[0] for name in names] == ["subject", "level"], "not the one of as many values"
    whole = page.locator("#shares").inner_text()
    page.select_option("[data-input=subject]", "geometry")
    page.select_option("[data-input=level]", "2")
    assert ids(page)[1:] == ["p7"] and page.locator("#count").inner_text() == "2 of 12 problems"
    some = page.locator("#shares").inner_text()
    assert some != whole and "% of 4" in some and "% of 24" in whole


def test_a_problem_opens_on_a_sparse_setting_with_dense_beside_it(page: Any) -> None:
    page.get_by_role("button", name="p0", exact=True).click()
    one, other = page.locator("[data-side=one]"), page.locator("[data-side=other]")
    assert one.locator(".side-name").inner_text().startswith("quest 48, sample 0")
    assert other.locator(".side-name").inner_text().startswith("dense, sample 0")
    assert one.locator("canvas").is_visible() and other.locator("canvas").is_visible()
    same = [side.locator(".same").text_content() for side in (one, other)]
    texts = [side.locator(".chain").text_content().replace("⟂ here they part ", "") for side in (one, other)]
    assert same[0] == same[1] and all(text.startswith(same[0]) for text in texts)
    assert texts[0][len(same[0])] != texts[1][len(same[0])], "the very place"
    assert f"same for {len(same[0])} characters" in page.locator("#parting").inner_text()
    page.keyboard.press("ArrowRight")
    assert other.locator(".side-name").inner_text().startswith("dense, sample 0")
    page.select_option("#beside", "")
    assert not other.is_visible() and page.locator("#parting").inner_text() == ""


def test_the_address_names_the_chain(page: Any, page_file: Path) -> None:
    page.get_by_role("button", name="p4", exact=True).click()
    where = page.evaluate("location.hash")
    assert where == "#chain/p4/quest%2096/0/dense/0" == page.locator("#link").get_attribute("href")
    page.keyboard.press("Escape")
    sync_api.expect(page).to_have_url(page_file.as_uri())
    page.evaluate("location.hash = '#chain/p5/seer%2048/1'")
    page.wait_for_selector("#viewer[open]")
    assert page.locator("#viewer-title").inner_text() == "p5"
    assert "seer 48, sample 1" in page.locator("#facts").inner_text()
    page.reload()
    page.wait_for_selector("#viewer[open]")
    assert page.locator("#viewer-title").inner_text() == "p5"


def test_viewer_marks_the_answer_and_goes_on(page: Any) -> None:
    open_chain(page, "p4")
    viewer = page.locator("#viewer")
    assert page.locator("#viewer-title").inner_text() == "p4"
    answer = page.locator("#facts div", has_text="answer").locator("dd").first.inner_text()
    marked = page.locator("[data-side=one] .chain mark.answer")
    assert marked.count() == 1 and marked.inner_text() == answer
    assert page.locator("[data-side=one] .chain").inner_text().endswith(f"\\boxed{{{answer}}}.")
    assert not page.locator("[data-side=one] .map").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() == "p5"
    page.keyboard.press("ArrowLeft")
    page.locator("#picks .dot").nth(3).click()
    assert "quest 96, sample 1" in page.locator("#facts").inner_text()
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_a_chain_that_is_html_is_text(page: Any) -> None:
    page.locator("#table tbody tr").first.locator(".dot").nth(1).click()
    assert page.locator("[data-side=one] .chain").inner_text().startswith("</script><script>window.evil = 1")
    assert page.locator("#viewer img, #viewer script").count() == 0
    assert EVIL in page.locator("#prompt pre").text_content()


def test_searched_words_are_marked_in_the_chain(page: Any) -> None:
    page.fill("#search", "x1 answer")
    open_chain(page, "p5")
    assert page.locator("[data-side=one] .chain mark.found").count() > 1


def cells(page: Any) -> list[str]:
    """Colours of the map's canvas along its middle."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector("[data-side=one] canvas"), {width, height} = canvas;
          const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
          context.drawImage(canvas, 0, 0);
          return [...Array(60).keys()].map((i) => context.getImageData(
            width * (0.08 + i * 0.015) | 0, height * 0.3 | 0, 1, 1).data.join());
        }"""
    )


def drawn(page: Any) -> None:
    """Wait until the page has drawn what it was told: the frame that was due, and the one after it."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_map_shows_layers_heads_steps_and_zooms(page: Any) -> None:
    open_chain(page, "p0", place=4)  # quest 48
    sync_api.expect(page.locator("[data-side=one] [data-map=layer] option").nth(1)).to_be_attached()
    canvas, tip = page.locator("[data-side=one] canvas"), page.locator("[data-side=one] .tip")
    assert page.locator("[data-side=one] [data-map=layer] option").count() == 7
    assert page.locator("[data-side=one] [data-map=head] option").count() == 3
    everything = cells(page)
    assert len(set(everything)) > 2
    page.select_option("[data-side=one] [data-map=layer]", "0")
    assert len(set(cells(page))) < len(set(everything)), "the first layer is dense: one colour"
    page.select_option("[data-side=one] [data-map=layer]", "3")
    page.select_option("[data-side=one] [data-map=head]", "1")
    one_head = cells(page)
    assert one_head != everything
    canvas.hover(position={"x": 700, "y": 60})
    said = tip.inner_text()
    assert said.startswith("Step ") and "of 1 heads" in said and "blocks: 0" in said
    page.mouse.wheel(0, -600)
    drawn(page)
    assert cells(page) != one_head
    canvas.dblclick(position={"x": 300, "y": 60})
    page.mouse.move(5, 5)
    drawn(page)
    assert cells(page) == one_head, "a double click shows all again"
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("Step 1 made")


def test_the_map_counts_as_the_trace_does(page: Any, page_file: Path) -> None:
    from seer_ray.results.folder import RunFolder

    trace = RunFolder.view(str(page_file.parent / "runs" / "quest-48")).read_selection(("p0", 0)).trace
    open_chain(page, "p0", place=4)
    sync_api.expect(page.locator("[data-side=one] [data-map=layer] option").nth(1)).to_be_attached()
    page.locator("[data-side=one] canvas").focus()
    page.keyboard.press("ArrowRight")
    for step, seen in enumerate(trace.steps()):
        if step in (1, 2, 3):
            assert seen is not None
            said = page.locator("[data-side=one] .tip").inner_text()
            assert f"Step {step} made" in said
            assert f"read {seen.any((1, 2)).sum()} of {len(seen)} blocks" in said
            assert f"read by {seen[0].sum()} of 12 heads" in said
            page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_both_themes_fit_wide_and_narrow(browser: Any, page_file: Path, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light = "getComputedStyle(document.querySelector('.wide')).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg.plot text')).fill"
    hints = page.locator(".scrolls:visible").count()
    assert hints == (2 if width == 400 else 0), "a table that goes on to the right says so"
    before = page.evaluate(light), page.evaluate(ink)
    assert (before[0] == "rgb(255, 255, 255)") == (scheme == "light")
    page.click("#theme")
    after = page.evaluate(light), page.evaluate(ink)
    assert after[0] != before[0] and after[1] != before[1], "plots follow the theme too"
    page.close()
