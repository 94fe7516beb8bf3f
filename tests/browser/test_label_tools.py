"""What one does beside answering: look closer, say why, practise, have a name, share pairs with others."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotating import drawn, make_store, open_pairs, wait_for
from labelling import (
    answer,
    look_now,
    open_page,
    press_twice,
    reload,
    shown_pair,
    until,
    values,
    wait_for_images,
    wait_for_pair,
    watched,
)
from playwright.sync_api import Browser, Page, expect

from annotator import jobs
from annotator.runs import Runner
from annotator.store import Store
from annotator.store.people import made_up
from benchmarks.running_app import App

pytestmark = pytest.mark.browser
IMAGE = '[data-testid="image-{}"] img'


def addresses(page: Page) -> list[str]:
    return [str(page.locator(IMAGE.format(side)).get_attribute("src")) for side in ("left", "right")]


def transform(page: Page, side: str) -> str:
    script = "side => getComputedStyle(document.querySelector(`[data-testid=image-${side}] img`)).transform"
    return str(page.evaluate(script, side))


def test_space_flips_the_two_while_held_and_no_answer_is_taken_meanwhile(label: Page, store: Store) -> None:
    before = addresses(label)
    label.keyboard.down(" ")
    assert addresses(label) == before[::-1]
    label.keyboard.press("1")
    expect(label.get_by_test_id("announcement")).to_have_text("Let go of Space first, so that left is left.")
    label.keyboard.up(" ")
    expect(label.get_by_test_id("announcement")).to_have_text("")
    assert addresses(label) == before
    label.get_by_test_id("answer-flip").hover()
    label.mouse.down()
    assert addresses(label) == before[::-1]
    label.mouse.up()
    assert addresses(label) == before
    # After a button was clicked, Space flips and does not press it again.
    first = shown_pair(label)
    label.get_by_test_id("answer-left").click()
    wait_for_pair(label, other_than=first)
    label.keyboard.press(" ")
    wait_for(lambda: len(values(store)) > 0)
    assert values(store) == ["left"]


def test_zoom_and_drag_move_both_alike_and_choose_nothing(label: Page, store: Store) -> None:
    pair = shown_pair(label)
    box = label.get_by_test_id("image-left").bounding_box()
    assert box is not None
    label.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    label.mouse.wheel(0, -600)
    label.wait_for_selector(".sail-zoomed")
    zoomed = transform(label, "left")
    assert zoomed == transform(label, "right") != "none"
    label.mouse.down()
    label.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    label.mouse.up()
    assert transform(label, "left") == transform(label, "right") != zoomed
    label.get_by_test_id("image-right").click()
    expect(label.get_by_test_id("announcement")).to_contain_text("choose with a key or a button")
    label.get_by_test_id("image-right").dblclick()
    expect(label.locator(".sail-zoomed")).to_have_count(0)
    expect(label.get_by_test_id("announcement")).to_have_text("")
    label.keyboard.press("+")
    expect(label.get_by_test_id("answer-scale")).to_have_text("1.5 ×")
    label.keyboard.press("Escape")
    expect(label.get_by_test_id("answer-whole")).to_be_disabled()
    assert (shown_pair(label), values(store)) == (pair, [])


def test_reasons_are_kept_for_the_last_answer_and_typing_labels_nothing(label: Page, store: Store) -> None:
    label.keyboard.press("t")
    expect(label.get_by_test_id("announcement")).to_have_text("Nothing to give reasons for: answer first.")
    answer(label, "2")
    label.keyboard.press("t")
    label.keyboard.press("5")
    label.get_by_test_id("reason-colour").click()
    label.get_by_test_id("reason-text").fill("a <b> fox")
    label.get_by_test_id("reason-text").press("1")
    label.keyboard.press("Enter")
    expect(label.get_by_test_id("announcement")).to_have_text("Reasons kept.")
    wait_for(lambda: bool(store.reasons([row["uuid"] for row in store.label_history()])))
    (kept,) = store.label_history()
    assert store.reasons([kept["uuid"]]) == {kept["uuid"]: (["colour", "prompt"], "a <b> fox1")}
    reload(label)
    label.keyboard.press("t")
    expect(label.get_by_test_id("reason-text")).to_have_value("a <b> fox1")
    expect(label.get_by_test_id("reason-prompt")).to_have_attribute("aria-pressed", "true")


def test_half_of_a_character_in_a_reason_keeps_no_answer_back(label: Page, store: Store) -> None:
    answer(label, "1")
    label.keyboard.press("t")
    # An emoji that the field's limit has cut.
    label.get_by_test_id("reason-text").evaluate(
        "field => (field.value = 'a fo' + String.fromCharCode(0xd83e))"
    )
    label.get_by_test_id("reason-text").press("Enter")
    expect(label.get_by_test_id("announcement")).to_have_text("Reasons kept.")
    wait_for(lambda: bool(store.reasons([row["uuid"] for row in store.label_history()])))
    (kept,) = store.label_history()
    assert store.reasons([kept["uuid"]]) == {kept["uuid"]: ([], "a fo\N{REPLACEMENT CHARACTER}")}


def test_reasons_stay_on_the_page_while_their_label_is_unsent(label: Page, store: Store) -> None:
    label.route("**/labels", lambda route: route.abort())
    label.evaluate("navigator.sendBeacon = () => true")
    answer(label, "1")
    label.keyboard.press("t")
    label.get_by_test_id("reason-text").fill("the ears")
    label.keyboard.press("Enter")
    expect(label.get_by_test_id("announcement")).to_have_text("Reasons kept.")
    reload(label)
    wait_for_pair(label)
    label.keyboard.press("t")
    expect(label.get_by_test_id("reason-text")).to_have_value("the ears")
    label.get_by_test_id("reason-colour").click()
    label.get_by_test_id("reasons-save").click()
    label.unroute("**/labels")
    until(label, lambda: store.counts().labelled == 1 and label.get_by_test_id("unsent").is_hidden())
    (kept,) = store.label_history()
    assert store.reasons([kept["uuid"]]) == {kept["uuid"]: (["colour"], "the ears")}


def test_practice_that_is_swapped_says_why_it_takes_nothing_and_a_window_that_is_left_ends_it(
    label: Page,
) -> None:
    label.keyboard.press("p")
    says, said = label.get_by_test_id("practice-says"), label.get_by_test_id("practice-said")
    swapped = label.get_by_test_id("practice").locator(".sail-flipped")
    label.keyboard.down(" ")
    expect(swapped).to_have_count(1)
    label.keyboard.press("1")
    expect(said).to_have_text("Let go of Space first, so that left is left.")
    expect(says).to_contain_text("Press 1 for left")
    label.evaluate("dispatchEvent(new Event('blur'))")
    expect(swapped).to_have_count(0)
    label.keyboard.press("1")
    expect(says).to_contain_text("Equally good?")


def test_the_place_of_a_long_prompt_stays_while_only_the_height_of_the_window_changes(label: Page) -> None:
    prompt = label.get_by_test_id("prompt")

    def lines() -> float:
        return float(
            prompt.evaluate("one => one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight)")
        )

    label.set_viewport_size({"width": 380, "height": 740})
    prompt.evaluate("one => (one.textContent = 'a very long prompt '.repeat(9))")
    label.set_viewport_size({"width": 360, "height": 740})
    until(label, lambda: lines() > 3)
    answer(label, "1")
    long = lines()
    assert long > 3
    label.set_viewport_size({"width": 360, "height": 800})
    label.wait_for_function("innerHeight === 800")
    label.evaluate(
        "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))"
    )
    assert lines() == long
    label.set_viewport_size({"width": 400, "height": 800})
    until(label, lambda: lines() < 3)


def test_an_order_that_was_not_taken_is_not_shown(label: Page, store: Store) -> None:
    label.route("**/order", lambda route: route.abort())
    order = label.get_by_test_id("order")
    order.select_option("uncertain")
    expect(label.get_by_test_id("trouble")).to_contain_text("the order is as it was")
    expect(order).to_have_value("random")
    assert store.order() == "random"


def test_practice_is_offered_to_who_is_new_and_nothing_of_it_is_kept(label: Page, store: Store) -> None:
    pair, close = shown_pair(label), label.get_by_test_id("practice-close")
    label.keyboard.press("p")
    tops = []
    for key in ("1", "0", "1"):
        expect(close).to_have_class("sail-quiet")
        box = label.get_by_test_id("practice").locator(".sail-pair").bounding_box()
        tops.append(box and box["y"])
        label.keyboard.press(key)
    assert len(set(tops)) == 1
    expect(label.get_by_test_id("practice")).to_contain_text("That is all")
    expect(close).to_have_class("sail-primary")
    label.keyboard.press("Enter")
    expect(label.get_by_test_id("practice")).to_be_hidden()
    expect(label.get_by_test_id("note-practice")).to_be_hidden()
    assert (shown_pair(label), values(store)) == (pair, [])
    answer(label, "1")
    wait_for(lambda: values(store) == ["left"])
    label.evaluate("localStorage.removeItem('sail.notes')")
    reload(label)
    expect(label.get_by_test_id("note-practice")).to_be_hidden()


def test_an_early_press_is_said_and_after_undo_a_pair_takes_an_answer_at_once(
    label: Page, store: Store
) -> None:
    first = shown_pair(label)
    ready = "document.querySelector('.sail-label').dataset.ready"
    press_twice(label, "1", f"{ready} !== {first!r}", then="2")
    expect(label.get_by_test_id("announcement")).to_contain_text("Too fast")
    press_twice(label, "z", f"{ready} === {first!r}", then="2")
    wait_for(lambda: values(store) == ["left", "undo", "right"])
    assert {row["pair"] for row in store.label_history()} == {first}


def test_a_name_is_asked_for_once_and_never_taken_from_somebody_else(label: Page, store: Store) -> None:
    store.name_person("person-9", "Bob")
    for _ in range(5):
        answer(label, "1")
    (nameless,) = {cookie["value"] for cookie in label.context.cookies() if cookie["name"] == "sail_person"}
    expect(label.get_by_test_id("name")).to_have_text(made_up(nameless))
    label.get_by_test_id("note-name-input").fill("bob")
    before = shown_pair(label)
    label.get_by_test_id("note-name-input").press("1")
    label.get_by_test_id("note-name-save").click()
    wait_for(lambda: len(values(store)) == 5)
    assert shown_pair(label) == before
    expect(label.get_by_test_id("name")).to_have_text("bob1")
    label.get_by_test_id("name").click()
    label.get_by_test_id("name-input").fill("BOB")
    label.get_by_test_id("name-save").click()
    label.get_by_text("Somebody else here is called BOB already").wait_for()
    label.get_by_test_id("name-input").fill("Ann")
    label.get_by_test_id("name-save").click()
    expect(label.get_by_test_id("name")).to_have_text("Ann")
    (who,) = {row["person"] for row in store.label_history()}
    assert store.names() == {"person-9": "Bob", who: "Ann"}
    expect(label.get_by_test_id("note-name")).to_be_hidden()


def test_two_browsers_never_hold_the_same_pair_and_a_closed_ones_come_to_the_other(
    label: Page, store: Store, browser: Browser
) -> None:
    with watched(browser) as other:
        other.goto(label.url)
        other.get_by_role("heading", name="8 pairs are with other people right now").wait_for()
        expect(other.get_by_test_id("pair")).to_be_hidden()
        label.goto("about:blank")
        # Whoever waits asks again by itself.
        expect(other.get_by_test_id("pair")).to_be_visible()
        pair = wait_for_pair(other)
        answer(other, "1")
        wait_for(lambda: [row["pair"] for row in store.label_history()] == [pair])


def test_who_is_away_does_not_keep_pairs_from_others(app: App, store: Store, page: Page) -> None:
    asked: list[str] = []
    page.clock.install()
    open_page(page, f"{app.address}/?project={store.name}")
    wait_for_pair(page)
    page.on("request", lambda request: asked.append(request.url) if "pairs/next" in request.url else None)
    page.clock.run_for(110_000)
    until(page, lambda: len(asked) > 0)
    page.clock.run_for(60_000)
    look_now(page)
    renewed = len(asked)
    page.clock.run_for(600_000)
    look_now(page)
    assert len(asked) == renewed
    page.mouse.move(300, 300)
    until(page, lambda: len(asked) > renewed)


def test_typing_an_answers_key_into_a_field_beside_the_pair_labels_nothing(label: Page, store: Store) -> None:
    for _ in range(5):
        answer(label, "1")
    wait_for(lambda: len(values(store)) == 5)
    pair, field = shown_pair(label), label.get_by_test_id("note-name-input")
    field.focus()
    for key in ("1", "2", "0", "9", "s", "z"):
        label.keyboard.press(key)
    expect(field).to_have_value("1209sz")
    # The next answer is the next event: what was typed is not on its way either.
    label.get_by_test_id("answer-right").click()
    wait_for_pair(label, other_than=pair)
    wait_for(lambda: len(values(store)) > 5)
    assert values(store) == [*["left"] * 5, "right"]
    assert store.label_history()[-1]["pair"] == pair


def test_the_order_is_chosen_on_the_page_for_everybody(label: Page, store: Store) -> None:
    pair = shown_pair(label)
    label.get_by_test_id("order").select_option("uncertain")
    expect(label.get_by_test_id("order-note")).to_contain_text("not looked at open pairs yet")
    assert (store.order(), shown_pair(label)) == ("uncertain", pair)
    answer(label, "1")
    wait_for(lambda: values(store) == ["left"])
    (kept,) = store.label_history()
    sides = store.show_pairs([kept["pair"]], to=kept["person"])[0]
    assert kept["left"] == sides.left


def test_what_was_pressed_offline_arrives_once_with_the_sides_that_were_shown(
    label: Page, store: Store
) -> None:
    wait_for_images(label, 8)
    label.context.set_offline(True)
    lefts = []
    for key in ("1", "2", "0"):
        lefts.append(addresses(label)[0].rsplit("/", 1)[1])
        answer(label, key)
    expect(label.get_by_test_id("unsent")).to_have_text("3 unsent")
    label.context.set_offline(False)
    expect(label.get_by_test_id("unsent")).to_be_hidden()
    assert [(row["value"], row["left"]) for row in store.label_history()] == list(
        zip(("left", "right", "tie"), lefts, strict=True)
    )


def test_a_pair_whose_image_is_broken_is_withdrawn_and_the_next_one_comes(
    app: App, store: Store, page: Page
) -> None:
    pairs = store.show_pairs(open_pairs(store), to="ann")
    gone, torn, whole = pairs[0], pairs[1], {pair.id for pair in pairs[2:]}
    store.image_file(gone.left).unlink()
    store.image_file(torn.right).write_bytes(store.image_file(torn.right).read_bytes()[:-200])
    open_page(page, f"{app.address}/?project={store.name}")
    labelled = [wait_for_pair(page)]
    while labelled[-1]:
        labelled.append(answer(page, "1"))
    assert set(labelled) == {*whole, ""}
    page.get_by_role("heading", name="All 6 pairs are answered").wait_for()
    page.get_by_text("2 pairs were withdrawn").wait_for()
    wait_for(lambda: {row["pair"] for row in store.label_history()} == whole)
    why = {
        event["payload"]["pair"]: event["payload"]["why"]
        for event in store.events()
        if event["kind"] == "pair_withdrawn"
    }
    assert why.keys() == {gone.id, torn.id}
    assert "is gone" in why[gone.id] and "cannot be read" in why[torn.id]
    assert store.unjudged_pairs(100) == []


def test_after_drawing_ended_early_pairs_can_be_drawn_anew(app: App, project: Store, page: Page) -> None:
    run = jobs.draw(project, 3, by="ann")
    Runner().stop(project, run.id, by="ann")
    page.goto(f"{app.address}/?project={project.name}")
    page.get_by_role("heading", name="Drawing pairs stopped").wait_for()
    page.get_by_text("counts only for what is drawn anew").wait_for()
    page.get_by_test_id("resume-draw").wait_for()
    page.get_by_role("button", name="Draw 60 pairs").click()
    wait_for(lambda: [run.job for run in project.runs()] == ["draw", "draw"])


def test_where_drawing_stopped_before_training_can_begin_resume_is_the_first_thing_to_do(
    app: App, home: Path, page: Page
) -> None:
    store = make_store(home / "few")
    drawn(store, 1)
    Runner().stop(store, jobs.draw(store, 3, by="ann").id, by="ann")
    open_page(page, f"{app.address}/?project=few")
    wait_for_pair(page)
    assert answer(page, "1") == ""
    page.get_by_role("heading", name="Drawing pairs stopped").wait_for()
    page.get_by_text("Training needs").wait_for()
    expect(page.locator('[data-testid="label-message"] .sail-primary')).to_have_text("Resume")
    expect(page.get_by_test_id("draw-more")).to_have_text("Draw 20 more pairs")
    store.close()


def test_single_pixels_are_to_be_seen_in_small_images_alone(label: Page) -> None:
    rendering = "image => getComputedStyle(image).imageRendering"
    assert label.locator(".sail-image img").first.evaluate(rendering) == "pixelated"
    large = label.evaluate_handle("""() => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 512, height: 256 });
      const image = Object.assign(new Image(), { src: canvas.toDataURL() });
      document.querySelector(".sail-image").append(image);
      return image.decode().then(() => image);
    }""")
    assert large.evaluate(rendering) == "auto"


def test_a_pair_whose_image_fails_can_only_be_skipped_until_it_is_there(
    app: App, store: Store, page: Page
) -> None:
    page.route("**/images/*", lambda route: route.abort())
    page.goto(f"{app.address}/?project={store.name}")
    page.get_by_text("An image of this pair could not be loaded").wait_for()
    page.keyboard.press("1")
    expect(page.get_by_test_id("announcement")).to_have_text("This pair cannot be seen. Skip it with S.")
    page.unroute("**/images/*")
    pair = wait_for_pair(page)
    assert values(store) == []
    page.keyboard.press("1")
    wait_for(lambda: [(row["pair"], row["value"]) for row in store.label_history()] == [(pair, "left")])


def test_who_gave_a_name_on_top_of_the_page_is_not_asked_for_it_again(label: Page) -> None:
    for _ in range(5):
        answer(label, "1")
    expect(label.get_by_test_id("note-name")).to_contain_text("beside what you decide")
    label.get_by_test_id("name").click()
    label.get_by_test_id("name-input").fill("Cleo")
    label.get_by_test_id("name-save").click()
    expect(label.get_by_test_id("note-name")).to_be_hidden()


def test_who_is_elsewhere_on_the_page_keeps_no_pair_from_others(
    app: App, store: Store, page: Page, browser: Browser
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "pairs/next" in request.url else None)
    open_page(page, f"{app.address}/?project={store.name}&tab=rounds")
    page.get_by_test_id("panel-rounds").wait_for()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    look_now(page)
    assert asked == []
    with watched(browser) as other:
        open_page(other, f"{app.address}/?project={store.name}")
        wait_for_pair(other)
        other.goto("about:blank")
    # Once it is opened Label has what there is.
    page.get_by_role("tab", name="Label").click()
    wait_for_pair(page)


def test_a_button_that_means_another_run_is_another_button(label: Page) -> None:
    assert label.evaluate(
        """async () => {
          const { runButton } = await import("/ui/runs.js");
          const { putParts } = await import("/ui/page.js");
          const place = document.createElement("div");
          const of = (id) => putParts(place, [runButton({ id }, "resume", "Resume", "resume-draw")]);
          return [of(5), of(5), of(7)];
        }"""
    ) == [True, False, True]
