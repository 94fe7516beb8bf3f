"""The Label tab as a person meets it: keys, buttons, reload, a server that goes away."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from annotating import SETTINGS, drawn, make_model, make_store, run_now, wait_for
from labelling import (
    answer,
    open_page,
    open_tab,
    reload,
    shown_pair,
    until,
    values,
    wait_for_images,
    wait_for_pair,
    watched,
)
from playwright.sync_api import Browser, Page, Route, expect

from annotator import jobs
from annotator.store import Store
from benchmarks.running_app import App, start_app
from sail.model_ref import ModelRef

pytestmark = pytest.mark.browser

EDGE = "one => getComputedStyle(one).borderTopColor"


def test_every_key_and_every_button_answers(label: Page, store: Store) -> None:
    for key in ("1", "ArrowRight", "0", "9", "s"):
        answer(label, key)
    for name in ("answer-left", "answer-both_bad"):
        before = shown_pair(label)
        label.get_by_test_id(name).click()
        wait_for_pair(label, other_than=before)
    label.get_by_test_id("image-right").click()
    label.get_by_role("heading", name="All 8 pairs are answered").wait_for()
    wait_for(lambda: len(values(store)) == 8)
    assert values(store) == ["left", "right", "tie", "both_bad", "skip", "left", "both_bad", "right"]
    expect(label.get_by_test_id("train")).to_have_text("Train round 0")


def test_before_the_first_answer_rounds_says_that_there_is_none(label: Page) -> None:
    open_tab(label, "Rounds")
    expect(label.get_by_test_id("next")).to_contain_text("No pair is answered yet. 0 of at least")


def test_nothing_jumps_for_who_is_faster_than_the_drawing(label: Page) -> None:
    bar = label.get_by_test_id("label-bar")
    before = bar.bounding_box()
    assert before
    for _ in range(8):
        answer(label, "1")
    expect(label.get_by_test_id("label-message")).to_be_visible()
    after = bar.bounding_box()
    assert after and after["y"] == pytest.approx(before["y"], abs=1)


def test_pairs_that_were_drawn_meanwhile_are_shown(label: Page, store: Store) -> None:
    for _ in range(7):
        answer(label, "1")
    run_now(store, jobs.draw(store, 2, by="ann"))
    answer(label, "1")
    label.wait_for_selector(".sail-label:not([data-pair=''])")
    wait_for(lambda: len(values(store)) == 8)
    expect(label.get_by_test_id("label-progress")).to_contain_text("8 of 10")


def test_how_many_choices_it_takes_to_learn_is_said_until_they_are_made(label: Page, store: Store) -> None:
    progress = label.get_by_test_id("label-progress")
    expect(progress).to_have_text("0 of 8 answered · 2 more choices until it can learn")
    answer(label, "0")
    expect(progress).to_contain_text("1 of 8 answered")
    expect(progress).to_contain_text("2 more choices")
    # Some of what is chosen is held out.
    while store.counts().trainable < 2:
        made = len(values(store))
        answer(label, "1")
        wait_for(lambda made=made: len(values(store)) > made)  # type: ignore[misc]
    expect(progress).not_to_contain_text("it can learn")


def test_all_that_labelling_takes_fits_the_window(label: Page) -> None:
    below = "name => document.querySelector(`[data-testid='${name}']`).getBoundingClientRect().bottom"
    image = label.get_by_test_id("image-left")
    expect(label.get_by_test_id("note-practice")).to_be_visible()
    for width, height in ((1280, 800), (1366, 768), (1440, 900)):
        label.set_viewport_size({"width": width, "height": height})
        usual = image.bounding_box()["width"]
        assert label.evaluate("document.documentElement.scrollHeight") <= height
        label.keyboard.press("e")
        wait_for(lambda height=height: image.bounding_box()["width"] > 0.6 * height)  # type: ignore[misc]
        assert label.evaluate(below, "answer-help") <= height
        expect(label.get_by_role("tab", name="Rounds")).to_be_in_viewport()
        label.keyboard.press("e")
        wait_for(lambda usual=usual: image.bounding_box()["width"] == usual)  # type: ignore[misc]


def test_images_keep_their_size_where_the_window_is_zoomed_or_turned(label: Page) -> None:
    for width, height in ((640, 400), (740, 360)):
        label.set_viewport_size({"width": width, "height": height})
        for _ in range(2):
            sides = [label.get_by_test_id(f"image-{side}").bounding_box() for side in ("left", "right")]
            assert all(side and side["width"] >= 240 for side in sides)
            label.keyboard.press("e")


def test_what_is_chosen_is_seen_in_colours_of_ones_own(app: App, store: Store, browser: Browser) -> None:
    with watched(browser, forced_colors="active") as page:
        open_page(page, f"{app.address}/?project={store.name}")
        wait_for_pair(page)
        page.keyboard.press("e")
        ground = "one => getComputedStyle(one).backgroundColor"
        for chosen, other in (
            ('[data-testid="answer-larger"]', '[data-testid="answer-flip"]'),
            ('[role="tab"][aria-selected="true"]', '[role="tab"][aria-selected="false"]'),
        ):
            expect(page.locator(chosen).first).not_to_have_css(
                "background-color", page.locator(other).first.evaluate(ground)
            )
        before = wait_for_pair(page)
        page.keyboard.press("1")
        wait_for_pair(page, other_than=before)
        page.keyboard.press("t")
        one, two = (
            page.get_by_test_id("reasons").get_by_role("img", name=side) for side in ("left", "right")
        )
        assert one.evaluate(EDGE) != two.evaluate(EDGE)


def test_keys_that_are_not_meant_do_nothing(label: Page, store: Store) -> None:
    pair = shown_pair(label)
    label.keyboard.press("Control+1")
    label.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    label.keyboard.press("1")
    label.evaluate("delete document.hidden")
    label.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', repeat: true}))")
    label.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true}))")
    open_tab(label, "Setup")
    label.get_by_test_id("create-name").wait_for()
    label.keyboard.press("1")
    label.get_by_test_id("create-name").fill("")
    label.get_by_test_id("create-name").press("2")
    open_tab(label, "Label")
    assert label.get_by_test_id("create-name").input_value() == "2"
    assert shown_pair(label) == pair
    assert values(store) == []


def test_a_double_press_is_one_answer(label: Page, store: Store) -> None:
    pair = shown_pair(label)
    label.evaluate(
        "for (let i = 0; i < 3; i++) document.dispatchEvent(new KeyboardEvent('keydown', {key: '1'}))"
    )
    wait_for_pair(label, other_than=pair)
    # The next answer is the next event: what was pressed again is not on its way either.
    answer(label, "2")
    wait_for(lambda: len(values(store)) > 1)
    assert values(store) == ["left", "right"]


def test_labels_wait_in_the_browser_while_the_server_is_gone(tmp_path: Path, page: Page) -> None:
    store = make_store(tmp_path / "p")
    drawn(store, 8)
    app = start_app(store.folder)
    open_page(page, app.address)
    wait_for_pair(page)
    answer(page, "1")
    wait_for(lambda: len(values(store)) == 1)
    wait_for_images(page, 8)
    app.end(signal.SIGKILL)
    answer(page, "2")
    answer(page, "0")
    expect(page.get_by_test_id("unsent")).to_have_text("2 unsent")
    again = start_app(store.folder, port=app.port)
    page.get_by_test_id("unsent").wait_for(state="hidden", timeout=60_000)
    assert values(store) == ["left", "right", "tie"]
    again.end()
    store.close()


def test_labels_in_a_closed_tab_are_sent_by_the_next_one(label: Page, store: Store) -> None:
    label.route("**/labels", lambda route: route.abort())
    answer(label, "2")
    expect(label.get_by_test_id("unsent")).to_have_text("1 unsent")
    assert values(store) == []
    label.unroute("**/labels")
    second = label.context.new_page()
    label.close(run_before_unload=False)
    open_page(second, label.url)
    wait_for(lambda: values(store) == ["right"])


def test_labels_keep_their_order_when_the_clock_is_set_back(label: Page) -> None:
    kept = label.evaluate(
        """async () => {
            const { Outbox } = await import('/ui/outbox.js');
            const { project } = await import('/ui/core.js');
            const id = (letter) => letter.repeat(36);
            const old = `sail.outbox/${project}/001790000000000.000007.${id('z')}`;
            localStorage.setItem(old, JSON.stringify({ uuid: id('z') }));
            let now = 5000;
            Date.now = () => (now -= 1000);
            for (const letter of 'cba') new Outbox('sail.outbox').put({ uuid: id(letter) });
            const answers = new Outbox('sail.outbox').answers();
            localStorage.clear();
            return answers.map((answer) => answer.uuid[0]).join('');
        }"""
    )
    assert kept == "zcba"


def test_undo_after_a_reload_takes_back_what_is_not_sent_yet(label: Page, store: Store) -> None:
    answer(label, "1")
    wait_for(lambda: values(store) == ["left"])
    label.route("**/labels", lambda route: route.abort())
    second = shown_pair(label)
    answer(label, "2")
    label.evaluate("navigator.sendBeacon = () => true")
    reload(label)
    wait_for_pair(label)
    label.keyboard.press("z")
    label.wait_for_function("pair => document.querySelector('.sail-label').dataset.pair === pair", arg=second)
    label.unroute("**/labels")
    wait_for(lambda: values(store) == ["left", "right", "undo"])
    assert store.label_history()[2]["pair"] == second


def test_training_waits_for_labels_that_are_on_their_way(label: Page, store: Store) -> None:
    for _ in range(4):
        answer(label, "1")
    label.get_by_test_id("train-early").wait_for()
    held: list[Route] = []
    labels_when_asked: list[int] = []
    label.route("**/labels", lambda route: held.append(route))
    label.route("**/runs", lambda route: (labels_when_asked.append(len(values(store))), route.abort()))
    answer(label, "2")
    label.get_by_test_id("train-early").click()
    until(label, lambda: len(held) == 1)
    held[0].continue_()
    until(label, lambda: bool(labels_when_asked))
    assert labels_when_asked == [5]


def test_training_is_refused_while_labels_cannot_be_sent(label: Page, store: Store) -> None:
    for _ in range(4):
        answer(label, "1")
    label.get_by_test_id("train-early").wait_for()
    label.route("**/labels", lambda route: route.abort())
    answer(label, "2")
    label.get_by_test_id("train-early").click()
    label.get_by_text("A label is not with the app yet").wait_for()
    assert [run.job for run in store.runs()] == ["draw"]


def test_a_pair_answered_in_one_tab_leaves_the_other(label: Page, store: Store) -> None:
    other = label.context.new_page()
    open_page(other, label.url)
    same = wait_for_pair(other)
    assert shown_pair(label) == same
    answer(label, "1")
    assert wait_for_pair(other, other_than=same) != same
    expect(other.get_by_test_id("announcement")).to_have_text("Answered in another tab.")
    wait_for(lambda: values(store) == ["left"])


def test_undo_takes_back_the_last_answer_in_whichever_tab_it_was_given(label: Page, store: Store) -> None:
    other = label.context.new_page()
    open_page(other, label.url)
    wait_for_pair(other)
    first, second = shown_pair(label), answer(label, "1")
    wait_for_pair(other, other_than=first)
    third = answer(other, "2")
    assert wait_for_pair(label, other_than=second) == third
    for tab, pair, said in ((label, second, "Took back: right."), (other, first, "Took back: left.")):
        before = shown_pair(tab)
        tab.keyboard.press("z")
        assert wait_for_pair(tab, other_than=before) == pair
        expect(tab.get_by_test_id("announcement")).to_have_text(said)
    # None is taken back twice.
    expect(label.get_by_test_id("answer-undo")).to_be_disabled()
    wait_for(lambda: values(store) == ["left", "right", "undo", "undo"])


def test_no_image_looks_chosen_after_a_click_and_undo_says_what_it_took_back(label: Page) -> None:
    first = shown_pair(label)
    expect(label.get_by_test_id("answer-undo")).to_be_disabled()
    label.get_by_test_id("image-right").click()
    wait_for_pair(label, other_than=first)
    assert label.evaluate("document.activeElement === document.body")
    label.keyboard.press("Control+z")
    expect(label.get_by_test_id("announcement")).to_be_visible()
    expect(label.get_by_test_id("announcement")).to_have_text("Took back: right.")


def test_markup_in_a_prompt_and_in_a_project_name_is_text(
    home: Path, app: App, page: Page, tmp_path: Path
) -> None:
    prompts = ["<img src=x onerror=alert(1)><b>bold</b>", "${alert(1)} {{value}}"]
    model = ModelRef(source=str(make_model(tmp_path / "model")))
    store = Store.create(home / "a <b>", model=model, prompts=prompts, settings=SETTINGS, by="ann")
    run_now(store, jobs.draw(store, 1, by="ann"))
    store.close()
    open_page(page, f"{app.address}/?project=a <b>")
    wait_for_pair(page)
    assert page.get_by_test_id("prompt").inner_text() in prompts
    assert page.get_by_test_id("project-select").input_value() == "a <b>"


def test_it_works_at_360_pixels_by_touch_in_the_dark(app: App, store: Store, browser: Browser) -> None:
    small = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with watched(browser, color_scheme="dark", **small) as page:
        open_page(page, f"{app.address}/?project={store.name}")
        wait_for_pair(page)
        page.get_by_test_id("image-left").tap()
        wait_for(lambda: values(store) == ["left"])
        # A phone has no keys, and what the answers mean is said all the same.
        page.get_by_test_id("answer-help").tap()
        help = page.get_by_test_id("help")
        expect(help.get_by_text("Both bad: neither should be learned from")).to_be_visible()
        expect(help.locator("kbd:visible")).to_have_count(0)
        help.get_by_role("button", name="Close").tap()
        for tab in ("label", "setup", "rounds", "review", "export"):
            page.evaluate("async name => (await import('/ui/core.js')).openTab(name)", tab)
            page.wait_for_selector(f".sail-{tab}[data-mounted]")
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def test_two_tabs_may_have_two_projects(home: Path, app: App, store: Store, page: Page) -> None:
    first = Store(home / "first")
    drawn(first, 3)
    open_page(page, app.address)
    assert page.url.endswith("?project=first")
    other = page.context.new_page()
    open_page(other, f"{app.address}/?project={store.name}")
    wait_for_pair(other)
    answer(other, "1")
    wait_for(lambda: values(store) == ["left"])
    assert values(first) == []
    first.close()
