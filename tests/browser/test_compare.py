"""Compare and Try as a person meets them: blind, by keys, over a reload, while the app is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import make_store, run_now, train_round_0, wait_for
from labelling import (
    COMPARING,
    GUARD_MS,
    open_page,
    open_tab,
    reload,
    shown_pair,
    until,
    wait_for_comparison,
    wait_for_images,
    watched,
)
from playwright.sync_api import Browser, Page, Route, expect

from annotator import jobs, looks
from annotator.rows import Match
from annotator.store import Store
from benchmarks.running_app import App
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.runfolder import RunFolder

pytestmark = pytest.mark.browser
BOTH = Match(one=0, two=None)


def trained(folder: Path) -> Store:
    """A project with round 0, and five comparisons of it with base."""
    store = make_store(folder)
    train_round_0(store)
    run_now(store, looks.compare(store, BOTH, 5, by="ann"))
    return store


@pytest.fixture
def store(home: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = trained(home / request.node.name[:60])
    yield store
    store.close()


def open_at(page: Page, app: App, project: str, tab: str) -> None:
    open_page(page, f"{app.address}/?project={project}")
    open_tab(page, tab)
    page.wait_for_selector(f".sail-{tab.lower()}[data-mounted]")


def open_compare(page: Page, app: App, store: Store) -> None:
    open_at(page, app, store.name, "Compare")
    assert wait_for_comparison(page)


def choose(page: Page, key: str) -> str:
    before = shown_pair(page, COMPARING)
    page.keyboard.press(key)
    return wait_for_comparison(page, other_than=before)


def values(store: Store) -> list[str]:
    return [row["value"] for row in store.comparison_history()]


def test_comparisons_are_answered_by_keys_and_the_figure_comes_at_the_end(
    app: App, store: Store, page: Page
) -> None:
    open_compare(page, app, store)
    expect(page.get_by_test_id("result")).to_have_count(0)
    choose(page, "1")
    choose(page, "ArrowRight")
    undone = shown_pair(page, COMPARING)
    choose(page, "0")
    page.keyboard.press("z")
    page.wait_for_function("id => document.querySelector('.sail-compare').dataset.pair === id", arg=undone)
    page.wait_for_timeout(GUARD_MS)
    choose(page, "ArrowDown")
    choose(page, "s")
    expect(page.get_by_test_id("compare-progress")).to_have_text("4 of 5")
    expect(page.get_by_test_id("result")).to_have_count(0)
    page.get_by_test_id("compare-image-left").click()
    wait_for(lambda: len(values(store)) == 7)
    assert values(store) == ["left", "right", "tie", "undo", "tie", "skip", "left"]
    (tally,) = store.tallies(BOTH)
    assert (tally.wins + tally.losses, tally.ties) == (3, 1)
    expect(page.get_by_test_id("result")).to_have_text("Too few answers to tell yet.")
    counts = [f"{tally.wins} round 0", "1 tie", f"{tally.losses} base"]
    expect(page.get_by_test_id("result-share").locator("span")).to_have_text(counts)
    expect(page.get_by_test_id("result-figures")).to_contain_text("more answers would tell.")
    for over in ("compare-announcement", "compare-blind"):
        expect(page.get_by_test_id(over)).to_be_hidden()
    assert store.counts().labelled == 5


def test_nothing_on_the_page_tells_which_image_is_which(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    shown = page.get_by_test_id("compare-desk").evaluate("section => section.outerHTML")
    for word in ("base", "Base", "round", "Round", "adapter", *(one.sha256[:8] for one in store.rounds())):
        assert word not in shown
    addresses = [
        page.locator(f'[data-testid="compare-image-{side}"] img').get_attribute("src")
        for side in ("left", "right")
    ]
    assert all(address and "/images/" in address and "00000" not in address for address in addresses)


def test_who_asks_sees_the_figure_early_and_that_is_kept(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    expect(page.get_by_test_id("show-result")).to_be_hidden()
    choose(page, "2")
    page.get_by_test_id("show-result").click()
    expect(page.get_by_test_id("early-result")).to_contain_text("Too few answers to tell yet.")
    page.keyboard.press("1")
    page.get_by_role("button", name="Go on comparing").click()
    expect(page.get_by_test_id("early-result")).to_be_hidden()
    assert values(store) == ["right"]
    assert [event["payload"] for event in store.events() if event["kind"] == "comparison_result_asked"] == [
        {"one": 0, "two": None, "answered": 1}
    ]


def test_comparisons_wait_in_the_browser_while_the_app_is_away_and_undo_works_after_a_reload(
    app: App, store: Store, page: Page
) -> None:
    open_compare(page, app, store)
    choose(page, "1")
    wait_for(lambda: values(store) == ["left"])
    wait_for_images(page, 8)
    page.route("**/api/**", lambda route: route.abort())
    second = choose(page, "2")
    third = choose(page, "0")
    expect(page.get_by_test_id("compare-unsent")).to_have_text("2 unsent")
    page.unroute("**/api/**")
    expect(page.get_by_test_id("compare-unsent")).to_be_hidden(timeout=60_000)
    assert values(store) == ["left", "right", "tie"]
    reload(page)
    open_tab(page, "Compare")
    assert wait_for_comparison(page) == third
    page.keyboard.press("z")
    wait_for(lambda: values(store) == ["left", "right", "tie", "undo"])
    assert store.comparison_history()[-1]["comparison"] == second


def test_an_answer_that_is_refused_is_said_and_not_sent_for_ever(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)

    def refuse(route: Route) -> None:
        uid = (route.request.post_data_json or {})["answers"][0]["uuid"]
        route.fulfill(json={"acknowledged": [], "refused": {uid: "This comparison was never shown to you."}})

    page.route("**/comparisons/answers", refuse)
    choose(page, "1")
    page.get_by_text("A comparison was not kept: This comparison was never shown to you.").wait_for()
    expect(page.get_by_test_id("compare-unsent")).to_be_hidden()
    assert values(store) == []


def test_what_another_tab_sent_is_not_said_to_be_unsent(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    page.route("**/comparisons/answers", lambda route: route.abort())
    choose(page, "1")
    expect(page.get_by_test_id("compare-unsent")).to_have_text("1 unsent")
    open_page(page.context.new_page(), f"{app.address}/?project={store.name}")
    expect(page.get_by_test_id("compare-unsent")).to_be_hidden()
    assert values(store) == ["left"]


def test_another_tab_asks_again_once_the_app_has_the_last_answer(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    for _ in range(4):
        choose(page, "1")
    wait_for(lambda: len(values(store)) == 4)
    other = page.context.new_page()
    open_compare(other, app, store)
    held: list[Route] = []
    page.route("**/comparisons/answers", lambda route: held.append(route))
    page.keyboard.press("2")
    expect(other.get_by_test_id("compare-message")).to_have_text("Sending the last answers…")
    until(page, lambda: bool(held))
    held.pop().abort()
    page.unroute("**/comparisons/answers")
    expect(other.get_by_test_id("result")).to_be_visible()


def test_undo_in_another_tab_takes_back_the_last_comparison(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    choose(page, "1")
    wait_for(lambda: len(values(store)) == 1)
    other = page.context.new_page()
    open_compare(other, app, store)
    choose(page, "2")
    expect(other.get_by_test_id("compare-announcement")).to_have_text("Answered in another tab.")
    other.keyboard.press("z")
    expect(other.get_by_test_id("compare-announcement")).to_have_text("Took back: right.")
    page.keyboard.press("z")
    expect(page.get_by_test_id("compare-announcement")).to_have_text("Took back: left.")
    wait_for(lambda: values(store) == ["left", "right", "undo", "undo"])


def test_without_a_round_there_is_nothing_to_compare_and_base_to_try(app: App, page: Page) -> None:
    open_at(page, app, "first", "Compare")
    page.get_by_role("heading", name="Nothing to compare yet").wait_for()
    open_tab(page, "Try")
    expect(page.get_by_test_id("try-rounds").locator("label")).to_have_text(["Base"])
    expect(page.get_by_role("slider", name="Strength of the rounds 0 is base")).to_be_visible()
    error, submit = page.get_by_test_id("try-error"), page.get_by_test_id("try-submit")
    submit.click()
    prompt = page.get_by_test_id("try-prompt")
    expect(prompt).to_have_accessible_description("There is no prompt. Write what the images should show.")
    expect(prompt).to_be_focused()
    page.get_by_test_id("try-prompt").fill("a fox")
    seed = page.get_by_test_id("try-seed")
    for typed, said in (("", "Noise seed is missing."), ("-1", "Noise seed must be at least 0.")):
        seed.fill(typed)
        page.get_by_test_id("try-prompt").press("Enter")
        submit.click()
        expect(seed).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".sail-fault")).to_have_text(said)
    seed.fill("3")
    expect(page.locator(".sail-fault")).to_have_count(0)
    page.get_by_test_id("try-base").uncheck()
    submit.click()
    expect(error).to_have_text("Nothing is chosen to draw with. Choose base or a round.")


def test_a_try_says_what_it_waits_for_and_can_be_taken_back(app: App, store: Store, page: Page) -> None:
    # A run that still holds its folder: nothing else may start.
    before = jobs.draw(store, 2, by="ann")
    folder = RunFolder(store.run_folder(before))
    store.record_run_event(before.id, "started")
    with folder.lock():
        Progress(folder).stage("draw", 40)
        open_at(page, app, store.name, "Try")
        asked: list[str] = []
        page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
        page.get_by_test_id("try-prompt").fill("a fox <b>here</b>")
        page.get_by_test_id("try-prompt").evaluate(
            """(one) => {
                const press = (repeat) => ({ key: 'Enter', repeat, bubbles: true, cancelable: true });
                for (const repeat of [false, true, false])
                    one.dispatchEvent(new KeyboardEvent('keydown', press(repeat)));
            }"""
        )
        waiting = page.get_by_test_id("tries").locator(".sail-run")
        expect(waiting).to_contain_text("Waits its turn, since one run is done at a time.")
        expect(waiting).to_contain_text("Now: Drawing pairs · 0 of 40.")
        page.get_by_role("heading", name="a fox <b>here</b>").wait_for()
        # Held, and pressed twice, Enter asks once.
        assert len([url for url in asked if url.endswith("/tries")]) == 1
        expect(page.get_by_test_id("try-error")).to_have_text("")
        waiting.get_by_role("button", name="Leave the queue").click()
        expect(page.get_by_test_id("tries")).to_contain_text("Taken out of the queue before it began.")
    assert [run.what for run in store.runs() if run.job == "try"] == ["withdrawn"]


def test_both_tabs_fit_360_pixels_and_answer_to_touch(app: App, store: Store, browser: Browser) -> None:
    run_now(store, looks.try_prompt(store, "a fox", [None, 0], strength=1, count=2, noise_seed=0, by="ann"))
    small = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "color_scheme": "dark"}
    with watched(browser, **small) as page:
        open_page(page, f"{app.address}/?project={store.name}")
        page.evaluate("async () => (await import('/ui/core.js')).openTab('compare')")
        wait_for_comparison(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_test_id("compare-image-left").tap()
        wait_for(lambda: values(store) == ["left"])
        page.evaluate("async () => (await import('/ui/core.js')).openTab('try')")
        expect(page.get_by_test_id("tries").locator("img")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_no_round_is_said_to_be_better_where_there_is_hardly_a_difference(
    app: App, store: Store, page: Page
) -> None:
    open_compare(page, app, store)
    for _ in range(5):
        choose(page, "0")
    expect(page.get_by_test_id("result")).to_be_visible()
    expect(page.get_by_test_id("compare-draw")).to_be_visible()
    expect(page.get_by_role("button", name="current in Rounds")).to_have_count(0)
    expect(page.get_by_test_id("compare-export")).to_have_count(0)


def test_each_image_that_was_tried_is_downloaded_under_a_name_that_says_what_it_is(
    app: App, store: Store, page: Page
) -> None:
    run_now(
        store, looks.try_prompt(store, "a fox/cat", [None, 0], strength=1, count=1, noise_seed=3, by="ann")
    )
    open_at(page, app, store.name, "Try")
    expect(page.get_by_test_id("try-starter")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Round 0, image 1").click()
    assert download.value.suggested_filename == "a fox-cat, Round 0, noise seed 3, 1.png"


def test_the_starter_says_which_words_it_knows(app: App, page: Page, root: Path, home: Path) -> None:
    model = ModelRef(source=str(root / "data" / "starter"))
    Store.create(home / "of starter", model=model, prompts=["a fox"], by="ann").close()
    open_at(page, app, "of starter", "Try")
    expect(page.get_by_test_id("try-starter")).to_contain_text("40 subjects")
    page.get_by_test_id("try-prompt").fill("a fox in the snow")
    expect(page.get_by_test_id("try-strange")).to_have_text("It does not know: in, the, snow.")
    page.get_by_test_id("try-prompt").fill("a fox")
    expect(page.get_by_test_id("try-strange")).to_be_hidden()


def test_all_that_comparing_takes_fits_the_window(app: App, store: Store, page: Page) -> None:
    open_compare(page, app, store)
    larger = page.get_by_test_id("compare-larger")
    for width, height in ((1280, 800), (1366, 768), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        expect(larger).to_have_attribute("aria-pressed", "false")
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        page.keyboard.press("e")
        expect(larger).to_have_attribute("aria-pressed", "true")
        for name in ("compare-one", "compare-larger"):
            expect(page.get_by_test_id(name)).to_be_in_viewport(ratio=1)
        page.keyboard.press("e")
