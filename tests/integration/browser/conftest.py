"""A headless Chromium for the tests that ask for it, and pages of it at the width of a desk and of a phone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

INSTALL = "no Chromium is installed (Debian, Ubuntu: apt-get install chromium; elsewhere: playwright install chromium)"
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 30_000  # milliseconds that a page is waited for; it takes two seconds


@pytest.fixture(scope="module")  # of a module only: while it is there, its event loop runs in this thread
def browser() -> Iterator[Browser]:
    """Chromium. CI_BROWSER=required: its absence is an error."""
    with sync_playwright() as playwright:
        program = _program(playwright.chromium)
        if program is None:
            if os.environ.get("CI_BROWSER") == "required":
                raise FileNotFoundError(INSTALL)
            pytest.skip(INSTALL)
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]  # root in a container may start it too
        with playwright.chromium.launch(executable_path=program, args=flags) as running:
            yield running


@pytest.fixture
def desk(browser: Browser) -> Iterator[Page]:
    """A page as wide as a desktop's."""
    yield from _page(browser, DESK)


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A page as wide as a phone's."""
    yield from _page(browser, PHONE)


def _page(browser: Browser, size: dict[str, int]) -> Iterator[Page]:
    """An empty page, of a profile of its own."""
    with browser.new_context(viewport=size) as context:
        context.set_default_timeout(PATIENCE)
        yield context.new_page()


def _program(kind: BrowserType) -> str | None:
    """The first Chromium on the path, or else playwright's own."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    return next(found, None) or (kind.executable_path if Path(kind.executable_path).exists() else None)
