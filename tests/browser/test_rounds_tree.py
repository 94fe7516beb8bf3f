"""The tree of rounds as a person meets it: which came from which, by eye, by key and by screen reader."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import decide_audit, drawn, label, proposed, run_now, train_round_0, wait_for
from labelling import open_page, open_tab, watched
from playwright.sync_api import Browser, Page, Route, expect

from annotator import jobs
from annotator.store import Store
from benchmarks.running_app import App
from sail.progress import Progress
from sail.runfolder import RunFolder

pytestmark = pytest.mark.browser
REASON = "Images vary 1.00 times as much as base's; 2 is asked for."


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Round 1 from 0, kept by half; 2 from 1, refused; then back to 0, from which came 3, by half."""
    store, _ = proposed(tmp_path_factory.mktemp("grown") / "first", 4)
    store.set_settings(store.project().settings.model_copy(update={"held_out_every": 5}), by="ann")
    train(store, min_diversity_ratio=1.25)
    learn(store, min_diversity_ratio=2)
    store.make_current(0, by="ann")
    learn(store, min_diversity_ratio=1.25)
    yield store
    store.close()


def learn(store: Store, **limits: float) -> None:
    decide_audit(store, run_now(store, jobs.propose(store, by="ann")))
    train(store, **limits)


def train(store: Store, **limits: float) -> None:
    settings = store.project().settings
    stricter = settings.monitoring.model_copy(update=limits)
    store.set_settings(settings.model_copy(update={"monitoring": stricter}), by="ann")
    run_now(store, jobs.train(store, by="ann"))
    store.set_settings(settings, by="ann")


@pytest.fixture(scope="module")
def home(grown: Store) -> Path:
    return grown.folder.parent


@pytest.fixture(scope="module")
def tree(app: App, grown: Store, browser: Browser) -> Iterator[Page]:
    """The page on Rounds, opened once for all that only look at it."""
    with watched(browser) as page:
        yield opened(page, app)


@pytest.fixture
def rounds(app: App, grown: Store, page: Page) -> Iterator[Page]:
    """The page on Rounds; round 3 is current before and after."""
    yield opened(page, app)
    current = grown.current_round()
    if current is None or current.round != 3:
        grown.make_current(3, by="ann")


def opened(page: Page, app: App) -> Page:
    open_page(page, app.address)
    open_tab(page, "Rounds")
    page.get_by_test_id("round-3").wait_for()
    return page


def lanes(page: Page) -> dict[str, float]:
    """How far from the left the dot of each round is, in pixels from base's."""
    found: dict[str, float] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".sail-tree li")].map((row) => [
            row.dataset.testid.replace("round-", ""),
            row.querySelector(".sail-dot").getBoundingClientRect().left,
        ]))"""
    )
    return {name: left - found["base"] for name, left in found.items()}


def test_the_way_to_the_current_round_is_one_line_and_other_ways_lie_beside_it(tree: Page) -> None:
    found = lanes(tree)
    # A dot of a refused round is turned by an eighth, so its corner is a little further left.
    assert [name for name, left in found.items() if left < 6] == ["0", "3", "base"]
    assert 12 < found["1"] < 24 and 9 < found["2"] < 24


def test_a_screen_reader_is_told_in_words_what_the_lines_show(tree: Page) -> None:
    rows = tree.get_by_test_id("rounds").get_by_role("listitem")
    expect(rows).to_have_count(5)
    for row, (*words,) in zip(
        rows.all(),
        (
            ["Base model"],
            ["Round 0", "from base", "accepted"],
            [
                "Round 1",
                "from round 0",
                "accepted",
                "50 % of what it learned is kept",
                "1.25",
            ],
            ["Round 2", "not accepted", "from round 1", REASON],
            ["Round 3", "current", "from round 0", "accepted"],
        ),
        strict=True,
    ):
        for text in words:
            expect(row).to_contain_text(text)
    assert tree.locator(".sail-rail:not([aria-hidden=true])").count() == 0
    for name in ("Make current: base", "Make current: round 1", "Make current anyway: round 2"):
        expect(tree.get_by_role("button", name=name, exact=True)).to_be_visible()
    expect(tree.get_by_role("button", name="Make current: round 3")).to_have_count(0)


def test_what_few_held_out_pairs_say_is_told_as_a_count(tree: Page) -> None:
    expect(tree.get_by_test_id("round-3")).to_contain_text(
        "of pairs kept aside it agrees with people on 1 of 1"
    )
    expect(tree.get_by_test_id("learning")).to_contain_text(
        "it chose 1 of 1 (95 % interval 21 to 100 %) as people did: too few to tell it from chance"
    )


def test_of_a_training_that_was_cut_the_samples_show_what_is_kept(tree: Page) -> None:
    samples = tree.get_by_test_id("samples")
    expect(samples).to_contain_text("what is kept")
    # Another address than that of the whole training's, which the browser keeps for ever.
    expect(samples.get_by_role("img").nth(1)).to_have_attribute("src", re.compile(r"/6/0\?of=\w+&kept=0\.5$"))
    expect(samples.get_by_role("img").first).to_have_attribute("src", re.compile(r"/0/0\?of=\w+$"))


def test_curves_that_could_not_be_had_once_are_asked_for_again(app: App, grown: Store, page: Page) -> None:
    refused: list[Route] = []

    def once(route: Route) -> None:
        if refused:
            return route.fallback()
        refused.append(route)
        return route.abort()

    page.route(re.compile(r"/runs/\d+$"), once)
    opened(page, app)
    # The training is over, so nothing that the page hears of changes any more.
    expect(page.get_by_test_id("curves")).to_be_visible()
    assert refused


def test_an_earlier_round_is_made_current_by_keyboard_and_focus_stays_there(
    rounds: Page, grown: Store
) -> None:
    rounds.get_by_test_id("make-current-1").focus()
    rounds.keyboard.press("Enter")
    expect(rounds.get_by_test_id("rounds-said")).to_contain_text("Round 1 is current")
    expect(rounds.get_by_test_id("round-1")).to_have_attribute("data-state", "current")
    expect(rounds.get_by_test_id("next")).to_contain_text("what round 1 learned")
    expect(rounds.get_by_test_id("figures-1")).to_be_focused()
    rounds.keyboard.press("Enter")
    expect(rounds.get_by_test_id("round-1")).to_contain_text("Adapter")
    found = lanes(rounds)
    assert found["1"] < 6 < found["3"]
    chosen = [event for event in grown.events() if event["kind"] == "current_round"][-1]
    assert chosen["payload"] == {"round": 1, "why": "chosen by a person"}
    assert chosen["by"].startswith("person-")


def test_who_likes_a_refused_round_makes_it_current_all_the_same(rounds: Page, grown: Store) -> None:
    rounds.get_by_test_id("make-current-2").click()
    expect(rounds.get_by_test_id("rounds-said")).to_contain_text("Round 2 is current")
    row = rounds.get_by_test_id("round-2")
    expect(row).to_have_attribute("data-state", "current")
    expect(row).to_contain_text("not accepted")
    expect(rounds.get_by_test_id("next")).to_contain_text("what round 2 learned")
    current = grown.current_round()
    assert current is not None and current.round == 2
    open_tab(rounds, "Export")
    expect(rounds.get_by_test_id("export-facts")).to_contain_text("not accepted: " + REASON)


def test_the_loop_goes_on_from_base_once_that_is_made_current(rounds: Page, grown: Store) -> None:
    rounds.get_by_role("button", name="Make current: base").click()
    expect(rounds.get_by_test_id("rounds-said")).to_contain_text("Base is current")
    expect(rounds.get_by_test_id("round-base")).to_have_attribute("data-state", "current")
    expect(rounds.get_by_test_id("make-current-base")).to_have_count(0)
    expect(rounds.get_by_test_id("figures-0")).to_be_focused()
    expect(rounds.get_by_test_id("next")).to_contain_text("Train round 4")
    expect(rounds.get_by_test_id("next")).to_contain_text("The base model is current")
    assert grown.current_round() is None
    rounds.get_by_test_id("make-current-3").click()
    expect(rounds.get_by_test_id("round-3")).to_have_attribute("data-state", "current")


def test_the_tree_fits_360_pixels_and_answers_to_touch(app: App, grown: Store, browser: Browser) -> None:
    small = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "color_scheme": "dark"}
    with watched(browser, **small) as page:
        opened(page, app)
        box = page.get_by_test_id("make-current-0").bounding_box()
        assert box is not None and box["x"] + box["width"] <= 360 and box["height"] >= 32
        page.get_by_test_id("make-current-0").tap()
        wait_for(lambda: (now := grown.current_round()) is not None and now.round == 0)
        expect(page.get_by_test_id("round-0")).to_have_attribute("data-state", "current")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    grown.make_current(3, by="ann")


def test_every_tab_is_in_the_row_at_360_pixels(app: App, browser: Browser) -> None:
    with watched(browser, viewport={"width": 360, "height": 740}) as page:
        opened(page, app)
        for name in ("Setup", "Label", "Rounds", "Review", "Compare", "Try", "Export"):
            box = page.get_by_role("tab", name=name, exact=True).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360, name


def test_a_reload_in_the_middle_of_a_run_shows_the_same_run_and_follows_it(
    home: Path, app: App, page: Page
) -> None:
    store, _ = proposed(home / "running", 4)
    run = jobs.train(store, by="ann")
    folder = RunFolder(store.run_folder(run))
    # A trainer that holds its folder, as another process would.
    with folder.lock():
        store.record_run_event(run.id, "started")
        progress = Progress(folder, min_interval_s=0)
        for stage, step in (("draw held-out prompts (base)", "Train"), ("train", "Train")):
            progress.stage(stage, 40)
            page.goto(f"{app.address}/?project=running&tab=rounds")
            expect(page.get_by_test_id("stepper").locator("[aria-current]")).to_contain_text(step)
        work(folder, progress, 30)
        page.goto(f"{app.address}/?project=running&tab=rounds")
        row = page.get_by_test_id("run-next")
        expect(row).to_contain_text("Step 30 of 40")
        # Asked for by itself, once the row is there.
        expect(page.get_by_test_id("learning")).to_contain_text("60 %")
        learning = page.get_by_test_id("learning").text_content()
        page.reload()
        expect(row).to_contain_text("30 of 40")
        expect(row).to_have_attribute("data-state", "running")
        expect(page.get_by_test_id("learning")).to_have_text(learning)
        expect(page.get_by_role("tab", name="Rounds")).to_have_attribute("aria-selected", "true")
        work(folder, progress, 5)
        expect(row).to_contain_text("35 of 40")
        stop = page.get_by_test_id("stop-next")
        stop.focus()
        work(folder, progress, 1)
        expect(row.locator("progress")).to_have_attribute("value", "36")
        expect(stop).to_be_focused()
        stop.click()
        expect(row).to_have_attribute("data-state", "stopping")
        expect(stop).to_have_count(0)
        progress.end("stopped", "Stopped at step 36.")
    expect(page.get_by_test_id(f"run-{run.id}")).to_have_attribute("data-state", "stopped")
    expect(page.get_by_test_id("next")).to_contain_text(
        "Stopped at step 36. Resume keeps the labels and settings that it began with."
    )
    expect(page.get_by_test_id("next-action")).to_have_text("Review")
    assert [one.what for one in store.runs() if one.job == "train"] == ["done", "ended"]
    store.close()


def test_pairs_whose_files_are_gone_are_said_when_training_is_asked_for_and_in_the_round(
    app: App, project: Store, page: Page
) -> None:
    for pair in drawn(project, 6):
        label(project, pair, "left")
    Path(project.human_pairs()[0].winner.file).unlink()
    page.goto(f"{app.address}/?project={project.name}&tab=rounds")
    page.get_by_test_id("next-action").click()
    said = re.compile(r"1 judged pair is left out: runs/\S+ is gone")
    expect(page.locator(".sail-trouble")).to_have_text(said)
    (run,) = [one for one in project.runs() if one.job == "train"]
    wait_for(lambda: not project.run(run.id).unfinished, timeout_s=120)
    run_now(project, jobs.train(project, by="ann"))
    expect(page.get_by_test_id("round-0")).to_contain_text(said)


def test_a_run_that_does_not_answer_a_stop_is_ended_on_a_second_word(
    app: App, project: Store, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = jobs.draw(project, 2, by="ann")
    folder = RunFolder(project.run_folder(run))
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(folder.path)]
    hung = subprocess.Popen(command, start_new_session=True)
    now = time.time()
    monkeypatch.setattr("annotator.store.runs.time.time", lambda: now - 120)
    project.record_run_event(run.id, "stop_asked", pid=hung.pid)
    monkeypatch.undo()
    page.goto(f"{app.address}/?project={project.name}&tab=rounds")
    expect(page.get_by_test_id("device")).to_have_text("Drawing pairs")
    row = page.get_by_test_id("run-next")
    row.get_by_text("End of its log").wait_for()
    page.get_by_test_id("force-next").click()
    expect(row).to_contain_text("trained up to the last checkpoint, is kept")
    assert hung.poll() is None
    page.get_by_test_id("end-next").click()
    assert hung.wait(timeout=30) == -signal.SIGTERM
    page.get_by_test_id(f"resume-{run.id}").wait_for()


def work(folder: RunFolder, progress: Progress, steps: int) -> None:
    for _ in range(steps):
        step = len(folder.metrics()) + 1
        folder.append_metric(
            step=step, loss=0.69, margin=0.1, winner_gain=1e-4, loser_gain=-1e-4, accuracy=0.6
        )
        progress.advance()


def test_what_is_done_stays_done_while_the_first_round_is_checked(
    app: App, project: Store, page: Page
) -> None:
    for pair in drawn(project, 6):
        label(project, pair, "left")
    run = jobs.train(project, by="ann")
    folder = RunFolder(project.run_folder(run))
    with folder.lock():
        project.record_run_event(run.id, "started")
        progress = Progress(folder, min_interval_s=0)
        progress.stage("draw held-out prompts (policy)", 40)
        page.goto(f"{app.address}/?project={project.name}&tab=rounds")
        steps = page.get_by_test_id("stepper").locator("li:visible")
        expect(steps).to_have_text(["Label", "Train", "Check"])
        for step, state in zip(steps.all(), ("done", "done", "now"), strict=True):
            expect(step).to_have_attribute("data-state", state)
        # Of words that are too long for the bar the end is seen.
        page.set_viewport_size({"width": 800, "height": 720})
        device = page.get_by_test_id("device")
        progress.reach(10)
        expect(device).to_have_text(re.compile("drawing with the new round, prompt 10 of 40"))
        ends = "one => [one, one.lastChild].map((part) => part.getBoundingClientRect().right)"
        room, end = device.evaluate(ends)
        cut = device.evaluate("one => [...one.children].map((part) => part.scrollWidth > part.clientWidth)")
        assert end < room and cut == [False, True, False]
        expect(page).to_have_title(f"25 % \u00b7 {project.name} \u00b7 SAIL")
        progress.end("stopped", "Stopped.")
    expect(page).to_have_title(f"{project.name} \u00b7 SAIL")


def test_while_more_pairs_are_drawn_the_step_is_the_one_that_the_card_offers(
    app: App, project: Store, page: Page
) -> None:
    for pair in drawn(project, 6):
        label(project, pair, "left")
    run = jobs.draw(project, 2, by="ann")
    with RunFolder(project.run_folder(run)).lock():
        project.record_run_event(run.id, "started")
        page.goto(f"{app.address}/?project={project.name}&tab=rounds")
        expect(page.get_by_test_id("next-action")).to_have_text("Train round 0")
        expect(page.get_by_test_id("stepper").locator("[aria-current]")).to_contain_text("Train")
        project.record_run_event(run.id, "withdrawn", by="ann")


def test_after_an_accepted_round_comparing_comes_first_and_more_labels_are_offered(
    app: App, project: Store, page: Page
) -> None:
    trained = train_round_0(project, pairs=6)
    page.goto(f"{app.address}/?project={project.name}&tab=rounds")
    card = page.get_by_test_id("next")
    expect(card.get_by_role("heading")).to_have_text("Is round 0 better?")
    expect(card).to_contain_text("the model draws new images and chooses among them itself")
    expect(card.get_by_role("button")).to_have_text(["Compare with base", "Propose round 1", "Label 20 more"])
    expect(page.get_by_test_id(f"run-{trained.id}")).to_contain_text("took 1 s")
    assert not re.search(r"\de.\d", page.get_by_test_id("curves").inner_text())
    tops = page.get_by_test_id("samples").evaluate(
        "one => getComputedStyle(one).gridTemplateColumns.split(' ').length"
    )
    assert tops == 4
    page.get_by_test_id("next-label").click()
    wait_for(lambda: [run.job for run in project.runs()][-1] == "draw")
    expect(page.get_by_role("tab", name="Label")).to_have_attribute("aria-selected", "true")
    # The card is drawn anew when the run ends.
    wait_for(lambda: not project.runs()[-1].unfinished, timeout_s=120)
    page.go_back()
    page.get_by_test_id("next-compare").click()
    expect(page.get_by_test_id("match")).to_be_visible()


def test_what_was_stopped_is_resumed_or_started_over(app: App, project: Store, page: Page) -> None:
    for pair in drawn(project, 6):
        label(project, pair, "left")
    run = jobs.train(project, by="ann")
    project.record_run_event(run.id, "withdrawn", by="ann")
    page.goto(f"{app.address}/?project={project.name}&tab=rounds")
    card = page.get_by_test_id("next")
    expect(card.get_by_role("button")).to_have_text(["Start over", "Resume training round 0"])
    expect(card).to_contain_text("began with; Start over takes those of now.")


def test_where_a_run_ended_is_said_in_words_for_people(app: App, page: Page) -> None:
    open_page(page, app.address)
    said = page.evaluate(
        """async () => {
            const { nextAction } = await import('/ui/next.js');
            const run = { id: 'one', job: 'train', round: 1, state: 'stopped', message: '' };
            const far = { stage: 'draw held-out prompts (policy)', step: 3, total: 40 };
            const next = { name: 'train', round: 1 };
            const labels = { winners: 8, trainable: 8 };
            const status = { rounds: [], labels, next };
            const said = (far) => nextAction({ ...status, runs: [{ ...run, ...far }] })[0].textContent;
            return [said(far), said({ ...far, step: 0, total: 1 })];
        }"""
    )
    assert "How far it came: Drawing with the new round, prompt 3 of 40." in said[0]
    assert "How far it came: Drawing with the new round." in said[1]


def test_the_sentence_over_the_curves_speaks_of_the_figures_beside_them(app: App, page: Page) -> None:
    open_page(page, app.address)
    sentence, ranked, drawn_to = page.evaluate(
        """async () => {
            const [{ whileTraining }, { chart }] =
                await Promise.all(['learning', 'chart'].map((name) => import(`/ui/${name}.js`)));
            const metrics = Array.from({ length: 40 }, (_, at) => ({
                step: at + 1, loser_gain: -0.01, ...(at < 36
                    ? { accuracy: 0.6, winner_gain: 0.001 }
                    : { accuracy: 1, winner_gain: -0.002 }),
            }));
            const shown = (field) => {
                const points = metrics.map((line) => [line.step, line[field]]);
                return chart({ title: '', series: [{ name: field, points }] }).textContent;
            };
            return [whileTraining(metrics), shown('accuracy'), shown('winner_gain')];
        }"""
    )
    assert "accuracy 0.79" in ranked and "it ranks 79 % of the pairs" in sentence
    assert "winner_gain \u22120.0004" in drawn_to and "the winners stay where they were" in sentence
