"""A page that is watched, and what a person does on it by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Browser, Page, Request

from annotator.store import Store

GUARD_MS = 260
COMPARING = ".sail-compare"


class watched:  # noqa: N801
    """A page in a context of its own, of all whose pages errors and foreign requests are counted."""

    def __init__(self, browser: Browser, **settings: object) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **settings})  # type: ignore[arg-type]
        # Requests are held back from the start, so that none slips past a route that is added just before it.
        self._context.route("**/nothing-is-here", lambda route: route.abort())
        self._errors: list[str] = []
        self._foreign: list[str] = []
        # Of all its pages: a test may open more.
        self._context.on("weberror", lambda found: self._errors.append(str(found.error)))
        self._context.on("request", self._look)
        self._page = self._context.new_page()

    def _look(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self._foreign.append(request.url)

    def __enter__(self) -> Page:
        return self._page

    def __exit__(self, kind: object, *_: object) -> None:
        self._context.close()
        if kind is None:
            assert self._errors == []
            assert self._foreign == []


def open_page(page: Page, address: str) -> None:
    """Until the scripts of the page are there, whichever tab it opens on."""
    page.goto(address, timeout=120_000)
    _mounted(page)


def reload(page: Page) -> None:
    page.reload()
    _mounted(page)


def _mounted(page: Page) -> None:
    page.wait_for_selector(".sail-label[data-mounted]", state="attached", timeout=120_000)


def look_now(page: Page) -> None:
    """Ask how things stand, as the page does by itself every few seconds."""
    page.evaluate("async () => (await import('/ui/core.js')).poll()")


def values(store: Store) -> list[str]:
    return [row["value"] for row in store.label_history()]


def shown_pair(page: Page, root: str = ".sail-label") -> str:
    return str(page.evaluate("root => document.querySelector(root).dataset.pair", root))


def wait_for_pair(page: Page, *, other_than: str = "", root: str = ".sail-label") -> str:
    """Until a pair other than that one can be answered; '' when there are none left."""
    page.wait_for_function(
        """([root, before]) => {
            const { pair, ready } = document.querySelector(root).dataset;
            return pair === '' || (pair && pair !== before && ready === pair);
        }""",
        arg=[root, other_than],
        timeout=120_000,
    )
    page.wait_for_timeout(GUARD_MS)
    return shown_pair(page, root)


def wait_for_comparison(page: Page, *, other_than: str = "") -> str:
    return wait_for_pair(page, other_than=other_than, root=COMPARING)


def answer(page: Page, key: str) -> str:
    """Answer the pair on the screen and wait for the next; '' when that was the last."""
    before = shown_pair(page)
    page.keyboard.press(key)
    return wait_for_pair(page, other_than=before)


def wait_for_images(page: Page, count: int) -> None:
    """Until so many are here, and the app may go. Of all resources a browser remembers the first 250."""
    page.wait_for_function(
        """count => performance.getEntriesByType('resource')
            .filter((one) => one.name.includes('/images/') && one.responseEnd).length >= count""",
        arg=count,
    )


def press_twice(page: Page, key: str, shown: str, *, then: str = "") -> None:
    """Once more, or another key, the moment that another pair can be seen: `shown` is true then."""
    page.evaluate(
        """async ([key, then, shown]) => {
            const press = (key) =>
                document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            press(key);
            await new Promise((done) => {
                const observer = new MutationObserver(look);
                observer.observe(document.body, { attributes: true, childList: true, subtree: true });
                function look() {
                    if (!eval(shown)) return;
                    observer.disconnect();
                    press(then);
                    done();
                }
                look();
            });
        }""",
        [key, then or key, shown],
    )


def until(page: Page, condition: Callable[[], bool], *, timeout_s: float = 30) -> None:
    """Wait while the page goes on: routes are answered only while Playwright has the word."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        page.wait_for_timeout(50)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
