"""Review on a page whose requests are late or lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import drawn, label, make_store, run_now, wait_for
from labelling import open_tab, start_app, until
from playwright.sync_api import Page, Route, expect

from annotator import jobs
from annotator.store import Store

pytestmark = pytest.mark.browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A project with round 0 trained and self pairs for round 1."""
    store = make_store(tmp_path / "p")
    for pair in drawn(store, 5):
        label(store, pair, "left")
    run_now(store, jobs.train(store, by="ann"))
    run_now(store, jobs.propose(store, by="ann"))
    yield store
    store.close()


@pytest.fixture
def review(store: Store, root: Path, page: Page) -> Iterator[Page]:
    app = start_app(root, store.folder)
    page.goto(app.address)
    page.wait_for_selector(".sail-label[data-mounted]")
    open_tab(page, "Review")
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(4)
    yield page
    app.end()


def decisions(store: Store) -> list[str]:
    return [row["decision"] for row in store.review_history()]


def test_training_waits_for_a_decision_that_is_on_its_way(review: Page, store: Store) -> None:
    held: list[Route] = []
    decided_when_asked: list[list[str]] = []
    review.route("**/reviews", lambda route: held.append(route))
    review.route("**/runs", lambda route: (decided_when_asked.append(decisions(store)), route.abort()))
    for key in ("j", "f"):
        review.keyboard.press(key)
    review.get_by_test_id("train-round").click()
    until(review, lambda: len(held) == 1)
    review.wait_for_timeout(300)
    assert decided_when_asked == []
    held[0].continue_()
    until(review, lambda: bool(decided_when_asked))
    assert decided_when_asked == [["flip"]]


def test_training_is_refused_when_a_decision_is_lost(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    for key in ("j", "f"):
        review.keyboard.press(key)
    review.get_by_test_id("train-round").click()
    until(review, lambda: len(held) == 1)
    held[0].abort()
    review.get_by_text("A decision in Review was not kept").wait_for()
    assert [run.job for run in store.runs()] == ["draw", "train", "propose"]


def test_a_lost_decision_does_not_undo_a_later_one(review: Page, store: Store) -> None:
    held: list[Route] = []
    review.route("**/reviews", lambda route: held.append(route))
    for key in ("j", "a", "f"):
        review.keyboard.press(key)
    until(review, lambda: len(held) == 1)
    held[0].abort()
    until(review, lambda: len(held) == 2)
    held[1].continue_()
    wait_for(lambda: decisions(store) == ["flip"])
    review.wait_for_timeout(300)
    expect(review.get_by_test_id("self-0")).to_have_attribute("data-decision", "flip")


def test_a_round_that_ended_early_is_resumed_where_the_next_step_stands(review: Page) -> None:
    # The outline of a model cannot be loaded, so the real trainer fails at once.
    review.get_by_test_id("train-round").click()
    resume = review.get_by_test_id("resume-next")
    open_tab(review, "Rounds")
    resume.wait_for(timeout=60_000)
    expect(resume).to_have_text("Resume train round 1")
    expect(review.get_by_test_id("next-action")).to_have_text("Review")
    resume.click()
    expect(resume).to_have_count(0)


def test_an_answer_that_the_judge_contradicts_can_be_given_again(review: Page, store: Store) -> None:
    (doubted,) = jobs.doubted_pairs(store, "ann")
    assert jobs.doubted_pairs(store, "bob") == []
    before = next(pair for pair in store.human_pairs() if pair.id == doubted)
    review.context.add_cookies([{"name": "sail_person", "value": "ann", "url": review.url}])
    review.reload()
    review.wait_for_selector(".sail-label[data-mounted]")
    open_tab(review, "Rounds")
    card = review.get_by_test_id("doubted-pair")
    expect(card).to_have_attribute("data-pair", doubted)
    card.get_by_role("button", name="Right").click()
    expect(review.get_by_test_id("doubted")).to_be_hidden()
    after = next(pair for pair in store.human_pairs() if pair.id == doubted)
    assert (after.winner, after.loser) == (before.loser, before.winner)
    assert jobs.doubted_pairs(store, "ann") == []


def test_other_pairs_are_shown_when_another_round_is_made_current(review: Page, store: Store) -> None:
    run_now(store, jobs.train(store, by="ann"))
    own = run_now(store, jobs.propose(store, by="ann"))
    store.make_current(0, by="ann")
    other = run_now(store, jobs.propose(store, by="ann"))
    for run, number in ((other, 0), (own, 1)):
        store.make_current(number, by="ann")
        review.evaluate("async () => (await import('/ui/core.js')).poll()")
        first = review.get_by_test_id("self-0")
        expect(first).to_have_attribute("data-pair", store.review_pairs(run)[0].id)
