"""A real Chromium and a real server. Every page error and every request to another host fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from annotating import drawn, make_store
from labelling import App, open_page, start_app, watched
from playwright.sync_api import Browser, Page, expect, sync_playwright

from annotator.store import Store

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# A busy machine may take its time; what never comes still fails.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as page:
        yield page


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of projects."""
    folder = tmp_path_factory.mktemp("home")
    make_store(folder / "none").close()
    return folder


@pytest.fixture(scope="module")
def app(home: Path, root: Path) -> Iterator[App]:
    """One app for all tests of a file: it finds each test's own project by its name."""
    app = start_app(root, home / "none")
    yield app
    app.end()


@pytest.fixture
def pairs_to_label(tmp_path: Path, root: Path) -> Iterator[tuple[App, Store]]:
    """An app with eight drawn pairs, and a store of our own to look at what is kept."""
    store = make_store(tmp_path / "p")
    drawn(store, 8)
    app = start_app(root, tmp_path / "p")
    yield app, store
    if app.process.poll() is None:
        app.end()
    store.close()


@pytest.fixture
def open_label(page: Page) -> Callable[[App], Page]:
    def go(app: App) -> Page:
        open_page(page, app.address)
        return page

    return go
