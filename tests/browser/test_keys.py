"""Keys on any keyboard, the focus after a click, undo to the first label, and images as large as may be."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import drawn, label, make_store, proposed, run_now, train_round_0, wait_for
from labelling import (
    answer,
    open_page,
    open_tab,
    reload,
    until,
    values,
    wait_for_comparison,
    wait_for_images,
    wait_for_pair,
)
from playwright.sync_api import Page, expect

from annotator import looks
from annotator.rows import Match
from annotator.store import Store
from benchmarks.running_app import App, start_app

pytestmark = pytest.mark.browser

UNDO_AT_ONCE = 20
"""So many labels the page is told of when it is loaded."""


def press(page: Page, key: str, code: str) -> None:
    """A key of a keyboard with other letters."""
    page.evaluate(
        """([key, code]) => document.activeElement.dispatchEvent(
            new KeyboardEvent('keydown', { key, code, bubbles: true, cancelable: true }))""",
        [key, code],
    )


@pytest.fixture
def compared(home: Path) -> Iterator[Store]:
    """A project with five comparisons of round 0 with base."""
    store = make_store(home / "compared")
    train_round_0(store)
    run_now(store, looks.compare(store, Match(one=0, two=None), 5, by="ann"))
    yield store
    store.close()


@pytest.fixture
def reviewed(home: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A project with six self pairs for round 1, all decided."""
    store, _ = proposed(home / request.node.name[:60], 6, audited=True)
    yield store
    store.close()


def open_review(page: Page, app: App, store: Store) -> None:
    open_page(page, f"{app.address}/?project={store.name}")
    open_tab(page, "Review")
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(6)


def test_keys_answer_where_other_letters_are_printed_on_them(app: App, store: Store, page: Page) -> None:
    open_page(page, f"{app.address}/?project={store.name}")
    wait_for_pair(page)
    for key, code in (("з", "KeyP"), ("&", "Digit1"), ("ы", "KeyS")):
        press(page, key, code)
    expect(page.get_by_test_id("practice")).to_contain_text("Practice 3 of 3")
    page.keyboard.press("Escape")
    for key, code in (("ы", "KeyS"), ("+", "Digit1"), ("é", "Digit2"), ("1", "Numpad1")):
        before = wait_for_pair(page)
        press(page, key, code)
        wait_for_pair(page, other_than=before)
    press(page, "я", "KeyZ")
    wait_for(lambda: len(values(store)) == 5)
    assert values(store) == ["skip", "left", "right", "left", "undo"]
    # Where letters lie elsewhere they count by what they are.
    press(page, "z", "KeyY")
    wait_for(lambda: len(values(store)) == 6)
    assert values(store)[-1] == "undo"
    # And signs that stand where others have a letter.
    press(page, "?", "KeyM")
    expect(page.get_by_test_id("help")).to_be_visible()


def test_undo_goes_back_to_the_first_label_after_a_reload(app: App, project: Store, page: Page) -> None:
    pairs = drawn(project, UNDO_AT_ONCE + 4)
    open_page(page, f"{app.address}/?project={project.name}")
    wait_for_pair(page)
    person = str(page.evaluate("document.cookie.match(/sail_person=([^;]+)/)[1]"))
    for pair in project.show_pairs([pair.id for pair in pairs], to=person):
        label(project, pair, "left", by=person)
    page.reload()
    # By touch there is no key for it, and the buttons went with the last pair.
    page.get_by_test_id("undo-last").click()
    for given in range(1, len(pairs)):
        until(page, lambda given=given: values(project).count("undo") == given)  # type: ignore[misc]
        page.keyboard.press("z")
    until(page, lambda: values(project).count("undo") == len(pairs))
    assert project.counts().labelled == 0


def test_labels_wait_for_their_own_project_while_another_of_its_name_answers(
    tmp_path: Path, page: Page
) -> None:
    mine, other = make_store(tmp_path / "mine" / "p"), make_store(tmp_path / "other" / "p")
    for store in (mine, other):
        drawn(store, 8)
    app = start_app(mine.folder)
    open_page(page, app.address)
    wait_for_pair(page)
    wait_for_images(page, 6)
    app.end(signal.SIGKILL)
    answer(page, "1")
    answer(page, "2")
    elsewhere = start_app(other.folder, port=app.port)
    expect(page.get_by_test_id("trouble")).to_contain_text(
        "Another project that is called p answers here", timeout=60_000
    )
    # Neither the open page gives them away, nor a new one.
    open_page(page, app.address)
    wait_for_pair(page)
    answer(page, "0")
    wait_for(lambda: values(other) == ["tie"])
    assert values(mine) == []
    expect(page.get_by_test_id("unsent")).to_be_hidden()
    elsewhere.end()
    back = start_app(mine.folder, port=app.port)
    open_page(page, app.address)
    wait_for(lambda: values(mine) == ["left", "right"])
    assert values(other) == ["tie"]
    back.end()
    for store in (mine, other):
        store.close()


def test_space_flips_after_a_click_and_an_arrow_answers_after_a_choice(
    compared: Store, app: App, page: Page
) -> None:
    open_page(page, f"{app.address}/?project=compared")
    open_tab(page, "Compare")
    first = wait_for_comparison(page)
    page.get_by_test_id("compare-left").click()
    wait_for_comparison(page, other_than=first)
    page.keyboard.down(" ")
    expect(page.get_by_test_id("compare-flip")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("2")
    expect(page.get_by_test_id("compare-announcement")).to_contain_text("Let go of Space first")
    page.keyboard.up(" ")
    assert [row["value"] for row in compared.comparison_history()] == ["left"]
    page.keyboard.press("+")
    expect(page.get_by_test_id("compare-scale")).to_have_text("1.5 ×")
    page.keyboard.press("Escape")
    # As by a mouse: pressed on, and another one chosen.
    two = page.get_by_test_id("compare-two")
    two.focus()
    two.dispatch_event("pointerdown")
    two.select_option("0")
    two.select_option("base")
    page.wait_for_selector(".sail-compare:not([data-pair=''])")
    wait_for_comparison(page)
    page.keyboard.press("ArrowRight")
    wait_for(lambda: len(compared.comparison_history()) == 2)
    assert two.input_value() == "base"


def test_decisions_are_sent_by_a_page_on_which_review_was_not_opened(
    reviewed: Store, app: App, page: Page
) -> None:
    before = len(reviewed.review_history())
    open_review(page, app, reviewed)
    page.route("**/reviews", lambda route: route.abort())
    page.evaluate("navigator.sendBeacon = () => true")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_test_id("review-counts")).to_contain_text("1 dropped")
    page.unroute("**/reviews")
    page.goto(f"{app.address}/?project={reviewed.name}&tab=label")
    wait_for(lambda: len(reviewed.review_history()) == before + 1)
    assert reviewed.review_history()[-1]["decision"] == "drop"


def test_a_pair_in_review_is_enlarged_zoomed_and_flipped_and_decided_there(
    reviewed: Store, app: App, page: Page
) -> None:
    before = len(reviewed.review_history())
    open_review(page, app, reviewed)
    large = page.get_by_test_id("enlarged")
    page.keyboard.press("j")
    page.keyboard.press("e")
    expect(large.locator("img")).to_have_count(2)
    left, right = (large.locator("img").nth(at).get_attribute("src") for at in (0, 1))
    page.keyboard.down(" ")
    expect(large.locator("img").nth(0)).to_have_attribute("src", str(right))
    page.keyboard.up(" ")
    expect(large.locator("img").nth(0)).to_have_attribute("src", str(left))
    page.keyboard.press("+")
    expect(large.locator("[data-tool=scale]")).to_have_text("1.5 ×")
    place = "() => document.querySelector('.sail-large .sail-pair').style.getPropertyValue('--x')"
    middle = page.evaluate(place)
    box = large.locator(".sail-image").nth(0).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 200, steps=5)
    page.mouse.move(box["x"] + 100, box["y"] + 200, steps=5)
    page.mouse.up()
    assert float(page.evaluate(place)[:-1]) < float(middle[:-1]) - 5
    # Sides that have changed places decide nothing.
    page.keyboard.down(" ")
    page.keyboard.press("x")
    page.keyboard.up(" ")
    expect(large).to_contain_text("Let go of Space first")
    page.keyboard.press("Escape")
    expect(large.locator("[data-tool=scale]")).to_have_text("")
    assert len(reviewed.review_history()) == before
    # The page's keys decide and move; undo goes back to the pair that it is of.
    page.keyboard.press("x")
    expect(large).to_contain_text("Dropped.")
    page.keyboard.press("j")
    expect(large.locator("img").nth(0)).not_to_have_attribute("src", str(left))
    page.keyboard.press("z")
    expect(large).to_contain_text("Taken back.")
    expect(large.locator("img").nth(0)).to_have_attribute("src", str(left))
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    wait_for(lambda: len(reviewed.review_history()) == before + 2)
    assert [row["decision"] for row in reviewed.review_history()[before:]] == ["drop", "undo"]
    page.get_by_test_id("enlarge").nth(1).click()
    expect(large).to_be_visible()
    page.keyboard.press("Escape")
    # Space scrolls, as nothing has the focus that it could press.
    page.keyboard.press(" ")
    expect(large).to_be_hidden()


def test_letters_digits_and_signs_are_no_keys_for_who_turns_them_off(
    app: App, store: Store, page: Page
) -> None:
    open_page(page, f"{app.address}/?project={store.name}")
    before = wait_for_pair(page)
    page.keyboard.press("?")
    page.get_by_test_id("help").get_by_role("checkbox", name="Single letters").uncheck()
    page.get_by_test_id("help").get_by_role("button", name="Close").click()
    expect(page.get_by_test_id("answer-left")).to_have_text("1 Left")
    for key in ("1", "S", "t", "?", "e", "+"):
        page.keyboard.press(key)
    # Arrows are no letters, and whatever is pressed with Ctrl is meant.
    page.keyboard.press("ArrowLeft")
    before = wait_for_pair(page, other_than=before)
    page.keyboard.press("Control+z")
    wait_for_pair(page, other_than=before)
    reload(page)
    wait_for_pair(page)
    page.keyboard.press("2")
    expect(page.locator(".sail-answers kbd:visible")).to_have_count(0)
    until(page, lambda: len(values(store)) == 2)
    assert values(store) == ["left", "undo"]
    expect(page.get_by_test_id("answer-larger")).to_have_attribute("aria-pressed", "false")
    # In any tab, and where no pair is left that shows Help.
    open_tab(page, "Review")
    page.get_by_test_id("name").click()
    page.get_by_test_id("name-dialog").get_by_role("checkbox").check()
    page.keyboard.press("Escape")
    open_tab(page, "Label")
    page.keyboard.press("2")
    wait_for(lambda: values(store) == ["left", "undo", "right"])


def test_a_decision_in_review_takes_no_letter_where_they_are_no_keys(
    reviewed: Store, app: App, page: Page
) -> None:
    before = len(reviewed.review_history())
    page.add_init_script("localStorage.setItem('sail.keys', 'off')")
    open_review(page, app, reviewed)
    expect(page.locator(".sail-keys:visible")).to_have_count(0)
    page.get_by_test_id("enlarge").first.click()
    for place in ("enlarged", "review-grid"):
        page.keyboard.press("x")
        expect(page.get_by_test_id(place)).to_be_visible()
        page.keyboard.press("Escape")
    page.keyboard.press("x")
    assert "0 dropped" in page.get_by_test_id("review-counts").inner_text()
    assert len(reviewed.review_history()) == before
