"""The documentation pages in light and dark mode, in desktop and phone width. `make docs` builds them."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page

SITE = Path(__file__).parents[3] / "build" / "docs"
PAGES = ("index", "guides/mlflow", "methods/latentbe", "reference/settings")
COLORS = """(selector) => [...document.querySelectorAll(selector)].filter(
  (element) => element.textContent.trim() || element.matches("svg")).slice(0, 300).map((element) => {
  const canvas = document.createElement("canvas").getContext("2d");
  const channels = (color) => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  return [channels(getComputedStyle(element).color), channels(getComputedStyle(document.body).backgroundColor)];
})"""  # noqa: E501


@pytest.fixture(autouse=True)
def site() -> None:
    if not (SITE / "index.html").exists():
        if os.environ.get("CI_BROWSER") == "required":
            raise FileNotFoundError(f"{SITE}: no documentation; `make docs` builds it")
        pytest.skip("no documentation is built (make docs)")


def luminance(color: list[int]) -> float:
    """Returns the relative luminance defined by WCAG 2."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(color: list[int], back: list[int]) -> float:
    low, high = sorted([luminance(color), luminance(back)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_readable_and_no_element_overflows(desk: Page, name: str, scheme: str) -> None:
    desk.emulate_media(color_scheme=scheme)
    desk.goto((SITE / f"{name}.html").as_uri())
    seen = desk.evaluate(COLORS, "article p, article td, article th, article h1, article pre span, article svg.formula")
    assert seen
    assert min(contrast(color, back) for color, back in seen) >= 4.5
    assert (luminance(seen[0][1]) < 0.1) == (scheme == "dark")
    for width in (1280, 390):
        desk.set_viewport_size({"width": width, "height": 844})
        assert desk.evaluate("document.documentElement.scrollWidth <= innerWidth")
    broken = "[...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src)"
    assert desk.evaluate(broken) == []
