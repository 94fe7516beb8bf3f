"""What a page does while the app does not answer, while another tab is open, and where the focus is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import fake_trainer
import pytest
from annotating import at_work, drawn, label, proposed, run_now, wait_for
from labelling import (
    answer,
    look_now,
    open_page,
    open_tab,
    shown_pair,
    until,
    values,
    wait_for_images,
    wait_for_pair,
    watched,
)
from playwright.sync_api import Browser, Locator, Page, Route, expect

from annotator import jobs
from annotator.store import Store
from benchmarks.running_app import App

pytestmark = pytest.mark.browser

IMPATIENT = (
    "() => void (AbortSignal.timeout = ((own) => () => own.call(AbortSignal, 700))(AbortSignal.timeout))"
)


def opened(page: Page, app: App, store: Store) -> Page:
    open_page(page, f"{app.address}/?project={store.name}")
    wait_for_pair(page)
    return page


def took_left_alone(page: Page, store: Store, pair: str) -> None:
    """Left is the next event that is kept, so that no other answer is on its way either."""
    assert wait_for_pair(page, other_than=pair)
    until(page, lambda: len(values(store)) > 0)
    assert [(row["pair"], row["value"]) for row in store.label_history()] == [(pair, "left")]


def test_pairs_that_run_out_while_nobody_answers_are_not_all_there_are(
    app: App, store: Store, page: Page
) -> None:
    opened(page, app, store)
    wait_for_images(page, 16)
    page.route("**/api/**", lambda route: route.abort())
    while answer(page, "1"):
        pass
    expect(page.get_by_test_id("label-message")).to_contain_text("The next pairs are not here yet")
    expect(page.get_by_test_id("train")).to_have_count(0)
    run_now(store, jobs.draw(store, 2, by="ann"))
    page.unroute("**/api/**")
    # By themselves: nobody touches the page.
    page.wait_for_selector(".sail-label:not([data-pair=''])", timeout=40_000)
    wait_for(lambda: len(values(store)) == 8)


def test_an_app_that_takes_requests_and_never_answers_is_said_and_nothing_is_lost(
    app: App, store: Store, page: Page
) -> None:
    opened(page, app, store)
    wait_for_images(page, 4)
    page.evaluate(IMPATIENT)
    page.route("**/api/**", lambda route: None)
    answer(page, "1")
    page.get_by_test_id("device").click()
    expect(page.get_by_test_id("trouble")).to_contain_text("The app does not answer", timeout=40_000)
    assert values(store) == []
    page.unroute("**/api/**")
    wait_for(lambda: values(store) == ["left"])


def test_trouble_that_still_holds_is_said_again_after_another_one_and_none_is_said_at_every_poll(
    app: App, store: Store, page: Page
) -> None:
    opened(page, app, store)
    trouble = page.get_by_test_id("trouble")
    full = {"status": 503, "json": {"detail": "Is the disk full?"}}
    page.route("**/labels", lambda route: route.fulfill(**full))
    left = page.get_by_test_id("answer-left")
    place = left.bounding_box()
    answer(page, "1")
    expect(trouble).to_have_text("Is the disk full?")
    # Nothing moved under a finger.
    assert left.bounding_box() == place
    page.route("**/status", lambda route: route.abort())
    look_now(page)
    expect(trouble).to_contain_text("The app does not answer")
    page.evaluate(
        """() => {
            window.said = 0;
            const place = document.querySelector('.sail-trouble');
            new MutationObserver(() => window.said++).observe(place, { childList: true });
        }"""
    )
    look_now(page)
    assert page.evaluate("said") == 0
    page.unroute("**/status")
    look_now(page)
    expect(trouble).to_have_text("Is the disk full?")
    # Esc is meant for what is open, or zoomed, first.
    for key, meant_for in (("?", "[data-testid=help][open]"), ("+", ".sail-zoomed")):
        page.keyboard.press(key)
        page.wait_for_selector(meant_for)
        page.keyboard.press("Escape")
        expect(trouble).to_be_visible()
    page.keyboard.press("Escape")
    look_now(page)
    expect(trouble).to_be_hidden()
    page.unroute("**/labels")
    until(page, lambda: values(store) == ["left"])


def test_a_fault_in_one_part_of_the_page_is_not_said_to_be_the_app_and_the_others_go_on(
    app: App, store: Store, page: Page
) -> None:
    opened(page, app, store)
    page.evaluate(
        """async () => {
            [window.faults, window.heard] = [[], 0];
            window.reportError = (error) => window.faults.push(error.message);
            const { onStatus } = await import('/ui/core.js');
            let torn = false;
            onStatus(() => {
                if (torn) throw new Error('torn');
                torn = true;
            });
            onStatus(() => window.heard++);
        }"""
    )
    label(store, store.show_pairs([shown_pair(page)], to="ann")[0], "left")
    look_now(page)
    assert page.evaluate("[faults, heard]") == [["torn"], 2]
    expect(page.get_by_test_id("trouble")).to_be_hidden()


def test_a_script_that_is_wrong_is_told_of_once_although_it_is_tried_again(
    app: App, store: Store, page: Page
) -> None:
    tried: list[Route] = []
    page.route(
        "**/ui/try.js*",
        lambda route: (tried.append(route), route.fulfill(body="const;", content_type="text/javascript")),
    )
    opened(page, app, store)
    page.evaluate("window.faults = []; window.reportError = (error) => window.faults.push(String(error))")
    open_tab(page, "Try")
    until(page, lambda: len(tried) == 3)
    page.unroute("**/ui/try.js*")
    page.wait_for_selector(".sail-try[data-mounted]")
    told = [fault for fault in page.evaluate("faults") if fault.startswith("SyntaxError")]
    assert len(told) == 1


def test_who_is_in_another_tab_of_the_page_does_not_keep_pairs_from_others(
    app: App, store: Store, page: Page
) -> None:
    page.clock.install()
    opened(page, app, store)
    open_tab(page, "Rounds")
    page.get_by_test_id("next").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "pairs/next" in request.url else None)
    for _ in range(4):
        page.mouse.move(300, 300)
        page.mouse.move(310, 300)
        page.clock.run_for(50_000)
    look_now(page)
    assert asked == []
    open_tab(page, "Label")
    page.clock.run_for(1000)
    until(page, lambda: len(asked) > 0)


def test_what_a_run_came_to_while_another_tab_was_open_is_there_on_the_way_back(
    app: App, project: Store, page: Page
) -> None:
    for pair in drawn(project, 6):
        label(project, pair, "left")
    run = jobs.train(project, by="ann")
    with at_work(project, run, "train") as (folder, progress):
        page.goto(f"{app.address}/?project={project.name}&tab=rounds")
        expect(page.get_by_test_id("run-next")).to_have_attribute("data-state", "running")
        open_tab(page, "Try")
        result = fake_trainer.train(folder, folder.request(), progress)
        folder.publish_result({"kind": "train", "round": 0, **result})
        progress.end("done")
    expect(page.get_by_test_id("device")).to_have_text("Idle")
    expect(page.get_by_test_id("try-0")).to_be_attached()
    open_tab(page, "Rounds")
    expect(page.get_by_test_id("learning")).to_contain_text("it chose 1 of 1")


def test_stop_keeps_the_focus_while_its_run_goes_on(app: App, store: Store, page: Page) -> None:
    run = jobs.draw(store, 2, by="ann")
    with at_work(store, run, "draw") as (_, progress):
        page.goto(f"{app.address}/?project={store.name}&tab=rounds")
        row, stop = page.get_by_test_id(f"run-{run.id}"), page.get_by_test_id(f"stop-{run.id}")
        expect(row).to_contain_text("0 of 40")
        stop.focus()
        progress.reach(7)
        expect(row).to_contain_text("7 of 40")
        expect(row.locator("progress")).to_have_attribute("value", "7")
        expect(stop).to_be_focused()
        page.keyboard.press("Enter")
        expect(row).to_have_attribute("data-state", "stopping")
        progress.end("stopped", "Stopped.")


def test_a_button_that_was_pressed_by_key_keeps_the_focus_or_hands_it_to_the_tab_it_opens(
    app: App, store: Store, page: Page
) -> None:
    page.goto(f"{app.address}/?project={store.name}&tab=try")
    held: list[Route] = []
    page.route(re.compile("/(settings|tries|runs)$"), lambda route: held.append(route))

    def press_by_key(button: Locator) -> None:
        button.focus()
        page.keyboard.press("Enter")
        until(page, lambda: bool(held))
        # Locked, it has lost the focus by the time that anything is drawn.
        page.wait_for_function("document.activeElement === document.body")
        held.pop().abort()
        expect(button).to_be_focused()

    page.get_by_test_id("try-prompt").fill("a fox")
    press_by_key(page.get_by_test_id("try-submit"))
    open_tab(page, "Setup")
    page.wait_for_selector(".sail-setup[data-mounted]")
    press_by_key(page.get_by_test_id("settings-submit"))
    open_tab(page, "Rounds")
    go_on = page.get_by_test_id("next-action")
    expect(go_on).to_have_text("Go on labelling")
    go_on.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Label", exact=True)).to_be_focused()
    open_tab(page, "Rounds")
    go_on.click()
    wait_for_pair(page)
    page.keyboard.press("ArrowRight")
    until(page, lambda: values(store) == ["right"])
    page.wait_for_timeout(300)
    for _ in range(7):
        answer(page, "1")
    press_by_key(page.get_by_test_id("train"))


def test_what_was_refused_is_in_view_further_down_the_page(home: Path, app: App, page: Page) -> None:
    store, _ = proposed(home / "long", 12)
    page.set_viewport_size({"width": 700, "height": 500})
    page.goto(f"{app.address}/?project=long&tab=review")
    page.get_by_test_id("review-grid").locator("article").last.scroll_into_view_if_needed()
    page.route(
        "**/runs", lambda route: route.fulfill(status=409, json={"detail": "Somebody trains already."})
    )
    page.evaluate("document.querySelector('[data-testid=train-round]').click()")
    said = page.get_by_test_id("trouble")
    expect(said).to_have_text("Somebody trains already.")
    expect(said).to_be_in_viewport()
    said.click()
    expect(said).to_be_hidden()
    store.close()


def test_the_order_is_chosen_by_arrow_keys_without_an_answer(app: App, store: Store, page: Page) -> None:
    pair = shown_pair(opened(page, app, store))
    order = page.get_by_test_id("order")
    order.focus()
    # As browsers do for a closed list: another choice, and a change at once.
    for key in ("ArrowDown", "ArrowUp"):
        before = store.order()
        order.press(key)
        until(page, lambda before=before: before != store.order() == order.input_value())  # type: ignore[misc]
    expect(order).to_be_focused()
    page.get_by_test_id("answer-left").click()
    took_left_alone(page, store, pair)


def test_arrow_keys_in_a_long_prompt_scroll_it(app: App, store: Store, page: Page) -> None:
    pair = shown_pair(opened(page, app, store))
    page.evaluate(
        """() => {
            const prompt = document.querySelector('[data-testid=prompt]');
            prompt.tabIndex = 0;
            prompt.focus();
        }"""
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("1")
    took_left_alone(page, store, pair)


def test_dialogs_that_were_opened_by_mouse_hear_their_keys_and_space_flips_after_them(
    app: App, store: Store, page: Page
) -> None:
    opened(page, app, store)
    page.get_by_test_id("practise").click()
    says = page.get_by_test_id("practice-says")
    expect(says).to_contain_text("Press 1 for left")
    page.keyboard.press("1")
    expect(says).to_contain_text("Equally good?")
    page.keyboard.press("Escape")
    answer(page, "1")
    page.get_by_test_id("answer-reasons").click()
    # Closed, it leaves the keys to the page before anything is drawn.
    left = """dialog => new Promise((done) => {
        dialog.onclose = () => done(document.activeElement === document.body);
        dialog.close();
    })"""
    assert page.get_by_test_id("reasons").evaluate(left)
    page.get_by_test_id("answer-reasons").click()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("announcement")).to_have_text("Reasons kept.")
    wait_for(lambda: bool(store.reasons([row["uuid"] for row in store.label_history()])))
    page.keyboard.down(" ")
    expect(page.get_by_test_id("answer-flip")).to_have_attribute("aria-pressed", "true")
    page.keyboard.up(" ")
    expect(page.get_by_test_id("reasons")).to_be_hidden()
    page.get_by_role("tab", name="Label", exact=True).click()
    page.keyboard.down(" ")
    expect(page.get_by_test_id("answer-flip")).to_have_attribute("aria-pressed", "true")
    page.keyboard.up(" ")


def test_a_browser_that_keeps_nothing_is_told_what_to_allow(app: App, store: Store, browser: Browser) -> None:
    with watched(browser) as page:
        page.add_init_script(
            """const get = () => { throw new DOMException('', 'SecurityError'); };
            Object.defineProperty(window, 'localStorage', { get });
            Object.defineProperty(document, 'cookie', { get: () => '', set() {} });"""
        )
        # Without a word from the app, which would say it as well.
        page.route("**/api/**", lambda route: None)
        page.goto(f"{app.address}/?project={store.name}")
        expect(page.get_by_test_id("trouble")).to_contain_text("Allow them and reload the page")
        expect(page.locator(".sail-label:not([inert])")).to_be_attached()


def test_a_tab_opened_while_the_app_is_away_comes_to_life_when_it_is_back(
    app: App, project: Store, page: Page
) -> None:
    run = jobs.draw(project, 2, by="ann")
    with at_work(project, run, "draw") as (_, progress):
        open_page(page, f"{app.address}/?project={project.name}&tab=rounds")
        device = page.get_by_test_id("device")
        expect(device).to_have_attribute("data-state", "busy")
        page.route(re.compile("/(ui|api)/"), lambda route: route.abort())
        open_tab(page, "Try")
        expect(page.get_by_text("This tab could not be loaded.")).to_be_visible()
        expect(device).to_have_attribute("data-state", "away")
        page.unroute_all()
        page.get_by_test_id("try-0").or_(page.get_by_test_id("try-base")).wait_for()
        expect(page.get_by_text("This tab could not be loaded.")).to_have_count(0)
        expect(device).to_have_attribute("data-state", "busy")
        progress.end("stopped", "Stopped.")


def test_back_opens_the_tab_before_and_another_project_opens_on_the_same_tab(
    app: App, project: Store, page: Page
) -> None:
    page.goto("about:blank")
    open_page(page, f"{app.address}/?project={project.name}")
    for name in ("Rounds", "Rounds", "Try"):
        open_tab(page, name)
    page.get_by_test_id("device").click()
    chosen = page.locator('[role="tab"][aria-selected="true"]')
    expect(chosen).to_have_text("Rounds")
    for name in ("Try", "Rounds", "Label"):
        page.go_back()
        expect(chosen).to_have_text(name)
    page.go_forward()
    expect(chosen).to_have_text("Rounds")
    page.get_by_test_id("project-select").select_option("first")
    page.wait_for_url("**/?project=first&tab=rounds")
    expect(chosen).to_have_text("Rounds")
    page.go_back()
    page.wait_for_url(f"**/?project={project.name}&tab=rounds")
    expect(page.get_by_test_id("project-select").locator("option:checked")).to_have_text(project.name)


def test_a_tab_that_was_chosen_from_the_menu_is_in_the_address(
    app: App, project: Store, browser: Browser
) -> None:
    with watched(browser, viewport={"width": 240, "height": 740}) as page:
        open_page(page, f"{app.address}/?project={project.name}")
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_text("Export", exact=True).click()
        page.wait_for_url("**&tab=export")
        expect(page.get_by_test_id("panel-export")).to_be_visible()


def test_arrows_in_the_row_of_tabs_open_tabs_and_answer_nothing_and_after_a_click_there_they_do(
    app: App, store: Store, page: Page
) -> None:
    pair = shown_pair(opened(page, app, store))
    tab = page.get_by_role("tab", name="Label", exact=True)
    tab.focus()
    for key, name in (
        ("ArrowRight", "Rounds"),
        ("End", "Export"),
        ("ArrowRight", "Setup"),
        ("ArrowLeft", "Export"),
        ("Home", "Setup"),
        ("ArrowRight", "Label"),
    ):
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=name, exact=True)).to_be_focused()
        expect(page.locator('[role="tab"][aria-selected="true"]')).to_have_text(name)
    page.keyboard.press("Control+ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(tab).to_be_focused()
    assert page.url.endswith("tab=label")
    tab.click()
    page.keyboard.press("ArrowLeft")
    took_left_alone(page, store, pair)


def test_what_was_not_sent_when_its_project_was_renamed_is_sent_under_the_new_name(
    app: App, store: Store, home: Path, page: Page
) -> None:
    opened(page, app, store)
    # In every tab: each of them sends what waits.
    page.context.route("**/labels", lambda route: route.abort())
    assert answer(page, "1")
    other = page.context.new_page()
    open_page(other, f"{app.address}/?project={store.name}&tab=setup")
    other.wait_for_selector(".sail-setup[data-mounted]")
    other.get_by_text("Rename or remove").click()
    name = other.get_by_test_id("renamed-name")
    name.fill("called otherwise")
    name.press("Enter")
    other.wait_for_url("**/?project=called+otherwise&tab=setup")
    page.close()
    page.context.unroute("**/labels")
    renamed = Store(home / "called otherwise")
    wait_for(lambda: values(renamed) == ["left"])
    renamed.close()


def test_what_was_not_sent_stays_with_its_project_where_a_copy_lies_beside_it(
    app: App, store: Store, home: Path, page: Page
) -> None:
    opened(page, app, store)
    page.context.route("**/labels", lambda route: route.abort())
    assert answer(page, "1")
    shutil.copytree(store.folder, home / "a copy", ignore=shutil.ignore_patterns(".server.lock"))
    other = page.context.new_page()
    open_page(other, f"{app.address}/?project=a copy&tab=setup")
    other.wait_for_selector(".sail-setup[data-mounted]")
    page.context.unroute("**/labels")
    wait_for(lambda: values(store) == ["left"])
    copy = Store(home / "a copy")
    assert values(copy) == []
    copy.close()
