"""Presses that were meant for something else, and what another tab or person did meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotating import decide, drawn, label, proposed, run_now, train_round_0, wait_for
from labelling import (
    answer,
    look_now,
    open_page,
    open_tab,
    press_twice,
    reload,
    shown_pair,
    values,
    wait_for_pair,
)
from PIL import Image
from playwright.sync_api import Dialog, Page, Route, expect

from annotator import jobs
from annotator.store import Store
from benchmarks.running_app import App

pytestmark = pytest.mark.browser

GUARDED_MS = 300
"""A pair takes no answer in its first quarter of a second."""


def test_who_types_their_name_beside_the_field_answers_nothing(label: Page, store: Store) -> None:
    pair = shown_pair(label)
    label.get_by_test_id("name").click()
    dialog = label.get_by_test_id("name-dialog")
    dialog.click(position={"x": 5, "y": 5})
    label.keyboard.type("susan 10")
    label.evaluate("document.activeElement.blur()")
    label.keyboard.type("susan 10")
    label.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert shown_pair(label) == pair and values(store) == []


def test_after_several_undos_a_double_press_is_one_answer(label: Page, store: Store) -> None:
    first = shown_pair(label)
    answer(label, "1")
    second = shown_pair(label)
    answer(label, "1")
    for back in (second, first):
        label.keyboard.press("z")
        wait_for(lambda back=back: shown_pair(label) == back)  # type: ignore[misc]
    press_twice(label, "2", f"document.querySelector('.sail-label').dataset.ready === {second!r}")
    expect(label.get_by_test_id("announcement")).to_contain_text("Too fast")
    label.wait_for_timeout(GUARDED_MS)
    wait_for(lambda: len(values(store)) == 5)
    assert values(store) == ["left", "left", "undo", "undo", "right"] and shown_pair(label) == second


def test_a_label_taken_back_in_one_tab_is_open_in_the_other(label: Page, store: Store) -> None:
    other = label.context.new_page()
    open_page(other, label.url)
    wait_for_pair(other)
    given = [answer(label, "1") for _ in range(8)]
    other.get_by_role("heading", name="All 8 pairs are answered").wait_for()
    wait_for(lambda: len(values(store)) == len(given))
    label.get_by_test_id("undo-last").click()
    back = wait_for_pair(label)
    wait_for(lambda: shown_pair(other) == back)


def test_a_pair_whose_image_never_comes_can_be_skipped(store: Store, app: App, page: Page) -> None:
    held: list[Route] = []
    page.route("**/images/*", lambda route: held.append(route))
    open_page(page, f"{app.address}/?project={store.name}")
    expect(page.get_by_test_id("trouble")).to_contain_text("long in coming")
    for route in held:
        route.continue_()
    page.unroute("**/images/*")
    # What comes after all takes an answer.
    wait_for_pair(page)
    expect(page.get_by_test_id("trouble")).to_be_hidden()
    page.wait_for_timeout(GUARDED_MS)
    page.keyboard.press("2")
    wait_for(lambda: values(store) == ["right"])


def test_a_refusal_that_was_closed_is_said_again_when_the_button_is_pressed_again(
    project: Store, app: App, page: Page
) -> None:
    for pair in drawn(project, 4):
        label(project, pair, "left")
    open_page(page, f"{app.address}/?project={project.name}")
    open_tab(page, "Rounds")
    page.route("**/runs", lambda route: route.abort())
    trouble = page.get_by_test_id("trouble")
    for _ in range(2):
        page.get_by_test_id("next-action").click()
        expect(trouble).to_contain_text("The app does not answer")
        trouble.click()
        expect(trouble).to_be_hidden()


def test_that_the_app_did_not_answer_is_over_once_it_does(project: Store, app: App, page: Page) -> None:
    open_page(page, f"{app.address}/?project={project.name}")
    open_tab(page, "Rounds")
    trouble = page.get_by_test_id("trouble")
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_test_id("next-action").click()
    look_now(page)
    expect(trouble).to_contain_text("The app does not answer")
    page.unroute("**/api/**")
    look_now(page)
    expect(trouble).to_be_hidden()


def test_who_leaves_with_labels_that_no_storage_took_is_asked_first(label: Page, store: Store) -> None:
    label.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    label.route("**/labels*", lambda route: route.abort())
    answer(label, "1")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    label.on("dialog", stay)
    label.close(run_before_unload=True)
    wait_for(lambda: label.evaluate("1") == 1 and asked == ["beforeunload"])
    label.remove_listener("dialog", stay)
    label.unroute("**/labels*")
    label.evaluate("dispatchEvent(new Event('online'))")
    wait_for(lambda: values(store) == ["left"])


def test_larger_images_stay_so_from_pair_to_pair_and_after_a_reload(label: Page, store: Store) -> None:
    def width() -> float:
        box = label.get_by_test_id("image-left").bounding_box()
        assert box is not None
        return box["width"]

    label.set_viewport_size({"width": 1600, "height": 1000})
    small = width()
    label.keyboard.press("e")
    wait_for(lambda: width() > 1.4 * small)
    answer(label, "1")
    assert width() > 1.4 * small
    reload(label)
    wait_for_pair(label)
    wait_for(lambda: width() > 1.4 * small)
    expect(label.get_by_test_id("answer-larger")).to_have_attribute("aria-pressed", "true")
    # Other tabs are as wide as they were.
    open_tab(label, "Setup")
    label.wait_for_function("document.querySelector('.gradio-container').offsetWidth <= 1400")
    open_tab(label, "Label")
    # On a window that turned narrow they are as wide as it, and the way back is there.
    label.set_viewport_size({"width": 500, "height": 900})
    label.get_by_test_id("answer-larger").click()
    expect(label.get_by_test_id("answer-larger")).to_be_hidden()
    expect(label.get_by_test_id("project-select")).to_be_visible()
    label.set_viewport_size({"width": 1600, "height": 1000})
    wait_for(lambda: width() == small)


def test_images_are_seen_as_large_as_they_were_drawn_where_there_is_room(label: Page, tmp_path: Path) -> None:
    def side() -> float:
        box = label.get_by_test_id("image-right").bounding_box()
        assert box is not None and box["x"] + box["width"] <= label.viewport_size["width"]
        return box["width"]

    label.set_viewport_size({"width": 2560, "height": 1440})
    assert side() == 496
    Image.new("RGB", (768, 768)).save(tmp_path / "large.png")
    label.route("**/images/**", lambda route: route.fulfill(path=tmp_path / "large.png"))
    reload(label)
    wait_for_pair(label)
    wait_for(lambda: side() == 768 + 2 * 3)
    label.set_viewport_size({"width": 1280, "height": 800})
    wait_for(lambda: round(side()) == 342)


def test_a_dialog_goes_with_the_tab_that_it_is_on(label: Page) -> None:
    open_tab(label, "Rounds")
    open_tab(label, "Label")
    label.keyboard.press("?")
    expect(label.get_by_test_id("help")).to_be_visible()
    label.go_back()
    expect(label.get_by_test_id("panel-rounds")).to_be_visible()
    # Else nothing could be clicked, and nobody would see why.
    open_tab(label, "Label")
    expect(label.get_by_test_id("help")).to_be_hidden()


def test_the_next_prompt_is_seen_from_its_beginning(label: Page) -> None:
    label.add_style_tag(
        content=".sail-prompt { height: 9px !important; min-height: 0 !important; max-height: 9px; }"
    )
    prompt = label.locator(".sail-label .sail-prompt")
    assert prompt.evaluate("one => { one.scrollTop = 5; return one.scrollTop; }") > 0
    answer(label, "1")
    assert prompt.evaluate("one => one.scrollTop") == 0


def test_that_an_image_could_not_be_loaded_goes_with_its_pair(project: Store, app: App, page: Page) -> None:
    drawn(project, 1)
    page.route("**/images/*", lambda route: route.abort())
    page.goto(f"{app.address}/?project={project.name}")
    page.get_by_text("An image of this pair could not be loaded").wait_for()
    page.wait_for_timeout(GUARDED_MS)
    page.keyboard.press("s")
    expect(page.get_by_test_id("label-message")).to_be_visible()
    expect(page.get_by_test_id("trouble")).to_be_hidden()


def test_comparisons_that_somebody_asked_for_stay_when_a_round_comes(
    project: Store, app: App, page: Page
) -> None:
    train_round_0(project)
    open_page(page, f"{app.address}/?project={project.name}")
    open_tab(page, "Compare")
    page.route("**/comparisons/draw", lambda route: route.abort())
    page.get_by_test_id("compare-draw").click()
    run_now(project, jobs.train(project, by="ann"))
    look_now(page)
    expect(page.get_by_test_id("compare-one").locator("option")).to_have_count(3)
    assert page.get_by_test_id("compare-one").input_value() == "0"


def test_a_double_press_in_the_audit_decides_one_pair(home: Path, app: App, page: Page) -> None:
    store, _ = proposed(home / "audit", 12, audited=False)
    open_page(page, f"{app.address}/?project=audit")
    open_tab(page, "Review")
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(12)
    image = page.get_by_test_id("self-0").locator("img").first
    image.dblclick()
    expect(page.get_by_test_id("review-announcement")).to_contain_text("Too fast")
    expect(page.get_by_test_id("audit-title")).to_have_text("Audit: 1 of 10 decided")
    page.get_by_test_id("review-undo").click()
    expect(page.get_by_test_id("audit-title")).to_have_text("Audit: 0 of 10 decided")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(GUARDED_MS)
    press_twice(page, "1", "true")
    expect(page.get_by_test_id("audit-title")).to_have_text("Audit: 1 of 10 decided")
    expect(page.get_by_test_id("review-announcement")).to_contain_text("Too fast")
    for _ in range(8):
        page.wait_for_timeout(GUARDED_MS)
        page.keyboard.press("1")
    expect(page.get_by_test_id("audit-title")).to_have_text("Audit: 9 of 10 decided")
    page.wait_for_timeout(GUARDED_MS)
    # The pair after the last one is not blind any more.
    press_twice(page, "1", "true")
    expect(page.get_by_test_id("audit-title")).to_contain_text("the model was wrong in")
    page.wait_for_timeout(GUARDED_MS)
    # One a pair, and the first click with its undo.
    assert len(store.review_history()) == 12
    store.close()


def test_in_the_large_view_a_key_decides_the_pair_that_is_seen(home: Path, app: App, page: Page) -> None:
    store, _ = proposed(home / "large", 12, audited=True)
    open_page(page, f"{app.address}/?project=large")
    open_tab(page, "Review")
    card = page.get_by_test_id("self-10")
    card.click()
    page.keyboard.press("Shift+J")
    expect(page.locator("article[data-selected]")).to_have_count(2)
    before = len(store.review_history())
    page.keyboard.press("e")
    large = page.get_by_test_id("enlarged")
    page.keyboard.press("x")
    expect(large).to_contain_text("Dropped.")
    # Another came in its place: a key pressed twice is one decision.
    page.keyboard.press("j")
    expect(large).not_to_contain_text("Dropped.")
    wait_for(lambda: len(store.review_history()) == before + 1)
    store.close()


def test_undo_in_review_leaves_what_somebody_else_decided_since(home: Path, app: App, page: Page) -> None:
    store, run = proposed(home / "undo", 12, audited=True)
    pair = store.review_pairs(run)[10]
    open_page(page, f"{app.address}/?project=undo")
    open_tab(page, "Review")
    card = page.get_by_test_id("self-10")
    card.get_by_role("button", name="Approve").click()
    wait_for(lambda: store.review_history()[-1]["decision"] == "approve")
    decide(store, pair.id, "flip", by="bob")
    look_now(page)
    expect(card).to_have_attribute("data-decision", "flip")
    page.get_by_test_id("review-undo").click()
    expect(page.get_by_test_id("review-announcement")).to_have_text(
        "Something else was decided since. It stays."
    )
    assert store.review_history()[-1]["decision"] == "flip"
    store.close()


def test_a_double_click_where_the_model_contradicts_gives_one_answer(
    project: Store, app: App, page: Page
) -> None:
    page.context.add_cookies([{"name": "sail_person", "value": "ann", "url": app.address}])
    for pair in project.show_pairs([pair.id for pair in drawn(project, 16)], to="ann"):
        label(project, pair, "left")
    run_now(project, jobs.train(project, by="ann"))
    doubted = jobs.doubted_pairs(project, "ann")
    assert len(doubted) > 1
    open_page(page, f"{app.address}/?project={project.name}")
    open_tab(page, "Rounds")
    cards = page.get_by_test_id("doubted-pair")
    expect(cards).to_have_count(len(doubted))
    before = len(values(project))
    # The second pair takes the first one's place.
    page.evaluate(
        """() => {
            const first = () => document.querySelector('[data-testid="doubted-pair"] .sail-decide button');
            first().click();
            first().click();
        }"""
    )
    expect(page.get_by_test_id("trouble")).to_contain_text("Too fast")
    expect(cards).to_have_count(len(doubted) - 1)
    page.wait_for_timeout(GUARDED_MS)
    wait_for(lambda: len(values(project)) > before)
    assert len(values(project)) == before + 1


def test_who_trains_by_key_finds_the_focus_on_the_tab_that_opens(label: Page) -> None:
    label.route("**/runs", lambda route: route.fulfill(json={"id": 1}))
    while answer(label, "1"):
        pass
    train = label.get_by_test_id("train")
    train.focus()
    label.keyboard.press("Enter")
    expect(label.get_by_test_id("panel-rounds")).to_be_visible()
    expect(label.get_by_role("tab", name="Rounds")).to_be_focused()
