"""The Label tab as a person meets it: keys, buttons, reload, a server that goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from annotating import SETTINGS, drawn, make_model, make_store, run_now, wait_for
from labelling import App, answer, open_page, open_tab, shown_pair, start_app, until, wait_for_pair, watched
from playwright.sync_api import Browser, Page, Route, expect

from annotator import jobs
from annotator.store import Store
from sail.config import ModelRef

pytestmark = pytest.mark.browser
Labelling = tuple[App, Store]
Opens = Callable[[App], Page]


def values(store: Store) -> list[str]:
    return [row["value"] for row in store.label_history()]


def test_every_key_and_every_button_answers(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    for key in ("1", "ArrowRight", "0", "9", "s"):
        answer(page, key)
    for name in ("answer-left", "answer-both_bad"):
        before = shown_pair(page)
        page.get_by_test_id(name).click()
        wait_for_pair(page, other_than=before)
    page.get_by_test_id("image-right").click()
    page.get_by_role("heading", name="All 8 pairs are answered").wait_for()
    wait_for(lambda: len(values(store)) == 8)
    assert values(store) == ["left", "right", "tie", "both_bad", "skip", "left", "both_bad", "right"]
    expect(page.get_by_test_id("train")).to_have_text("Train round 0")


def test_before_the_first_answer_rounds_says_that_there_is_none(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    page = open_label(pairs_to_label[0])
    open_tab(page, "Rounds")
    expect(page.get_by_test_id("next")).to_contain_text("No pair is answered yet. 0 of at least")


def test_pairs_that_were_drawn_meanwhile_are_shown(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    for _ in range(7):
        answer(page, "1")
    run_now(store, jobs.draw(store, 2, by="ann"))
    answer(page, "1")
    page.wait_for_selector(".sail-label:not([data-pair=''])")
    wait_for(lambda: len(values(store)) == 8)
    assert page.get_by_test_id("label-progress").inner_text().startswith("8 of 10")


def test_undo_works_after_a_reload(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    first = wait_for_pair(page)
    answer(page, "1")
    wait_for(lambda: values(store) == ["left"])
    page.reload()
    page.wait_for_selector(".sail-label[data-mounted]", state="attached")
    wait_for_pair(page)
    page.keyboard.press("z")
    page.wait_for_function("pair => document.querySelector('.sail-label').dataset.pair === pair", arg=first)
    wait_for(lambda: values(store) == ["left", "undo"])
    assert store.counts().labelled == 0


def test_keys_that_are_not_meant_do_nothing(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    pair = wait_for_pair(page)
    page.keyboard.press("Control+1")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.keyboard.press("1")
    page.evaluate("delete document.hidden")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', repeat: true}))")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true}))")
    open_tab(page, "Setup")
    page.get_by_test_id("create-name").wait_for()
    page.keyboard.press("1")
    page.get_by_test_id("create-name").fill("")
    page.get_by_test_id("create-name").press("2")
    open_tab(page, "Label")
    assert page.get_by_test_id("create-name").input_value() == "2"
    assert shown_pair(page) == pair
    assert values(store) == []


def test_a_double_press_is_one_answer(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    pair = wait_for_pair(page)
    page.evaluate(
        "for (let i = 0; i < 3; i++) document.dispatchEvent(new KeyboardEvent('keydown', {key: '1'}))"
    )
    wait_for_pair(page, other_than=pair)
    wait_for(lambda: len(values(store)) > 0)
    assert values(store) == ["left"]


def test_labels_wait_in_the_browser_while_the_server_is_gone(
    pairs_to_label: Labelling, open_label: Opens, root: Path
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    answer(page, "1")
    wait_for(lambda: len(values(store)) == 1)
    app.end(signal.SIGKILL)
    answer(page, "2")
    answer(page, "0")
    expect(page.get_by_test_id("unsent")).to_have_text("2 unsent")
    again = start_app(root, store.folder, app.port)
    page.get_by_test_id("unsent").wait_for(state="hidden", timeout=60_000)
    assert values(store) == ["left", "right", "tie"]
    again.end()


def test_labels_in_a_closed_tab_are_sent_by_the_next_one(
    pairs_to_label: Labelling, browser: Browser, root: Path
) -> None:
    app, store = pairs_to_label
    with watched(browser) as page:
        open_page(page, app.address)
        wait_for_pair(page)
        page.route("**/labels", lambda route: route.abort())
        answer(page, "2")
        expect(page.get_by_test_id("unsent")).to_have_text("1 unsent")
        assert values(store) == []
        page.unroute("**/labels")
        second = page.context.new_page()
        page.close(run_before_unload=False)
        open_page(second, app.address)
        wait_for(lambda: values(store) == ["right"])


def test_labels_keep_their_order_when_the_clock_is_set_back(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, _ = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    kept = page.evaluate(
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


def test_undo_after_a_reload_takes_back_what_is_not_sent_yet(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    answer(page, "1")
    wait_for(lambda: values(store) == ["left"])
    page.route("**/labels", lambda route: route.abort())
    second = shown_pair(page)
    answer(page, "2")
    page.evaluate("navigator.sendBeacon = () => true")
    page.reload()
    page.wait_for_selector(".sail-label[data-mounted]", state="attached")
    wait_for_pair(page)
    page.keyboard.press("z")
    page.wait_for_function("pair => document.querySelector('.sail-label').dataset.pair === pair", arg=second)
    page.unroute("**/labels")
    wait_for(lambda: values(store) == ["left", "right", "undo"])
    assert store.label_history()[2]["pair"] == second


def test_training_waits_for_labels_that_are_on_their_way(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    for _ in range(4):
        answer(page, "1")
    page.get_by_test_id("train-early").wait_for()
    held: list[Route] = []
    labels_when_asked: list[int] = []
    page.route("**/labels", lambda route: held.append(route))
    page.route("**/runs", lambda route: (labels_when_asked.append(len(values(store))), route.abort()))
    answer(page, "2")
    page.get_by_test_id("train-early").click()
    until(page, lambda: len(held) == 1)
    held[0].continue_()
    until(page, lambda: bool(labels_when_asked))
    assert labels_when_asked == [5]


def test_training_is_refused_while_labels_cannot_be_sent(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    for _ in range(4):
        answer(page, "1")
    page.get_by_test_id("train-early").wait_for()
    page.route("**/labels", lambda route: route.abort())
    answer(page, "2")
    page.get_by_test_id("train-early").click()
    page.get_by_text("Some labels are not with the app yet").wait_for()
    assert [run.job for run in store.runs()] == ["draw"]


def test_a_setting_changed_in_another_tab_is_not_overwritten(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    open_tab(page, "Setup")
    steps = page.get_by_test_id("setting-optimisation.steps")
    expect(steps).to_have_value("6")
    changed = store.project().settings.model_copy(update={"num_candidates": 5})
    store.set_settings(changed, by="bob")
    steps.fill("9")
    page.get_by_test_id("settings-submit").click()
    page.get_by_text("Saved.").wait_for()
    settings = store.project().settings
    assert (settings.optimisation.steps, settings.num_candidates) == (9, 5)
    expect(page.get_by_test_id("setting-num_candidates")).to_have_value("5")


def test_a_pair_answered_in_one_tab_leaves_the_other(pairs_to_label: Labelling, open_label: Opens) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    wait_for_pair(page)
    other = page.context.new_page()
    open_page(other, app.address)
    same = wait_for_pair(other)
    assert shown_pair(page) == same
    answer(page, "1")
    assert wait_for_pair(other, other_than=same) != same
    expect(other.get_by_test_id("announcement")).to_have_text("Answered in another tab.")
    wait_for(lambda: values(store) == ["left"])


def test_no_image_looks_chosen_after_a_click_and_undo_says_what_it_took_back(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, _ = pairs_to_label
    page = open_label(app)
    first = wait_for_pair(page)
    expect(page.get_by_test_id("answer-undo")).to_be_disabled()
    page.get_by_test_id("image-right").click()
    wait_for_pair(page, other_than=first)
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("Control+z")
    expect(page.get_by_test_id("announcement")).to_be_visible()
    expect(page.get_by_test_id("announcement")).to_have_text("Took back: right.")


def test_prompts_changed_in_another_tab_are_not_overwritten(
    pairs_to_label: Labelling, open_label: Opens
) -> None:
    app, store = pairs_to_label
    page = open_label(app)
    open_tab(page, "Setup")
    field = page.locator('[data-testid="prompts"] textarea')
    expect(field).not_to_have_value("")
    store.set_prompts(["a fox", "a pizza"], by="bob")
    field.fill("a house")
    page.get_by_test_id("prompts-submit").click()
    page.get_by_text("The prompts were changed elsewhere").wait_for()
    assert store.project().prompts == ("a fox", "a pizza")
    expect(field).to_have_value("a house")


def test_markup_in_a_prompt_and_in_a_project_name_is_text(tmp_path: Path, root: Path, page: Page) -> None:
    prompts = ["<img src=x onerror=alert(1)><b>bold</b>", "${alert(1)} {{value}}"]
    model = ModelRef(source=str(make_model(tmp_path / "model")))
    store = Store.create(tmp_path / "a <b>", model=model, prompts=prompts, settings=SETTINGS, by="ann")
    run_now(store, jobs.draw(store, 1, by="ann"))
    store.close()
    app = start_app(root, tmp_path / "a <b>")
    open_page(page, app.address)
    wait_for_pair(page)
    assert page.get_by_test_id("prompt").inner_text() in prompts
    assert page.get_by_test_id("project-select").input_value() == "a <b>"
    app.end()


def test_it_works_at_360_pixels_by_touch_in_the_dark(pairs_to_label: Labelling, browser: Browser) -> None:
    app, store = pairs_to_label
    small = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "color_scheme": "dark"}
    with watched(browser, **small) as page:
        open_page(page, app.address)
        wait_for_pair(page)
        page.get_by_test_id("image-left").tap()
        wait_for(lambda: values(store) == ["left"])
        for tab in ("label", "setup", "rounds", "review", "export"):
            page.evaluate("async name => (await import('/ui/core.js')).openTab(name)", tab)
            page.get_by_test_id(f"panel-{tab}").wait_for()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def test_two_tabs_may_have_two_projects(tmp_path: Path, root: Path, page: Page) -> None:
    for name in ("one", "two"):
        store = make_store(tmp_path / name)
        drawn(store, 3)
        store.close()
    app = start_app(root, tmp_path / "one")
    open_page(page, app.address)
    assert page.url.endswith("?project=one")
    other = page.context.new_page()
    open_page(other, f"{app.address}/?project=two")
    wait_for_pair(other)
    answer(other, "1")
    two, one = Store(tmp_path / "two"), Store(tmp_path / "one")
    wait_for(lambda: values(two) == ["left"])
    assert values(one) == []
    app.end()
