"""A headless Chromium, with pages in desktop and phone width."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

INSTALL = "no Chromium is installed (Debian, Ubuntu: apt-get install chromium; elsewhere: playwright install chromium)"
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 30_000  # milliseconds; a page takes two seconds


@pytest.fixture(scope="module")  # module scope: while the browser exists, its event loop runs in this thread
def browser() -> Iterator[Browser]:
    """A Chromium browser. With CI_BROWSER=required, its absence is an error."""
    with sync_playwright() as playwright:
        program = _program(playwright.chromium)
        if program is None:
            if os.environ.get("CI_BROWSER") == "required":
                raise FileNotFoundError(INSTALL)
            pytest.skip(INSTALL)
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]  # allows root in a container to start it
        with playwright.chromium.launch(executable_path=program, args=flags) as running:
            yield running


@pytest.fixture
def desk(browser: Browser) -> Iterator[Page]:
    """A page of desktop width."""
    yield from _page(browser, DESK)


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A page of phone width."""
    yield from _page(browser, PHONE)


def _page(browser: Browser, size: dict[str, int]) -> Iterator[Page]:
    """Yields an empty page with a new profile."""
    with browser.new_context(viewport=size) as context:
        context.set_default_timeout(PATIENCE)
        yield context.new_page()


def _program(kind: BrowserType) -> str | None:
    """Returns the first Chromium on the path, or else that of playwright."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    return next(found, None) or (kind.executable_path if Path(kind.executable_path).exists() else None)
