"""A real Chromium and a real server. Every page error and every request to another host fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import drawn, make_store
from labelling import open_page, wait_for_pair, watched
from playwright.sync_api import Browser, Page, expect, sync_playwright

from annotator.store import Store
from benchmarks.running_app import App, chromium, start_app

# A busy machine may take its time; what never comes still fails.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as page:
        yield page


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of projects, with one in which nothing is drawn."""
    folder = tmp_path_factory.mktemp("home")
    make_store(folder / "first").close()
    return folder


@pytest.fixture(scope="module")
def app(home: Path) -> Iterator[App]:
    """One app for all tests of a file: it finds each test's own project by its name."""
    app = start_app(home / "first")
    yield app
    app.end()


@pytest.fixture
def project(home: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A project of the test's own."""
    store = make_store(home / request.node.name[:60])
    yield store
    store.close()


@pytest.fixture
def store(project: Store) -> Store:
    """The same with eight pairs to label."""
    drawn(project, 8)
    return project


@pytest.fixture
def label(app: App, store: Store, page: Page) -> Page:
    """The page on those, with a pair that takes answers."""
    open_page(page, f"{app.address}/?project={store.name}")
    wait_for_pair(page)
    return page
