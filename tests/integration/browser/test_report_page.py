"""The report in a browser: in desktop and phone width, without network access."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ensdistill_tune.report.document import first_lines, sections
from ensdistill_tune.report.figures import figures
from ensdistill_tune.report.html import as_page
from tests.tiny import TinyStudy
from tests.unit.report.synthetic import facts


@pytest.fixture(params=["desk", "phone"])
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page without network access; the test fails if the page reports an error."""
    opened, faults = request.getfixturevalue(request.param), list[str]()
    opened.context.set_offline(True)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield opened
    assert faults == []


def wait_for_figures(page: Page) -> None:
    """Waits until all figures are drawn; this requires no scrolling."""
    page.locator("html[data-complete]").wait_for(state="attached", timeout=60_000)
    drawn = page.locator(".plot").evaluate_all("all => all.map((plot) => plot.querySelectorAll('.main-svg').length)")
    assert min(drawn) > 0


def test_the_report_shows_the_metrics_of_a_real_study(page: Page, tiny: TinyStudy) -> None:
    page.goto((tiny.home / "report.html").as_uri())
    assert page.title() == "Study tiny"
    rows = list(csv.DictReader((tiny.home / "leaderboard.csv").open()))
    for row in rows:
        if row["rank"]:
            label = f"baseline {row['baseline']}" if row["baseline"] else f"{int(row['trial']):03d}"
            shown = page.locator("h2:text('Leaderboard') ~ .wide").first.locator("tr", has_text=label).first
            assert [f"{float(row[name]):.4f}" in shown.inner_text() for name in ("val/nll", "val/accuracy")] == [
                True
            ] * 2
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    stages = page.locator("h2:text('Confirmation') ~ .wide").nth(1).inner_text()
    assert ["seeds so far" in stages, "undecided" in stages] == [True] * 2
    beside = page.locator("h2:text('Winner and ensemble') ~ .wide").first.inner_text()
    (ensemble,) = [row for row in kept["test"] if row["kind"] == "ensemble"]
    assert f"{ensemble['metrics'][0]['nll']:.4f}" in beside


def test_every_figure_is_drawn_inside_its_box(page: Page, tiny: TinyStudy) -> None:
    page.goto((tiny.home / "report.html").as_uri())
    wait_for_figures(page)
    keys = page.locator("figure").evaluate_all("all => all.map((figure) => figure.id)")
    assert {"history", "curves", "importance", "confirmation", "classes", "confusion"} <= set(keys)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for number in range(page.locator(".plot").count()):
        plot = page.locator(".plot").nth(number)
        assert plot.locator(".main-svg").first.bounding_box()["width"] <= page.viewport_size["width"]


def test_the_text_color_depends_on_the_color_scheme_of_the_browser(page: Page, tiny: TinyStudy) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto((tiny.home / "report.html").as_uri())
    wait_for_figures(page)
    ink = "[...document.querySelectorAll('.plot')].map((plot) => plot.layout.font.color)"
    assert set(page.evaluate(ink)) == {"#e6eaee"}
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{ink}.every((color) => color === '#1d2733')")


PAPER = {"width": 700, "height": 1000}  # pixels of an A4 sheet within its margins


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_printed_report_is_dark_on_white_and_complete_for_any_screen_size(
    desk: Page, tiny: TinyStudy, scheme: str
) -> None:
    desk.set_viewport_size(PAPER)
    desk.emulate_media(color_scheme=scheme)
    desk.goto((tiny.home / "report.html").as_uri())
    wait_for_figures(desk)
    desk.emulate_media(color_scheme=scheme, media="print")
    desk.evaluate("dispatchEvent(new Event('beforeprint'))")
    text, back, card = desk.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor, "
        "getComputedStyle(document.querySelector('figure')).backgroundColor]"
    )
    assert (text, back, card) == ("rgb(29, 39, 51)", "rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    inks = "[...document.querySelectorAll('.plot')].map((plot) => plot.layout.font.color)"
    desk.wait_for_function(f"{inks}.every((color) => color === '#1d2733')")
    wide = ".wide, pre, .plot .main-svg"
    edges = desk.locator(wide).evaluate_all(
        "all => all.map((box) => [box, box.getBoundingClientRect()]).map("
        "([box, at]) => Math.max(at.right, at.left + (box.scrollWidth || 0)))"
    )
    assert max(edges) <= PAPER["width"] + 1


def test_a_report_on_a_thousand_trials_opens_quickly(page: Page, tmp_path: Path) -> None:
    known = facts(1000)
    file = tmp_path / "report.html"
    file.write_text(as_page(known, first_lines(known, [], []), sections(known), figures(known)))
    page.goto(file.as_uri())
    wait_for_figures(page)
    assert page.locator("*").count() < 20_000  # number of elements in the layout


def test_a_table_fits_into_a_desktop_window_and_shows_a_scroll_hint_on_a_phone(page: Page, tiny: TinyStudy) -> None:
    page.goto((tiny.home / "report.html").as_uri())
    page.set_viewport_size({"width": min(1280, page.viewport_size["width"]), "height": 900})
    page.wait_for_function("document.querySelectorAll('.wide').length > 0")
    boxes = page.locator(".wide").evaluate_all(
        "all => all.map((box) => [box.scrollWidth > box.clientWidth + 1, "
        "box.classList.contains('scrolls'), !!box.previousElementSibling?.matches('.hint')])"
    )
    assert [(wide == marked) and (wide == hinted) for wide, marked, hinted in boxes] == [True] * len(boxes)
    assert any(wide for wide, *_ in boxes) == (page.viewport_size["width"] < 1000)


def test_the_gallery_images_are_shown(page: Page, tiny: TinyStudy) -> None:
    page.goto((tiny.home / "report.html").as_uri())
    widths = page.locator(".gallery img").evaluate_all("all => all.map((image) => image.naturalWidth)")
    assert 0 < len(widths) <= 24
    assert set(widths) == {8}  # digits are images of 8x8 pixels
