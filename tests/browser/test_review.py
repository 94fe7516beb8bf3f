"""Review by exception on the page: audit, ranges, bulk, training; also where requests are late or lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from annotating import decide, decide_audit, proposed, run_now, wait_for
from labelling import look_now, open_page, open_tab, reload, until, watched
from playwright.sync_api import Browser, Locator, Page, Route, expect

from annotator import jobs
from annotator.audit import typical_margin, winner_side
from annotator.rows import ReviewPair, Run
from annotator.store import Store
from annotator.store.people import made_up
from benchmarks.running_app import App
from sail.runfolder import RunFolder

pytestmark = pytest.mark.browser

AUDITED = 10


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Round 0 trained and 24 self pairs for round 1, of which nobody has decided any."""
    store, _ = proposed(tmp_path_factory.mktemp("made") / "p", 24, audited=False)
    store.close()
    return store.folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """A folder of projects."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(project, home / "first")
    return home


@pytest.fixture
def blind_store(request: pytest.FixtureRequest, home: Path, project: Path) -> Iterator[Store]:
    """A project of this test's own, with the audit undecided."""
    folder = home / request.node.name[:60]
    shutil.copytree(project, folder)
    store = Store(folder)
    yield store
    store.close()


@pytest.fixture
def store(blind_store: Store) -> Store:
    """The same with its audit decided: ten pairs, in all of which the model was right."""
    decide_audit(blind_store, proposal(blind_store))
    return blind_store


@pytest.fixture
def review(store: Store, app: App, page: Page) -> Page:
    """The page with the audit behind it."""
    return open_review(store, app, page)


@pytest.fixture
def audit(blind_store: Store, app: App, page: Page) -> Page:
    """The page with the audit before it."""
    return open_review(blind_store, app, page)


def open_review(store: Store, app: App, page: Page) -> Page:
    open_page(page, f"{app.address}/?project={store.name}")
    show_review(page)
    return page


def show_review(page: Page) -> None:
    open_tab(page, "Review")
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(24)


def proposal(store: Store) -> Run:
    found = jobs.proposal(store)
    assert found is not None
    return found


def pairs(store: Store) -> list[ReviewPair]:
    return store.review_pairs(proposal(store))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def press_blind(page: Page, *keys: str) -> None:
    """A pair that comes by itself in the audit takes no key in its first quarter of a second."""
    for key in keys:
        page.wait_for_timeout(300)
        page.keyboard.press(key)


def is_below(one: Locator, other: Locator) -> bool:
    below, above = one.bounding_box(), other.bounding_box()
    return bool(below and above and below["y"] >= above["y"] + above["height"])


def decisions(store: Store) -> list[str]:
    """What was decided after the audit."""
    return [row["decision"] for row in store.review_history()][AUDITED:]


def test_training_waits_for_a_decision_that_is_on_its_way(review: Page, store: Store) -> None:
    held: list[Route] = []
    decided_when_asked: list[list[str]] = []
    review.route("**/reviews", lambda route: held.append(route))
    review.route("**/runs", lambda route: (decided_when_asked.append(decisions(store)), route.abort()))
    press(review, "j", "f")
    review.get_by_test_id("train-round").click()
    until(review, lambda: len(held) == 1)
    held[0].continue_()
    until(review, lambda: bool(decided_when_asked))
    assert decided_when_asked == [["flip"]]


def test_training_is_refused_while_a_decision_cannot_be_sent(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    press(review, "j", "f")
    review.get_by_test_id("train-round").click()
    until(review, lambda: len(held) == 1)
    held[0].abort()
    review.get_by_text("A decision in Review is not with the app yet").wait_for()
    assert [run.job for run in store.runs()] == ["draw", "train", "propose"]


def test_a_decision_that_did_not_arrive_is_sent_again_before_a_later_one(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    press(review, "j", "a", "k", "f")
    until(review, lambda: len(held) == 1)
    held[0].abort()
    until(review, lambda: len(held) == 2)
    held[1].continue_()
    wait_for(lambda: decisions(store) == ["approve", "flip"])
    review.wait_for_timeout(300)
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "flip")


def test_decisions_of_a_tab_that_is_closed_reach_a_slow_app(review: Page, store: Store, app: App) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    press(review, "j", *"afxafxaf")
    expect(review.get_by_test_id("review-unsent")).to_have_text("8 unsent")
    until(review, lambda: len(held) == 1)
    assert decisions(store) == []
    review.goto("about:blank")
    until(review, lambda: len(decisions(store)) == 8)
    assert decisions(store) == ["approve", "flip", "drop", "approve", "flip", "drop", "approve", "flip"]


def test_decisions_wait_in_the_browser_while_the_app_cannot_keep_them(review: Page, store: Store) -> None:
    review.route("**/reviews", lambda route: route.abort())
    review.evaluate("navigator.sendBeacon = () => true")
    press(review, "j", "f")
    expect(review.get_by_test_id("review-unsent")).to_have_text("1 unsent")
    press(review, "x", "z")
    reload(review)
    show_review(review)
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "flip")
    expect(review.get_by_test_id("self-11")).to_have_attribute("data-decision", "none")
    assert decisions(store) == []
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    review.get_by_text("A decision in Review is not with the app yet").wait_for()
    assert store.bulk_history() == []
    review.unroute("**/reviews")
    until(review, lambda: decisions(store) == ["flip", "drop", "undo"])
    expect(review.get_by_test_id("review-unsent")).to_be_hidden()


def test_a_decision_goes_after_a_bulk_approval_that_was_asked_for_before_it(
    review: Page, store: Store
) -> None:
    held: list[Route] = []
    bulks_when_sent: list[int] = []
    review.route("**/reviews/bulk", lambda route: held.append(route))
    review.route(
        "**/reviews", lambda route: (bulks_when_sent.append(len(store.bulk_history())), route.continue_())
    )
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    until(review, lambda: len(held) == 1)
    press(review, "j", "f")
    # What was sent by now is seen before the answer to this.
    review.evaluate("fetch('/').then((answer) => answer.text())")
    held[0].continue_()
    until(review, lambda: decisions(store)[-1:] == ["flip"])
    assert bulks_when_sent == [1]
    assert set(decisions(store)[:-1]) == {"approve"} and len(store.bulk_history()) == 1


def refusing(run: Run) -> Callable[[Route], None]:
    """An app that keeps no decision."""

    def refuse(route: Route) -> None:
        sent = route.request.post_data_json["answers"]
        why = {one["uuid"]: "There is no such pair to review." for one in sent}
        counts = {"run": run.id, "audit": {"done": True}}
        route.fulfill(json={"acknowledged": [], "refused": why, "review": counts})

    return refuse


def test_what_was_refused_is_taken_back_although_the_pairs_could_not_be_asked_for_at_once(
    review: Page, store: Store
) -> None:
    lost: list[Route] = []
    review.route("**/reviews", refusing(proposal(store)))
    review.route("**/review", lambda route: (lost.append(route), route.abort()))
    press(review, "j", "f")
    until(review, lambda: bool(lost))
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "flip")
    review.unroute("**/review")
    look_now(review)
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "none")


def test_what_the_app_refuses_to_keep_is_taken_back_and_said(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/status", lambda route: held.append(route))
    review.route("**/reviews", refusing(proposal(store)))
    press(review, "j", "f")
    expect(review.get_by_test_id("trouble")).to_have_text(
        "A decision in Review was not kept: There is no such pair to review."
    )
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "none")
    expect(review.get_by_test_id("review-unsent")).to_be_hidden()


@pytest.mark.parametrize("how", ["by itself", "by the next visit"])
def test_a_decision_after_its_round_is_kept_and_told(review: Page, store: Store, how: str) -> None:
    review.route("**/reviews", lambda route: route.abort())
    review.evaluate("navigator.sendBeacon = () => true")
    press(review, "j", "f")
    expect(review.get_by_test_id("review-unsent")).to_have_text("1 unsent")
    before = store.counts().trainable
    run_now(store, jobs.train(store, by="bob"))
    review.unroute("**/reviews")
    if how == "by the next visit":
        review.reload()
    expect(review.get_by_test_id("trouble")).to_contain_text("Sent after the review was over: 1 decision.")
    assert decisions(store) == ["flip"] and store.counts().trainable == before + 1


def test_why_a_decision_waits_is_no_longer_said_once_the_app_has_it(review: Page, store: Store) -> None:
    full = {"status": 503, "json": {"detail": "Is the disk full?"}}
    review.route("**/reviews", lambda route: route.fulfill(**full))
    press(review, "j", "f")
    expect(review.get_by_test_id("trouble")).to_have_text("Is the disk full?")
    review.unroute("**/reviews")
    until(review, lambda: decisions(store) == ["flip"])
    expect(review.get_by_test_id("trouble")).to_be_hidden()


def test_what_somebody_else_decided_meanwhile_is_shown_and_stands(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/status", lambda route: held.append(route))
    pair = pairs(store)[10]
    decide(store, pair.id, "drop", by="bob")
    press(review, "j", "f")
    expect(review.get_by_test_id("trouble")).to_contain_text("Somebody else decided this pair meanwhile")
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "drop")
    review.get_by_test_id("self-10").get_by_role("button", name="Flip").click()
    until(review, lambda: decisions(store) == ["drop", "flip"])


def test_a_page_that_hears_of_decisions_before_it_hears_how_things_stand_can_train(
    review: Page, store: Store
) -> None:
    review.route("**/reviews", lambda route: route.abort())
    review.evaluate("navigator.sendBeacon = () => true")
    press(review, "j", "f")
    expect(review.get_by_test_id("review-unsent")).to_have_text("1 unsent")
    held: list[Route] = []
    review.route("**/status", lambda route: held.append(route))
    review.unroute("**/reviews")
    reload(review)
    open_tab(review, "Review")
    until(review, lambda: decisions(store) == ["flip"] and bool(held))
    for route in held:
        route.continue_()
    review.unroute("**/status")
    expect(review.get_by_test_id("train-round")).to_have_text("Train round 1")


def test_a_decision_whose_answer_was_lost_is_kept_once(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    press(review, "j", "f")
    until(review, lambda: len(held) == 1)
    held[0].fetch()
    held[0].abort()
    expect(review.get_by_test_id("review-unsent")).to_have_text("1 unsent")
    expect(review.get_by_test_id("self-10")).to_have_attribute("data-decision", "flip")
    until(review, lambda: len(held) == 2)
    held[1].continue_()
    expect(review.get_by_test_id("review-unsent")).to_be_hidden()
    assert decisions(store) == ["flip"]


def test_what_others_decide_appears_on_an_open_page(review: Page, store: Store) -> None:
    dropped = pairs(store)[12].id
    store.name_person("bob", "Bob")
    decide(store, dropped, "drop", by="bob")
    look_now(review)
    expect(review.get_by_test_id("self-12")).to_have_attribute("data-decision", "drop")
    expect(review.get_by_test_id("self-12")).to_contain_text("Dropped by Bob")


def test_a_round_that_ended_early_is_resumed_where_the_next_step_stands(review: Page) -> None:
    # The outline of a model cannot be loaded, so the real trainer fails at once.
    review.get_by_test_id("train-round").click()
    resume = review.get_by_test_id("resume-next")
    open_tab(review, "Rounds")
    resume.wait_for(timeout=60_000)
    expect(resume).to_have_text("Resume training round 1")
    expect(review.get_by_test_id("stepper").locator("[aria-current]")).to_contain_text("Train")
    expect(review.get_by_test_id("next-action")).to_have_text("Review")
    # The same settings would mostly fail again, so what begins anew comes first.
    expect(resume).to_have_class("sail-quiet")
    resume.click()
    expect(resume).to_have_count(0)


def test_an_answer_that_the_judge_contradicts_can_be_given_again(review: Page, store: Store) -> None:
    (doubted,) = jobs.doubted_pairs(store, "ann")
    assert jobs.doubted_pairs(store, "bob") == []
    before = next(pair for pair in store.human_pairs() if pair.id == doubted)
    review.context.add_cookies([{"name": "sail_person", "value": "ann", "url": review.url}])
    reload(review)
    open_tab(review, "Rounds")
    card = review.get_by_test_id("doubted-pair")
    expect(card).to_have_attribute("data-pair", doubted)
    card.get_by_role("button", name="Right").click()
    expect(review.get_by_test_id("doubted")).to_be_hidden()
    until(review, lambda: jobs.doubted_pairs(store, "ann") == [])
    after = next(pair for pair in store.human_pairs() if pair.id == doubted)
    assert (after.winner, after.loser) == (before.loser, before.winner)


def test_an_answer_to_what_the_judge_contradicts_waits_in_the_browser_while_the_app_is_away(
    review: Page, store: Store
) -> None:
    review.context.add_cookies([{"name": "sail_person", "value": "ann", "url": review.url}])
    reload(review)
    open_tab(review, "Rounds")
    card, pairs = review.get_by_test_id("doubted"), review.get_by_test_id("doubted-pair")
    expect(pairs).to_have_count(1)
    review.route("**/labels*", lambda route: route.abort())
    pairs.get_by_role("button", name="Right").click()
    expect(pairs).to_have_count(0)
    expect(card).to_contain_text("1 unsent")
    open_tab(review, "Review")
    review.get_by_test_id("train-round").click()
    expect(review.get_by_test_id("trouble")).to_contain_text("An answer in Rounds is not with the app yet")
    assert [run.job for run in store.runs()].count("train") == 1
    reload(review)
    open_tab(review, "Rounds")
    expect(card).to_contain_text("Answered again")
    review.unroute("**/labels*")
    until(review, lambda: jobs.doubted_pairs(store, "ann") == [])
    expect(card).to_be_hidden()


def test_an_answer_to_what_the_judge_contradicts_that_is_refused_is_asked_for_again(
    review: Page, store: Store
) -> None:
    def refuse(route: Route) -> None:
        sent = route.request.post_data_json["answers"]
        why = {one["uuid"]: "There is no such pair." for one in sent}
        route.fulfill(json={"acknowledged": [], "refused": why})

    review.context.add_cookies([{"name": "sail_person", "value": "ann", "url": review.url}])
    reload(review)
    open_tab(review, "Rounds")
    pairs = review.get_by_test_id("doubted-pair")
    review.route("**/labels*", refuse)
    pairs.get_by_role("button", name="Right").click()
    expect(review.get_by_test_id("trouble")).to_contain_text("An answer in Rounds was not kept")
    expect(pairs).to_have_count(1)
    review.unroute("**/labels*")
    review.wait_for_timeout(300)
    pairs.get_by_role("button", name="Right").click()
    until(review, lambda: jobs.doubted_pairs(store, "ann") == [])


def test_other_pairs_are_shown_when_another_round_is_made_current(review: Page, store: Store) -> None:
    run_now(store, jobs.train(store, by="ann"))
    own = run_now(store, jobs.propose(store, by="ann"))
    store.make_current(0, by="ann")
    other = run_now(store, jobs.propose(store, by="ann"))
    for run, number in ((other, 0), (own, 1)):
        store.make_current(number, by="ann")
        look_now(review)
        first = review.get_by_test_id("self-0")
        expect(first).to_have_attribute("data-pair", store.review_pairs(run)[0].id)


# Deciding


def test_the_first_key_selects_and_the_next_decides_and_goes_on(review: Page, store: Store) -> None:
    first, second, third = (review.get_by_test_id(f"self-{n}") for n in (10, 11, 12))
    press(review, "a")
    expect(first).to_have_attribute("aria-current", "true")
    expect(first).to_have_attribute("data-decision", "none")
    press(review, "a", "x")
    expect(third).to_have_attribute("aria-current", "true")
    expect(first).to_have_attribute("data-decision", "approve")
    expect(first).to_contain_text("Approved by you")
    expect(second).to_have_attribute("data-decision", "drop")
    wait_for(lambda: decisions(store) == ["approve", "drop"])
    press(review, "k", "x")
    expect(second).to_have_attribute("data-decision", "none")
    press(review, "z")
    expect(second).to_have_attribute("data-decision", "drop")
    wait_for(lambda: decisions(store) == ["approve", "drop", "clear", "undo"])


def test_arrows_in_the_row_of_tabs_decide_nothing(review: Page, store: Store) -> None:
    press(review, "j")
    review.get_by_role("tab", name="Review", exact=True).focus()
    press(review, "ArrowRight", "ArrowLeft")
    review.wait_for_timeout(300)
    expect(review.locator("article[data-decision=none]")).to_have_count(14)
    assert decisions(store) == []


def test_a_range_selected_by_keys_or_a_click_is_decided_at_once(review: Page, store: Store) -> None:
    asked: list[str] = []
    review.on("request", lambda request: request.url.endswith("/reviews") and asked.append(request.url))
    press(review, "j", "Shift+J", "Shift+J", "Shift+J", "Shift+K")
    expect(review.locator("article[data-selected]")).to_have_count(3)
    press(review, "f")
    expect(review.locator("article[data-decision=flip]")).to_have_count(3)
    expect(review.get_by_test_id("self-13")).to_have_attribute("aria-current", "true")
    review.get_by_test_id("self-14").click(modifiers=["Shift"], position={"x": 8, "y": 8})
    press(review, "x")
    expect(review.locator("article[data-decision=drop]")).to_have_count(2)
    until(review, lambda: decisions(store) == ["flip"] * 3 + ["drop"] * 2)
    assert [pair.decision for pair in pairs(store)[10:16]] == ["flip"] * 3 + ["drop"] * 2 + [None]
    until(review, lambda: len(asked) == 2)
    press(review, "z")
    expect(review.locator("article[data-decision=drop]")).to_have_count(0)


def test_a_range_stays_selected_while_somebody_else_decides(review: Page, store: Store) -> None:
    press(review, "j", "Shift+J", "Shift+J")
    decide(store, pairs(store)[20].id, "drop", by="bob")
    look_now(review)
    expect(review.get_by_test_id("self-20")).to_have_attribute("data-decision", "drop")
    expect(review.locator("article[data-selected]")).to_have_count(3)
    press(review, "Shift+J")
    expect(review.locator("article[data-selected]")).to_have_count(4)


# The audit


def test_the_audit_is_blind_and_what_was_chosen_is_kept_as_approve_or_flip(
    audit: Page, blind_store: Store
) -> None:
    expect(audit.get_by_test_id("audit-title")).to_have_text("Audit: 0 of 10 decided")
    expect(audit.get_by_test_id("bulk")).to_be_hidden()
    expect(audit.locator("article[data-blind]")).to_have_count(AUDITED)
    expect(audit.locator("article[data-blind] [data-preferred]")).to_have_count(0)
    blind = pairs(blind_store)[:AUDITED]
    press(audit, "j", "a")
    expect(audit.get_by_test_id("self-0")).to_have_attribute("data-decision", "none")
    # The first against the judge, the second dropped, all others with it.
    other = {"left": "2", "right": "1"}
    with_it = {"left": "ArrowLeft", "right": "ArrowRight"}
    press_blind(audit, other[winner_side(blind[0].id)], "x")
    expect(audit.get_by_test_id("audit-title")).to_have_text("Audit: 2 of 10 decided")
    expect(audit.locator("article[data-blind] [data-preferred]")).to_have_count(1)
    press_blind(audit, *[with_it[winner_side(pair.id)] for pair in blind[2:]])
    expect(audit.get_by_test_id("audit-title")).to_have_text("Audit: the model was wrong in 2 of 10")
    # Although the key that completes it moves on to the pairs below.
    expect(audit.get_by_test_id("audit-title")).to_be_in_viewport()
    # Ten are counted, and give no share.
    expect(audit.get_by_test_id("audit-text")).not_to_contain_text("%")
    expect(audit.locator("article[data-blind]")).to_have_count(0)
    expect(audit.get_by_test_id("self-0")).to_have_attribute("data-decision", "flip")
    kept = {row["self_pair"]: row["decision"] for row in blind_store.review_history()}
    assert [kept[pair.id] for pair in blind] == ["flip", "drop", *["approve"] * 8]
    press(audit, "z")
    expect(audit.locator("article[data-decision=none]")).to_have_count(14 + 1)


def test_keys_pressed_on_when_the_audit_is_over_decide_nothing_that_nobody_has_seen(
    audit: Page, blind_store: Store
) -> None:
    press(audit, "j")
    press_blind(audit, *["1"] * (AUDITED + 3))
    expect(audit.get_by_test_id("audit-title")).to_contain_text("the model was wrong in")
    expect(audit.get_by_test_id("audit-title")).to_be_in_viewport()
    expect(audit.get_by_test_id("review-announcement")).to_contain_text("changed places")
    audit.wait_for_timeout(1100)
    assert len(blind_store.review_history()) == AUDITED
    # Nor does the first after that: it says which pair is meant.
    press(audit, "a")
    expect(audit.get_by_test_id("self-10")).to_have_attribute("aria-current", "true")
    expect(audit.locator("article[data-decision=none]")).to_have_count(14)
    press(audit, "a")
    until(audit, lambda: len(blind_store.review_history()) == AUDITED + 1)


def test_keys_decide_nothing_else_while_the_audits_last_decision_is_on_its_way(
    audit: Page, blind_store: Store
) -> None:
    held: list[Route] = []
    audit.route("**/reviews", lambda route: held.append(route))
    press(audit, "j")
    press_blind(audit, *["1"] * AUDITED, "1", "a", "a")
    expect(audit.locator("article[data-decision=none]")).to_have_count(14)
    expect(audit.get_by_test_id("review-announcement")).to_contain_text("are being sent")
    press(audit, "z")
    expect(audit.locator("article[data-decision=none]")).to_have_count(15)


def test_a_pair_of_the_audit_that_was_passed_over_comes_again_before_the_others(audit: Page) -> None:
    press(audit, "j", "j")
    press_blind(audit, *["1"] * (AUDITED - 1))
    expect(audit.get_by_test_id("self-0")).to_have_attribute("aria-current", "true")
    expect(audit.get_by_test_id("audit-title")).to_have_text("Audit: 9 of 10 decided")


def open_audited(store: Store, app: App, page: Page, *, wrong: int) -> Page:
    """The page with the model wrong in so many of its ten, the least clear ones."""
    blind = sorted((pair for pair in pairs(store) if pair.blind), key=lambda pair: pair.margin)
    for place, pair in enumerate(blind):
        decide(store, pair.id, "flip" if place < wrong else "approve")
    return open_review(store, app, page)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (6, "The model disagreed with you more often than not."),
        (5, "That is hardly better than guessing."),
        (3, None),
    ],
    ids=["6", "5", "3"],
)
def test_an_often_wrong_model_gets_a_smaller_share_by_button(
    blind_store: Store, app: App, page: Page, wrong: int, says: str | None
) -> None:
    review = open_audited(blind_store, app, page, wrong=wrong)
    lower, value = review.get_by_test_id("lower-share"), review.get_by_test_id("mixup-value")
    review.get_by_test_id("mixup-ratio").fill("0.6")
    expect(value).to_have_text("60 %")
    counted = "“Neither” counted as wrong; changes from now on do not alter this figure."
    advice = f" {says} Learn little from its pairs: lower their share, or label more first."
    expect(review.get_by_test_id("audit-text")).to_have_text(counted + (advice if says else ""))
    if not says:
        return expect(lower).to_be_hidden()
    lower.focus()
    press(review, "Enter")
    expect(value).to_have_text("25 %")
    expect(lower).to_be_hidden()
    expect(review.locator("summary").filter(has=value)).to_be_focused()
    reload(review)
    show_review(review)
    expect(value).to_have_text("25 %")
    expect(lower).to_be_hidden()


def test_training_waits_for_the_audit_and_to_go_without_is_recorded(audit: Page, blind_store: Store) -> None:
    expect(audit.get_by_test_id("train-round")).to_be_disabled()
    expect(audit.get_by_test_id("gate-text")).to_have_text("Training waits for 10 audit pairs.")
    anyway = audit.get_by_test_id("train-anyway")
    anyway.click()
    expect(audit.get_by_test_id("gate-text")).to_have_text(
        "You won't know how often the model is wrong. Your decision is noted."
    )
    audit.get_by_test_id("gate-back").click()
    expect(anyway).to_have_text("Train without the audit")
    assert [run.job for run in blind_store.runs()] == ["draw", "train", "propose"]
    anyway.click()
    expect(anyway).to_have_text("Train all the same")
    anyway.click()
    wait_for(lambda: blind_store.runs()[-1].job == "train" and blind_store.runs()[-1].round == 1)
    (asked, *_) = blind_store.run_history(blind_store.runs()[-1])
    assert asked["payload"]["without_audit"] and asked["payload"]["audit"]["decided"] == 0
    assert asked["by"].startswith("person-")


def test_rounds_says_how_the_review_stood_when_training_began(audit: Page, blind_store: Store) -> None:
    blind_store.name_person("bob", "Bob")
    run_now(blind_store, jobs.train(blind_store, by="bob"))
    open_tab(audit, "Rounds")
    look_now(audit)
    audit.get_by_test_id("figures-1").click()
    expect(audit.get_by_test_id("round-1")).to_contain_text("trained without the audit (asked for by Bob)")


# In bulk


def test_a_bulk_approval_is_previewed_and_taken_back_as_a_whole_after_a_reload(
    review: Page, store: Store
) -> None:
    opener = review.get_by_test_id("bulk-open")
    expect(opener).to_have_text(re.compile(r"^Approve the (\d+ )?clearest$"))
    expect(review.get_by_test_id("bulk-text")).to_contain_text(
        "As clear as a typical pair of this round, or clearer."
    )
    expect(review.get_by_test_id("bulk-text")).to_contain_text(
        re.compile(r"Of those audited 0 of \d were wrong.$")
    )
    slider = review.get_by_test_id("bulk-threshold")
    slider.fill("5")
    typical = typical_margin([pair.margin for pair in pairs(store)])
    clear = [pair for pair in pairs(store) if not pair.decision and pair.margin >= 1.25 * typical]
    expect(review.get_by_test_id("bulk-value")).to_have_text("1.25 × typical")
    offer = "Approve the clearest" if len(clear) == 1 else f"Approve the {len(clear)} clearest"
    expect(opener).to_have_text(offer)
    expect(slider).to_have_attribute("aria-valuetext", re.compile(rf"^1\.25 × typical: {offer}\. .*audited"))
    opener.click()
    expect(review.get_by_test_id("bulk-thumbs").locator("button")).to_have_count(len(clear))
    assert decisions(store) == []
    review.get_by_test_id("bulk-approve").click()
    expect(review.locator("article[data-decision=approve]")).to_have_count(AUDITED + len(clear))
    assert {pair.id for pair in pairs(store) if pair.bulk} == {pair.id for pair in clear}
    reload(review)
    show_review(review)
    expect(review.get_by_test_id("bulk-value")).to_have_text("1.25 × typical")
    expect(review.get_by_test_id("bulk-said")).to_contain_text(
        re.compile(rf"Approved by you in one go: {len(clear)} pairs? at least 1\.25 × as clear as")
    )
    expect(review.get_by_text("Approved by you in bulk")).to_have_count(len(clear))
    review.get_by_test_id("bulk-undo").click()
    expect(review.locator("article[data-decision=approve]")).to_have_count(AUDITED)
    assert [pair.decision for pair in pairs(store)] == ["approve"] * AUDITED + [None] * 14
    assert [row["undoes"] is None for row in store.bulk_history()] == [True, False]


def test_pairs_in_which_the_model_is_too_often_wrong_are_not_approved_in_one_go(
    blind_store: Store, app: App, page: Page
) -> None:
    review = open_audited(blind_store, app, page, wrong=6)
    opener, slider = review.get_by_test_id("bulk-open"), review.get_by_test_id("bulk-threshold")
    closed = "Of those audited 6 of 10 were wrong. Too often wrong to approve in one go."
    clearer = next(at for at in range(1, 10) if slider.fill(str(at)) or opener.is_enabled())
    expect(review.get_by_test_id("bulk-text")).not_to_contain_text("Too often wrong")
    opener.click()
    slider.fill("0")
    expect(opener).to_be_disabled()
    expect(review.get_by_test_id("bulk-preview")).to_be_hidden()
    expect(review.get_by_test_id("bulk-text")).to_have_text(f"However clear they are. {closed}")
    # What was approved before can still be taken back.
    slider.fill(str(clearer))
    opener.click()
    review.get_by_test_id("bulk-approve").click()
    expect(review.get_by_test_id("bulk-last")).to_be_visible()
    slider.fill("0")
    review.get_by_test_id("bulk-undo").click()
    until(review, lambda: not [pair for pair in pairs(blind_store) if pair.bulk])


def test_where_none_of_the_clearest_was_audited_all_that_were_say_whether_they_may_be_approved(
    blind_store: Store, app: App, page: Page
) -> None:
    review = open_audited(blind_store, app, page, wrong=AUDITED)
    slider = review.get_by_test_id("bulk-threshold")
    slider.fill(slider.get_attribute("max") or "")
    expect(review.get_by_test_id("bulk-text")).to_contain_text("Too often wrong to approve in one go.")
    expect(review.get_by_test_id("bulk-open")).to_be_disabled()


def test_a_card_says_in_a_word_how_clear_its_pair_is_and_the_figures_stand_in_the_large_view(
    review: Page, store: Store
) -> None:
    found = pairs(store)[AUDITED:]
    typical = typical_margin([pair.margin for pair in pairs(store)])
    assert [pair.margin for pair in found] == sorted(pair.margin for pair in found)
    first, last = review.get_by_test_id(f"self-{AUDITED}"), review.get_by_test_id("self-23")
    expect(first.locator(".sail-certainty")).to_have_text("A guess")
    expect(last.locator(".sail-certainty")).to_have_text("Clear")
    figures = f"{found[-1].margin / typical:.2f} × typical; rewards"
    expect(last.locator(".sail-certainty")).to_have_attribute("title", re.compile(re.escape(figures)))
    last.get_by_test_id("enlarge").click()
    expect(review.get_by_test_id("enlarged")).to_contain_text(figures)


def test_the_buttons_of_a_pair_keep_their_size_when_they_are_pressed(
    store: Store, app: App, browser: Browser
) -> None:
    with watched(browser, viewport={"width": 300, "height": 740}) as page:
        tell(page, store, app.address)
        buttons = page.get_by_test_id("self-10").locator(".sail-decide button")
        widths = "all => all.map((one) => [one.offsetWidth, getComputedStyle(one).fontWeight])"
        before = buttons.evaluate_all(widths)
        assert len({str(one) for one in before}) == 1
        buttons.first.click()
        expect(buttons.first).to_have_attribute("aria-pressed", "true")
        assert buttons.evaluate_all(widths) == before


def test_what_becomes_of_a_pair_is_said_where_it_is_decided(review: Page) -> None:
    said = "A pair that nobody reviews is learned as the model judged it"
    expect(review.get_by_test_id("review-help")).to_contain_text(said)
    expect(review.get_by_test_id("review-counts")).to_contain_text("0 dropped, 14 not reviewed.")
    flip = review.get_by_test_id("self-10").get_by_role("button", name="Flip")
    expect(flip).to_have_attribute("title", "Learned the other way round: the other wins. Key: F")


def test_undo_takes_a_bulk_approval_back_as_a_whole_and_in_its_turn(review: Page, store: Store) -> None:
    approved = review.locator("article[data-decision=approve]")
    press(review, "j", "x")
    review.get_by_test_id("bulk-open").click()
    press(review, "z")
    expect(review.get_by_test_id("bulk-preview")).to_be_hidden()
    review.get_by_test_id("bulk-open").click()
    press(review, "Escape")
    expect(review.get_by_test_id("bulk-preview")).to_be_hidden()
    until(review, lambda: decisions(store) == ["drop"])
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    until(review, lambda: "approve" in decisions(store))
    together = [pair for pair in pairs(store) if pair.bulk]
    expect(approved).to_have_count(AUDITED + len(together))
    card = review.locator(f'article[data-pair="{together[0].id}"]')
    card.get_by_role("button", name="Flip").click()
    expect(card).to_have_attribute("data-decision", "flip")
    press(review, "z")
    expect(card).to_have_attribute("data-decision", "approve")
    review.get_by_test_id("review-undo").click()
    expect(approved).to_have_count(AUDITED)
    assert [pair.decision for pair in pairs(store)[AUDITED:]].count(None) == 13
    expect(review.get_by_test_id("bulk-last")).to_be_hidden()
    press(review, "z")
    until(review, lambda: {pair.decision for pair in pairs(store)[AUDITED:]} == {None})
    expect(review.get_by_test_id("review-undo")).to_be_disabled()


def test_undo_leaves_what_stood_before_to_who_decided_it_and_in_its_bulk(review: Page, store: Store) -> None:
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    expect(review.get_by_test_id("bulk-last")).to_be_visible()
    (approved, *_), before = [pair for pair in pairs(store) if pair.bulk], len(decisions(store))
    decide(store, pairs(store)[AUDITED - 1].id, "flip", by="bob")
    look_now(review)
    theirs = review.locator(f'article[data-pair="{pairs(store)[AUDITED - 1].id}"]')
    expect(theirs).to_contain_text(f"Flipped by {made_up('bob')}")
    for card in (review.locator(f'article[data-pair="{approved.id}"]'), theirs):
        card.get_by_role("button", name="Drop").click()
        expect(card).to_have_attribute("data-decision", "drop")
        review.get_by_test_id("review-undo").click()
        expect(card).not_to_have_attribute("data-decision", "drop")
    expect(theirs).to_contain_text(f"Flipped by {made_up('bob')}")
    until(review, lambda: len(decisions(store)) == before + 5)
    assert next(pair for pair in pairs(store) if pair.id == approved.id) == approved
    assert [(pair.by, pair.decision) for pair in pairs(store)][AUDITED - 1] == ("bob", "flip")
    last = store.last_bulk(proposal(store))
    assert last is not None and last.pairs == len([pair for pair in pairs(store) if pair.bulk])


def test_undo_goes_back_to_what_was_decided_before_the_page_was_loaded_anew(
    review: Page, store: Store
) -> None:
    decide(store, pairs(store)[12].id, "flip", by="bob")
    look_now(review)
    card = review.locator(f'article[data-pair="{pairs(store)[12].id}"]')
    expect(card).to_have_attribute("data-decision", "flip")
    card.get_by_role("button", name="Drop").click()
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    expect(review.get_by_test_id("bulk-last")).to_be_visible()
    press(review, "j", "f")
    until(review, lambda: decisions(store)[-1] == "flip")
    reload(review)
    show_review(review)
    approved = review.locator("article[data-decision=approve]")
    for undone in (
        lambda: decisions(store)[-1] == "undo",
        lambda: store.bulk_history()[-1]["undoes"] is not None,
        lambda: decisions(store).count("undo") == 2,
    ):
        review.get_by_test_id("review-undo").click()
        until(review, undone)
    expect(approved).to_have_count(AUDITED)
    expect(card).to_have_attribute("data-decision", "flip")
    expect(review.get_by_test_id("review-undo")).to_be_disabled()
    assert [pair.decision for pair in pairs(store)[AUDITED:]].count(None) == 13


def test_a_bulk_approval_can_be_undone_before_the_app_has_heard_of_it(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews/bulk", lambda route: held.append(route))
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    until(review, lambda: len(held) == 1)
    review.get_by_test_id("review-undo").click()
    held[0].continue_()
    until(review, lambda: len(store.bulk_history()) == 2)
    expect(review.locator("article[data-decision=approve]")).to_have_count(AUDITED)
    assert {pair.decision for pair in pairs(store)[AUDITED:]} == {None}


def test_what_takes_a_bulk_approval_back_does_not_lie_under_the_bar(review: Page, store: Store) -> None:
    review.get_by_test_id("bulk-open").click()
    under_the_bar = "button => scrollBy(0, button.getBoundingClientRect().top - 110)"
    review.get_by_test_id("bulk-approve").evaluate(under_the_bar)
    review.get_by_test_id("bulk-approve").click()
    expect(review.get_by_test_id("bulk-last")).to_be_visible()
    bar, back = review.get_by_test_id("mix"), review.get_by_test_id("bulk-undo")
    until(review, lambda: is_below(back, bar))


def test_a_lost_bulk_approval_approves_nothing_and_says_so(review: Page, store: Store) -> None:
    review.route("**/reviews/bulk", lambda route: route.abort())
    review.get_by_test_id("bulk-open").click()
    review.get_by_test_id("bulk-approve").click()
    expect(review.get_by_test_id("trouble")).to_contain_text("The app does not answer")
    expect(review.locator("article[data-decision=approve]")).to_have_count(AUDITED)
    assert store.bulk_history() == []


def test_where_the_model_found_no_pair_it_says_so_and_a_round_on_peoples_pairs_can_be_trained(
    home: Path, app: App, page: Page, tmp_path: Path
) -> None:
    store, _ = proposed(tmp_path / "p", 6, audited=False)
    jobs.change_settings(store, {"min_margin": 100}, by="ann")
    run_now(store, jobs.propose(store, by="ann"))
    store.close()
    shutil.copytree(tmp_path / "p", home / "none clear")
    open_page(page, f"{app.address}/?project=none clear")
    open_tab(page, "Review")
    expect(page.get_by_test_id("audit-title")).to_have_text("The model found no pair")
    expect(page.get_by_test_id("review-counts")).to_have_text("The model found no pair for round 1.")
    expect(page.get_by_test_id("bulk")).to_be_hidden()
    expect(page.get_by_test_id("mixing")).to_be_hidden()
    page.get_by_test_id("train-round").click()
    opened = Store(home / "none clear")
    until(page, lambda: [run.job for run in opened.runs()].count("train") == 2)
    opened.close()


# The large view, and small windows


def tell(page: Page, project: Store, address: str) -> None:
    """Open Review where its tab may be behind a menu."""
    open_page(page, f"{address}/?project={project.name}")
    page.evaluate("async () => (await import('/ui/core.js')).openTab('review')")
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(24)


def test_the_large_view_fits_the_window_and_decides_and_moves_by_buttons(
    store: Store, app: App, browser: Browser
) -> None:
    for width, height in ((1280, 800), (360, 740)):
        with watched(browser, viewport={"width": width, "height": height}, has_touch=True) as page:
            tell(page, store, app.address)
            page.get_by_test_id("self-12").get_by_test_id("enlarge").click()
            large = page.get_by_test_id("enlarged")
            expect(large.locator("img")).to_have_count(2)
            over = "box => [box.scrollWidth - box.clientWidth, box.scrollHeight - box.clientHeight]"
            assert large.evaluate(over) == [0, 0]
            left, right = (large.locator(".sail-image").nth(at).bounding_box() for at in (0, 1))
            assert left and right and min(left["width"], right["width"]) > 200
            assert (abs(left["x"] - right["x"]) < 1) == (width == 360)
            for name in ("Close", "Approve", "Next"):
                expect(large.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
            expect(large.locator("[data-mark=model]")).to_have_count(1)
            expect(large).to_contain_text("3 of 14")
            large.get_by_role("button", name="Earlier").click()
            expect(large).to_contain_text("2 of 14")
            large.get_by_test_id("enlarged-flip").click()
            expect(large).to_contain_text("Flipped: your choice from now on.")
            # Space swaps what is seen now, and does not press again.
            page.wait_for_timeout(300)
            page.keyboard.press(" ")
            large.get_by_test_id("enlarged-undo").click()
            expect(large).to_contain_text("Taken back.")
            expect(large.get_by_test_id("enlarged-flip")).to_have_attribute("aria-pressed", "false")
            expect(large).to_contain_text("2 of 14")
    wait_for(lambda: decisions(store) == ["flip", "undo"] * 2)


def test_in_the_audit_the_large_view_has_sides_to_choose(audit: Page, blind_store: Store) -> None:
    audit.get_by_test_id("self-0").get_by_test_id("enlarge").click()
    large = audit.get_by_test_id("enlarged")
    expect(large).to_contain_text("1 of 10")
    expect(large.get_by_role("group", name="Decision").get_by_role("button")).to_have_text(
        [re.compile("Left"), re.compile("Right"), re.compile("Neither"), re.compile("Undo")]
    )
    # The next pair takes nothing that was meant for the one before.
    large.evaluate(
        """own => {
            const left = () => own.querySelector('[data-testid="enlarged-left"]').click();
            left();
            left();
        }"""
    )
    expect(large).to_contain_text("2 of 10")
    audit.keyboard.press("Escape")
    expect(audit.get_by_test_id("review-announcement")).to_contain_text("Too fast")
    expect(audit.get_by_test_id("audit-title")).to_have_text("Audit: 1 of 10 decided")


def test_the_mixup_ratio_can_be_moved_at_360_pixels(store: Store, app: App, browser: Browser) -> None:
    with watched(browser, viewport={"width": 360, "height": 740}, has_touch=True) as page:
        tell(page, store, app.address)
        slider = page.get_by_test_id("mixup-ratio")
        expect(slider).to_be_hidden()
        page.get_by_text("mixup ratio").click()
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box and box["x"] >= 0 and box["width"] > 150 and box["x"] + box["width"] <= 360
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(page.get_by_test_id("mixup-value")).to_have_text(re.compile("^(49|50|51) %$"))


def test_what_is_undecided_comes_first_and_moves_only_once_the_audit_is_over(
    audit: Page, blind_store: Store
) -> None:
    order = "grid => [...grid.children].map((one) => one.dataset.testid?.slice(5) ?? one.textContent)"
    grid = audit.get_by_test_id("review-grid")
    numbers = [str(number) for number in range(24)]
    others = ["The others, least clear first", *numbers[AUDITED:]]
    assert grid.evaluate(order) == [*numbers[:AUDITED], *others]
    audit.get_by_test_id("self-0").get_by_role("button", name="Left").click()
    audit.get_by_test_id("self-23").get_by_role("button", name="Drop").click()
    look_now(audit)
    until(audit, lambda: len(blind_store.review_history()) == 2)
    look_now(audit)
    assert grid.evaluate(order) == [*numbers[:AUDITED], *others]
    reload(audit)
    show_review(audit)
    assert grid.evaluate(order) == [*numbers[1:AUDITED], "0", *others]
    press(audit, "j")
    press_blind(audit, *["1"] * 9)
    expect(audit.get_by_test_id("audit-title")).to_contain_text("the model was wrong in")
    assert grid.evaluate(order) == [*numbers[AUDITED:23], "Decided already", *numbers[:AUDITED], "23"]
    expect(audit.locator("article[aria-current], article[data-selected]")).to_have_count(0)
    press(audit, "k", "j")
    expect(audit.get_by_test_id("self-11")).to_be_focused()


def test_there_is_something_to_decide_on_the_first_screen_and_a_wide_window_has_more_of_it(
    store: Store, app: App, browser: Browser
) -> None:
    across = []
    for width, height in ((1280, 800), (1920, 1080)):
        with watched(browser, viewport={"width": width, "height": height}) as page:
            tell(page, store, app.address)
            first = page.get_by_test_id("self-10")
            expect(first.get_by_role("button", name="Approve")).to_be_in_viewport(ratio=1)
            boxes = [page.locator("article").nth(at).bounding_box() for at in range(6)]
            across.append(max(box["x"] + box["width"] for box in boxes if box))
            # Nothing moves when one is decided, and its card stands clear of the bar.
            before = first.bounding_box()
            first.get_by_role("button", name="Approve").click()
            expect(first).to_contain_text("Approved by you")
            assert first.bounding_box() == before
            page.evaluate("scrollTo(0, 2000)")
            press(page, "j", "k")

            bar = page.get_by_test_id("mix")
            until(page, lambda bar=bar, first=first: is_below(first, bar))  # type: ignore[misc]
            press(page, "z")
            expect(first).to_contain_text("Not reviewed")
            # The next window is to find it so.
            until(
                page,
                lambda: [one["decision"] for one in store.review_history()].count("undo") == len(across),
            )
    assert across[0] > 1200 and across[1] > 1800


# The mixup ratio


def test_a_ratio_that_nobody_moved_follows_what_suits_the_pairs_and_is_no_setting(
    store: Store, app: App, page: Page
) -> None:
    jobs.change_settings(store, {"mixup": {"self_fraction": 0.98}}, by="ann")
    review = open_review(store, app, page)
    before, people = store.project().settings, store.counts().trainable
    expect(review.get_by_test_id("mixup-value")).to_have_text(f"{round(100 * 96 / (96 + people))} %")
    press(review, "j", "f")
    expect(review.get_by_test_id("mixup-value")).to_have_text(f"{round(100 * 92 / (92 + people + 1))} %")
    press(review, "z")
    review.get_by_test_id("train-round").click()
    until(page, lambda: [run.job for run in store.runs()].count("train") == 2)
    train = next(run for run in store.runs() if run.job == "train" and run.round == 1)
    assert RunFolder(store.run_folder(train)).request().mixup.self_fraction == 96 / (96 + people)
    assert store.project().settings == before


def test_the_mixup_ratio_is_a_draft_that_a_reload_keeps_and_all_self_is_warned_of(
    review: Page, store: Store
) -> None:
    before = store.project().settings.mixup.self_fraction
    review.get_by_test_id("mixup-ratio").fill("1")
    expect(review.get_by_test_id("mixup-warning")).to_contain_text("No pair that people judged")
    reload(review)
    show_review(review)
    expect(review.get_by_test_id("mixup-value")).to_have_text("100 %")
    expect(review.get_by_test_id("mixup-warning")).to_contain_text("No pair that people judged")
    review.get_by_test_id("mixup-ratio").fill("0.5")
    expect(review.get_by_test_id("mixup-warning")).to_be_hidden()
    people, often = store.counts().trainable, r"about \d+(\.[1-9])? times \(50 %"
    each = rf"^Each of the {people} pairs that people judged is shown {often} of the training\), "
    expect(review.get_by_test_id("mixup-meaning")).to_have_text(
        re.compile(rf"{each}each of the model’s 24 {often}\)\.$")
    )
    assert store.project().settings.mixup.self_fraction == before
