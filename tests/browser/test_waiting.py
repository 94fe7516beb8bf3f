"""A run that one waits for, in every place that shows it."""

from __future__ import annotations

import time

import pytest
from annotating import at_work, train_round_0
from playwright.sync_api import Page, expect

from annotator import jobs, looks
from annotator.rows import Run
from annotator.store import Store
from benchmarks.running_app import App
from sail.progress import Progress

pytestmark = pytest.mark.browser


def looks_as_everywhere(
    page: Page, place: str, what: str, progress: Progress, *, far: str = "12 of 40 prompts"
) -> None:
    """What is done, Stop, a bar and a sentence, in this order, which count on while Stop keeps the focus."""
    block = page.get_by_test_id(f"run-{place}")
    expect(block.get_by_role("heading")).to_have_text(what)
    stop = block.get_by_role("button")
    expect(stop).to_have_text("Stop")
    stop.focus()
    progress.reach(12)
    expect(block.locator("progress")).to_have_attribute("value", "12")
    expect(block).to_contain_text(far)
    expect(stop).to_be_focused()
    parts = block.evaluate("one => [...one.querySelectorAll('*')].map((part) => part.tagName)")
    assert parts == ["DIV", "H3", "BUTTON", "PROGRESS", "P"]


def stop(page: Page, place: str) -> None:
    page.get_by_test_id(f"stop-{place}").click()
    block = page.get_by_test_id(f"run-{place}")
    expect(block).to_have_attribute("data-state", "stopping")
    expect(block.get_by_role("button")).to_have_count(0)


def test_pairs_that_are_drawn_are_shown_alike_in_label_and_in_rounds(
    app: App, project: Store, page: Page
) -> None:
    run = jobs.draw(project, 2, by="ann")
    with at_work(project, run, "draw") as (_, progress):
        page.goto(f"{app.address}/?project={project.name}")
        looks_as_everywhere(page, "label", "Drawing pairs", progress)
        expect(page.get_by_test_id("label-heading")).to_have_text("Drawing pairs")
        page.goto(f"{app.address}/?project={project.name}&tab=rounds")
        looks_as_everywhere(page, "next", "Drawing pairs", progress)
        # There is no other run, so there is no list of them.
        expect(page.get_by_test_id("runs")).to_be_hidden()
        page.get_by_test_id("next-action").click()
        stop(page, "label")
        progress.end("stopped", "Stopped.")
    expect(page.get_by_test_id("resume-draw")).to_be_visible()


def test_what_is_proposed_compared_tried_and_exported_is_shown_alike(
    app: App, project: Store, page: Page
) -> None:
    train_round_0(project, pairs=6)
    match = looks.match_between(project, 0, None)
    for tab, what, ask in (
        ("review", "Proposing round 1", lambda: jobs.propose(project, by="ann")),
        ("compare", "Drawing comparisons of round 0", lambda: looks.compare(project, match, 5, by="ann")),
        ("try", "Drawing a try", lambda: tried(project)),
        ("export", "Exporting round 0", lambda: jobs.export(project, by="ann")),
    ):
        run = ask()
        place = f"try-{run.id}" if tab == "try" else tab
        with at_work(project, run, "draw") as (_, progress):
            page.goto(f"{app.address}/?project={project.name}&tab={tab}")
            counted = "images" if tab in ("compare", "try") else "prompts"
            looks_as_everywhere(page, place, what, progress, far=f"12 of 40 {counted}")
            stop(page, place)
            progress.end("stopped", "Stopped.")
        expect(page.get_by_test_id(f"run-{place}")).to_have_count(0)


def tried(store: Store) -> Run:
    return looks.try_prompt(store, "a fox", [None, 0], strength=1, count=1, noise_seed=0, by="ann")


def test_rounds_shows_what_is_at_work_once_and_below_it_what_waits_in_its_turn(
    app: App, project: Store, page: Page
) -> None:
    train_round_0(project, pairs=6)
    run = jobs.propose(project, by="ann")
    with at_work(project, run, "draw and judge") as (_, progress):
        progress.reach(12)
        match = looks.match_between(project, 0, None)
        again, *others = (
            tried(project),
            jobs.export(project, by="ann"),
            jobs.draw(project, 4, by="ann"),
            looks.compare(project, match, 5, by="ann"),
        )
        # What is resumed waits behind those that came meanwhile.
        project.record_run_event(again.id, "withdrawn", by="ann")
        project.record_run_event(again.id, "queued", by="ann")
        page.goto(f"{app.address}/?project={project.name}&tab=rounds")
        expect(page.get_by_test_id("run-next")).to_contain_text("Prompt 12 of 40")
        panel = page.get_by_test_id("panel-rounds")
        expect(panel.get_by_role("heading", name="Proposing round 1")).to_have_count(1)
        expect(panel.get_by_role("button", name="Stop")).to_have_count(1)
        waiting = page.get_by_test_id("runs").locator('[data-state="waiting"]')
        expect(waiting).to_have_count(4)
        found = [row.get_attribute("data-testid") for row in waiting.all()]
        assert found == [f"run-{one.id}" for one in (*others, again)]
        expect(waiting.first).to_contain_text("Now: Proposing round 1 · prompt 12 of 40")
        expect(waiting.last).to_contain_text("Waits its turn: 4 runs before it.")
        # What is over comes after all that waits.
        rows = page.get_by_test_id("runs").locator(".sail-run")
        expect(rows.nth(4)).to_have_attribute("data-state", "done")
        for one in (*others, again):
            project.record_run_event(one.id, "withdrawn", by="ann")
        progress.end("stopped", "Stopped at prompt 12.")
    expect(page.get_by_test_id(f"run-{run.id}")).to_contain_text("Prompt 12 of 40")
    expect(page.get_by_test_id("run-next")).to_have_count(0)


def test_of_a_run_that_says_nothing_for_long_the_log_is_where_one_waits_for_it(
    app: App, project: Store, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = jobs.draw(project, 2, by="ann")
    now = time.time()
    monkeypatch.setattr("annotator.store.runs.time.time", lambda: now - 740)
    with at_work(project, run, "draw") as (folder, progress):
        monkeypatch.undo()
        (folder.path / "log.txt").write_text("it hangs here")
        for tab, place in (("label", "label"), ("rounds", "next")):
            page.goto(f"{app.address}/?project={project.name}&tab={tab}")
            block = page.get_by_test_id(f"run-{place}")
            expect(block).to_contain_text("0 of 40 prompts. Nothing heard for 12 min.")
            block.get_by_text("End of its log").click()
            expect(block.get_by_text("it hangs here")).to_be_visible()
        progress.end("stopped", "Stopped.")
