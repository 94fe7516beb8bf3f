"""Setup as a person meets it: what is wrong is said at its field, and nothing that was typed is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import SETTINGS, make_model, make_store, run_now
from labelling import open_page, open_tab, until, watched
from playwright.sync_api import Browser, Locator, Page, Route, expect

from annotator import jobs
from annotator.launcher import Launcher, launch_key
from annotator.store import Store
from benchmarks.running_app import App
from sail.runfolder import RunFolder

pytestmark = pytest.mark.browser
FITS = "one => one.scrollWidth <= innerWidth"
CONTRAST = """(one, [pseudo, property]) => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const over = (top, below) => {
        const alpha = top[3] ?? 1;
        return [0, 1, 2].map((i) => alpha * top[i] + (1 - alpha) * below[i]);
    };
    const light = (color) =>
        color
            .map((value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
            .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const around = [];
    for (let at = one; at; at = at.parentElement) around.unshift(rgb(getComputedStyle(at).backgroundColor));
    const ground = around.reduce((below, top) => over(top, below), [255, 255, 255]);
    const { [property]: color, opacity } = getComputedStyle(one, pseudo || null);
    const text = rgb(color);
    const ink = over([...text.slice(0, 3), (text[3] ?? 1) * Number(opacity)], ground);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The project that the page is on, with the settings that it began with."""
    store = Store(home / "first")
    store.set_settings(SETTINGS, by="ann")
    yield store
    store.close()


@pytest.fixture
def busy(project: Store) -> Iterator[Store]:
    """A project whose run is at work, so that no other begins."""
    run = jobs.draw(project, 2, by="ann")
    with RunFolder(project.run_folder(run)).lock():
        project.record_run_event(run.id, "started")
        yield project
        project.record_run_event(run.id, "withdrawn", by="ann")


def opened(page: Page, app: App, store: Store) -> Page:
    open_page(page, f"{app.address}/?project={store.name}&tab=setup")
    page.wait_for_selector(".sail-setup[data-mounted]")
    return page


@pytest.fixture
def setup(app: App, store: Store, page: Page) -> Page:
    return opened(page, app, store)


def says(field: Locator, sentence: str) -> None:
    """The field is marked, has the focus, and is described by that sentence."""
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(sentence)


def test_nothing_can_be_typed_before_the_page_knows_what_holds(app: App, store: Store, page: Page) -> None:
    held: list[Route] = []
    page.route("**/setup", lambda route: held.append(route) if not held else route.abort())
    open_page(page, app.address)
    open_tab(page, "Setup")
    steps = page.get_by_test_id("setting-optimisation.steps")
    expect(steps).to_be_disabled()
    expect(page.get_by_test_id("prompts").locator("textarea")).to_be_disabled()
    # An app that does not answer is asked again.
    held.pop().abort()
    page.unroute("**/setup")
    expect(steps).to_be_enabled()
    steps.fill("30")
    page.get_by_test_id("settings-submit").click()
    expect(page.get_by_test_id("settings-saved")).to_have_text("Saved.")
    assert store.project().settings.optimisation.steps == 30


def test_an_address_of_no_project_leads_to_those_there_are(page: Page, app: App) -> None:
    page.clock.install()
    page.goto(f"{app.address}/?project=gone&tab=label")
    page.get_by_text("There is no project 'gone'.").first.wait_for()
    expect(page.get_by_test_id("projects").get_by_role("link")).to_have_text(["first"])
    expect(page.get_by_test_id("projects")).to_be_visible()
    # Nothing of a project stands there empty, and nothing is asked for again and again.
    expect(page.get_by_test_id("settings")).to_be_hidden()
    open_tab(page, "Label")
    expect(page.get_by_test_id("label-bar")).to_be_hidden()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(4):
        page.clock.run_for(1000)
        # Time for what is asked for to be answered, and to be asked for again.
        page.request.get(f"{app.address}/ui/core.js")
    assert len(asked) <= 2
    open_tab(page, "Setup")
    chosen = page.locator(".sail-bar select")
    expect(chosen.locator("option:checked")).to_have_text("Choose…")
    chosen.select_option("first")
    page.wait_for_url("**/?project=first&tab=setup")


def test_a_button_pressed_before_its_script_is_there_does_not_reload_the_page(page: Page, app: App) -> None:
    held: list[Route] = []
    page.route("**/ui/setup.js", lambda route: held.append(route))
    open_page(page, app.address)
    open_tab(page, "Setup")
    until(page, lambda: bool(held))
    here = page.url
    page.evaluate("window.stays = true")
    page.get_by_test_id("create-submit").click(force=True)
    page.get_by_test_id("create-name").focus()
    page.keyboard.press("Enter")
    held.pop().continue_()
    page.wait_for_selector(".sail-setup[data-mounted]")
    page.get_by_test_id("create-submit").click()
    expect(page.get_by_test_id("create-name")).to_be_focused()
    assert page.url == here and page.evaluate("window.stays")


@pytest.fixture(scope="module")
def setup_of_all(app: App, browser: Browser) -> Iterator[Page]:
    """Setup, opened once for all tests that leave nothing but words in it."""
    with watched(browser) as page:
        open_page(page, f"{app.address}/?project=first&tab=setup")
        page.wait_for_selector(".sail-setup[data-mounted]")
        yield page


@pytest.fixture
def form(setup_of_all: Page) -> Page:
    """The form of a new project, with nothing in it."""
    setup_of_all.get_by_test_id("create").evaluate(
        """form => {
            form.reset();
            for (const field of form.querySelectorAll("input:not([type=file]), textarea"))
                for (const said of ["input", "change"])
                    field.dispatchEvent(new Event(said, { bubbles: true }));
            for (const fold of form.querySelectorAll("details")) fold.open = false;
        }"""
    )
    return setup_of_all


def test_a_file_of_prompts_that_is_no_utf_8_is_refused_at_the_prompts(form: Page) -> None:
    prompts, file = form.get_by_test_id("create-prompts"), form.get_by_test_id("create-file")
    prompts.fill("a cat")
    file.set_input_files({"name": "old.txt", "mimeType": "text/plain", "buffer": "a füchs".encode("latin-1")})
    says(prompts, "old.txt is no text in UTF-8. Save it as UTF-8, or paste its lines here.")
    expect(prompts).to_have_value("a cat")
    # So that the same file, once it is mended, is another choice.
    expect(file).to_have_value("")
    file.set_input_files({"name": "new.txt", "mimeType": "text/plain", "buffer": "a füchs".encode()})
    expect(prompts).to_have_value("a füchs")
    expect(prompts).not_to_have_attribute("aria-invalid", "true")
    file.set_input_files({"name": "none.txt", "mimeType": "text/plain", "buffer": b" \n"})
    says(prompts, "none.txt has no prompts.")
    expect(prompts).to_have_value("a füchs")
    # What was typed before can be had again, and so can what took its place.
    former = form.get_by_test_id("create-former")
    for text in ("a cat", "a füchs"):
        expect(former).to_contain_text("1 former prompt went.")
        former.get_by_role("button", name="Put back what was there").click()
        expect(prompts).to_have_value(text)


def test_words_that_the_starter_does_not_know_are_told_before_a_project_is_made(
    setup: Page,
) -> None:
    prompts, strange = setup.get_by_test_id("create-prompts"), setup.get_by_test_id("create-strange")
    prompts.fill("A big 3d fox on a blue background\nan owl")
    expect(strange).to_be_hidden()
    prompts.fill("a cat on the moon\n\U0001f98a\nשועל")
    expect(strange).to_contain_text("Not among them: cat, the, moon, \U0001f98a, שועל.")
    expect(setup.get_by_test_id("prompts-strange")).to_be_hidden()
    # Of another model nobody can say.
    setup.get_by_test_id("create-model").fill("/nowhere")
    setup.get_by_test_id("create-model").blur()
    expect(strange).to_be_hidden()


def test_who_leaves_setup_with_a_name_or_a_model_typed_is_asked_first(setup: Page) -> None:
    asked: list[str] = []
    setup.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))

    def leave() -> list[str]:
        asked.clear()
        setup.evaluate("setTimeout(() => (location.href = '/?project=first&tab=export'))")
        setup.wait_for_timeout(500)
        return list(asked)

    for field in ("create-name", "create-model"):
        before = setup.get_by_test_id(field).input_value()
        setup.get_by_test_id(field).fill("mine")
        assert leave() == ["beforeunload"]
        setup.get_by_test_id(field).fill(before)
    assert leave() == []


def test_a_name_that_is_taken_is_said_at_the_name_and_the_prompts_stay(form: Page) -> None:
    name, prompts = form.get_by_test_id("create-name"), form.get_by_test_id("create-prompts")
    name.fill("first")
    prompts.fill("a fox\na cat")
    form.get_by_test_id("create-submit").click()
    says(name, "There is a project 'first' already. Choose another name.")
    expect(prompts).to_have_value("a fox\na cat")
    expect(form.get_by_test_id("create-error")).to_be_hidden()
    name.press("End")
    name.press("x")
    expect(name).not_to_have_attribute("aria-invalid", "true")


def test_a_name_that_differs_in_capitals_alone_is_taken(form: Page) -> None:
    form.get_by_test_id("create-name").fill("FIRST")
    form.get_by_test_id("create-prompts").fill("a fox")
    form.get_by_test_id("create-submit").click()
    says(form.get_by_test_id("create-name"), "There is a project 'first' already. Choose another name.")


def test_a_name_that_is_as_long_as_may_be_is_said_while_it_is_typed(form: Page) -> None:
    name, hint = form.get_by_test_id("create-name"), form.get_by_test_id("create-name-hint")
    name.press_sequentially("a" * 59)
    expect(hint).to_have_text("")
    name.press_sequentially("aa")
    expect(hint).to_have_text("A name has 60 characters at most.")
    name.press("Backspace")
    expect(hint).to_have_text("")


def test_each_mistake_of_a_new_project_is_said_at_its_own_field(form: Page, tmp_path: Path) -> None:
    submit = form.get_by_test_id("create-submit")
    field = {one: form.get_by_test_id(f"create-{one}") for one in ("name", "model", "prompts", "revision")}
    submit.click()
    says(field["name"], "Name is missing.")
    field["name"].fill("mine")
    field["model"].fill("/nowhere")
    submit.click()
    says(
        field["model"],
        "No model at '/nowhere'. Give a folder with a model_index.json, a .safetensors file or a Hugging "
        "Face name (owner/model).",
    )
    field["model"].fill("owner/name")
    submit.click()
    expect(field["revision"]).to_be_focused()
    expect(field["revision"]).to_have_accessible_description(
        "No model folder at owner/name; as a Hugging Face name it needs a revision (a commit hash)."
    )
    field["model"].fill(str(make_model(tmp_path / "model")))
    submit.click()
    says(field["prompts"], "There is no prompt. Write at least one, one per line.")
    expect(field["name"]).to_have_value("mine")


def test_an_empty_form_is_told_all_that_is_missing(form: Page) -> None:
    form.get_by_test_id("create-model").fill("")
    form.get_by_test_id("create-submit").click()
    for name, sentence in (
        ("name", "Name is missing."),
        ("model", "Model is missing."),
        ("prompts", "There is no prompt. Write at least one, one per line."),
    ):
        expect(form.get_by_test_id(f"create-{name}")).to_have_accessible_description(sentence)
    expect(form.get_by_test_id("create-name")).to_be_focused()
    expect(form.get_by_test_id("create-error")).to_be_hidden()


def test_how_many_prompts_were_typed_is_counted_and_whether_they_are_enough(form: Page) -> None:
    prompts, count = form.get_by_test_id("create-prompts"), form.get_by_test_id("create-count")
    prompts.fill("a fox\n\na cat \na cat")
    expect(count).to_have_text("2 prompts: enough to try; two hundred or more to learn a taste.")
    prompts.fill("\n".join(f"a fox of age {age}" for age in range(200)))
    expect(count).to_have_text("200 prompts.")


def test_a_new_project_says_how_the_model_is_drawn_where_nothing_is_entered(form: Page, home: Path) -> None:
    flux = home / "flux"
    flux.mkdir()
    (flux / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    form.get_by_test_id("create-advanced").locator("summary").click()
    steps, guidance = form.get_by_test_id("create-steps"), form.get_by_test_id("create-guidance")
    for model, usual in (
        ("starter", ("12", "2")),
        (str(flux), ("28", "3.5")),
        ("nowhere", ("", "")),
    ):
        form.get_by_test_id("create-model").fill(model)
        form.get_by_test_id("create-model").blur()
        expect(steps).to_have_attribute("placeholder", usual[0])
        expect(guidance).to_have_attribute("placeholder", usual[1])


def test_the_size_of_images_is_chosen_with_the_project_and_is_one_for_all_pairs(
    app: App, busy: Store, page: Page, home: Path
) -> None:
    setup = opened(page, app, busy)
    setup.get_by_test_id("create-name").fill("wide")
    setup.get_by_test_id("create-prompts").fill("a fox\na cat")
    setup.get_by_test_id("create-advanced").locator("summary").click()
    setup.get_by_test_id("create-pairs").fill("2")
    size, submit = setup.get_by_test_id("create-size"), setup.get_by_test_id("create-submit")
    for typed, sentence in (
        ("big", "Image size must be two numbers, such as 768 x 512."),
        ("32 x 4", "Image size must be at least 8."),
        ("32 x 40", "Height and width must be multiples of 16, got 40."),
    ):
        size.fill(typed)
        submit.click()
        says(size, sentence)
    size.fill("32 x 48")
    steps, guidance = setup.get_by_test_id("create-steps"), setup.get_by_test_id("create-guidance")
    steps.fill("0")
    submit.click()
    says(steps, "Sampling steps must be at least 1.")
    steps.fill("3")
    guidance.fill("1.5")
    submit.click()
    setup.wait_for_url("**project=wide**")
    open_tab(setup, "Setup")
    setup.wait_for_selector(".sail-setup[data-mounted]")
    setup.get_by_test_id("settings-advanced").locator("summary").click()
    own = setup.get_by_test_id("setting-sampling.size")
    expect(own).to_have_value("32 x 48")
    made = Store(home / "wide")
    sampling = made.project().settings.sampling
    assert (sampling.steps, sampling.guidance) == (3, 1.5)
    (run,) = made.runs()
    assert RunFolder(made.run_folder(run)).request().sampling.size == (32, 48)
    run_now(made, run)
    own.fill("48x32")
    setup.get_by_test_id("settings-submit").click()
    expect(own).to_have_accessible_description(re.compile("pairs of two sizes"))
    made.close()


def test_where_a_model_was_moved_to_is_said_in_setup_and_checked_at_its_field(
    setup: Page, store: Store
) -> None:
    before = Path(store.project().model.source)
    there = before.with_name("moved-model")
    setup.get_by_text("Where the model is", exact=True).click()
    expect(setup.get_by_test_id("moved")).to_contain_text("another model needs a project of its own")
    field, revision = setup.get_by_test_id("moved-model"), setup.get_by_test_id("moved-revision")
    expect(field).to_have_value(str(before))
    field.fill(str(there))
    setup.get_by_test_id("moved-submit").click()
    says(
        field,
        f"No model at '{there}'. Give a folder with a model_index.json, a .safetensors file or a Hugging "
        "Face name (owner/model).",
    )
    field.fill("owner/name")
    expect(revision).to_be_visible()
    expect(setup.get_by_test_id("create-revision")).to_be_hidden()
    setup.get_by_test_id("moved-submit").click()
    expect(revision).to_be_focused()
    before.rename(there)
    field.fill(str(there))
    expect(revision).to_be_hidden()
    setup.get_by_test_id("moved-submit").click()
    expect(setup.get_by_test_id("moved-saved")).to_contain_text("Saved.")
    expect(setup.get_by_test_id("project-facts")).to_contain_text(str(there))
    assert store.project().model.source == str(there)


def test_several_settings_are_wrong_at_once_and_the_fold_opens_for_them(setup: Page, store: Store) -> None:
    expect(setup.get_by_test_id("setting-loss.beta")).to_be_hidden()
    setup.get_by_test_id("settings-advanced").locator("summary").click()
    setup.get_by_test_id("setting-loss.beta").fill("-3")
    setup.get_by_test_id("setting-lora.rank").fill("")
    setup.get_by_test_id("setting-sampling.guidance").fill("3")
    setup.get_by_test_id("settings-advanced").locator("summary").click()
    setup.get_by_test_id("settings-submit").click()
    says(setup.get_by_test_id("setting-loss.beta"), "Beta must be more than 0.")
    expect(setup.get_by_test_id("setting-lora.rank")).to_have_accessible_description("LoRA rank is missing.")
    expect(setup.get_by_test_id("setting-sampling.guidance")).to_have_value("3")
    assert store.project().settings == SETTINGS
    setup.get_by_test_id("setting-loss.beta").fill("30")
    setup.get_by_test_id("setting-lora.rank").fill("4")
    setup.get_by_test_id("settings-submit").click()
    setup.get_by_text("Saved.").wait_for()
    settings = store.project().settings
    assert (settings.loss.beta, settings.lora.rank, settings.sampling.guidance) == (30, 4, 3)
    expect(setup.locator("[aria-invalid]")).to_have_count(0)


def test_how_runs_are_started_is_refused_at_its_field_and_kept(setup: Page, store: Store, root: Path) -> None:
    setup.get_by_test_id("settings-advanced").locator("summary").click()
    processes = setup.get_by_test_id("setting-launcher.processes")
    command = setup.get_by_test_id("setting-launcher.command")
    expect(processes).to_have_value("1")
    processes.fill("2")
    command.fill("no-such-program {command}")
    setup.get_by_test_id("settings-submit").click()
    says(command, "There is no program 'no-such-program' here. Give its full path, or install it.")
    assert store.project().launcher.processes == 1
    command.fill("{python} {command}")
    setup.get_by_test_id("settings-submit").click()
    expect(setup.get_by_test_id("settings-saved")).to_have_text("Saved.")
    # What the app takes for entered here: it is served from the repository.
    store.launch_key = launch_key(root / "data" / "launch.key")
    assert store.project().launcher == Launcher(processes=2, command="{python} {command}")
    assert store.project().settings == SETTINGS
    expect(setup.locator('[data-default="launcher.command"]')).to_have_text("Default none.")


def test_what_two_settings_are_to_blame_for_is_said_at_the_one_that_was_changed(setup: Page) -> None:
    setup.get_by_test_id("settings-advanced").locator("summary").click()
    setup.get_by_test_id("setting-self_pairs_per_prompt").fill("3")
    setup.get_by_test_id("settings-submit").click()
    says(
        setup.get_by_test_id("setting-self_pairs_per_prompt"),
        "3 pairs of a prompt (self_pairs_per_prompt) need 6 candidates (num_candidates), got 3. "
        "Set num_candidates to at least 6, or self_pairs_per_prompt to at most 1.",
    )


def test_a_new_user_sees_three_settings_and_what_was_changed_shows_its_default(
    setup: Page, store: Store
) -> None:
    shown = setup.get_by_test_id("settings").locator("input:visible")
    expect(shown).to_have_count(3)
    expect(setup.locator('[data-default="optimisation.steps"]')).to_have_text("Default 200.")
    expect(setup.locator('[data-default="candidates_per_pair"]')).to_be_hidden()
    expect(setup.locator('[data-part="advanced"]')).to_contain_text("of them changed")


def test_settings_that_were_typed_survive_the_saving_of_prompts(setup: Page, store: Store) -> None:
    steps = setup.get_by_test_id("setting-optimisation.steps")
    steps.fill("77")
    prompts = setup.locator('[data-testid="prompts"] textarea')
    before = prompts.input_value()
    prompts.fill("a fox\na cat\na dog")
    setup.get_by_test_id("prompts-submit").click()
    setup.get_by_text("Saved 3 prompts.").wait_for()
    expect(setup.get_by_test_id("project-facts")).to_contain_text("3 prompts")
    expect(steps).to_have_value("77")
    assert store.project().prompts == ("a fox", "a cat", "a dog")
    former = setup.get_by_test_id("prompts-former")
    gone = len(set(before.split("\n")) - {"a fox", "a cat", "a dog"})
    expect(former).to_contain_text(f"{gone} former prompt")
    former.get_by_role("button").click()
    expect(prompts).to_have_value(before)
    setup.get_by_test_id("prompts-submit").click()
    setup.get_by_text(f"Saved {len(before.splitlines())} prompt").wait_for()
    assert "\n".join(store.project().prompts) == before


def test_a_setting_changed_in_another_tab_is_not_overwritten(setup: Page, store: Store) -> None:
    steps = setup.get_by_test_id("setting-optimisation.steps")
    expect(steps).to_have_value("6")
    changed = store.project().settings.model_copy(update={"num_candidates": 5})
    store.set_settings(changed, by="bob")
    steps.fill("9")
    setup.get_by_test_id("settings-submit").click()
    setup.get_by_text("Saved.").wait_for()
    settings = store.project().settings
    assert (settings.optimisation.steps, settings.num_candidates) == (9, 5)
    expect(setup.get_by_test_id("setting-num_candidates")).to_have_value("5")


def test_prompts_changed_in_another_tab_are_not_overwritten(setup: Page, store: Store) -> None:
    field = setup.locator('[data-testid="prompts"] textarea')
    expect(field).not_to_have_value("")
    store.set_prompts(["a fox", "a pizza"], by="bob")
    field.fill("a house")
    setup.get_by_test_id("prompts-submit").click()
    setup.get_by_text("The prompts were changed elsewhere").wait_for()
    assert store.project().prompts == ("a fox", "a pizza")
    expect(field).to_have_value("a house")
    # The same as they are is no conflict: so it is where the answer to a saving was lost.
    field.fill("a fox\na pizza")
    setup.get_by_test_id("prompts-submit").click()
    setup.get_by_text("Saved 2 prompts.").wait_for()


def test_what_is_typed_while_settings_are_saved_stays(setup: Page, store: Store) -> None:
    steps, prompts = (
        setup.get_by_test_id(f"setting-{n}") for n in ("optimisation.steps", "prompts_per_round")
    )
    held: list[Route] = []
    setup.route("**/settings", lambda route: held.append(route))
    steps.fill("9")
    setup.get_by_test_id("settings-submit").click()
    until(setup, lambda: bool(held))
    prompts.fill("7")
    held.pop().continue_()
    setup.get_by_text("Saved.").wait_for()
    expect(prompts).to_have_value("7")
    assert store.project().settings.optimisation.steps == 9


def test_prompts_are_copied_from_the_open_project_into_a_new_one(
    setup: Page, home: Path, tmp_path: Path
) -> None:
    setup.get_by_test_id("create-copy").click()
    copied = setup.get_by_test_id("create-prompts")
    copied_text = setup.locator('[data-testid="prompts"] textarea').input_value()
    expect(copied).to_have_value(copied_text)
    setup.get_by_test_id("create-name").fill("second")
    # An outline of a model: what is asked for first cannot be drawn, so nothing goes on after this test.
    setup.get_by_test_id("create-model").fill(str(make_model(tmp_path / "model")))
    setup.get_by_test_id("create-submit").click()
    setup.wait_for_url("**/?project=second*")
    made = Store(home / "second")
    assert "\n".join(made.project().prompts) == copied_text
    made.close()


def test_a_long_name_of_a_project_widens_neither_setup_nor_the_bar(
    home: Path, app: App, browser: Browser
) -> None:
    long = "x" * 60
    make_store(home / long).close()
    for width in (360, 1280):
        with watched(browser, viewport={"width": width, "height": 740}) as page:
            open_page(page, f"{app.address}/?project={long}&tab=setup")
            page.wait_for_selector(".sail-setup[data-mounted]")
            for part in (page.get_by_test_id("create-name"), page.get_by_test_id("create-copy")):
                card, own = part.locator("xpath=ancestor::section").bounding_box(), part.bounding_box()
                assert card and own and own["x"] + own["width"] <= card["x"] + card["width"]
            title = page.locator('.sail-setup [data-part="title"]')
            assert title.evaluate("one => one.scrollWidth <= one.clientWidth")
            chosen = page.get_by_test_id("project-select").bounding_box()
            name = page.get_by_test_id("name").bounding_box()
            assert chosen and name and (width < 400 or name["y"] < chosen["y"] + chosen["height"])
            assert chosen["width"] <= 256 and page.locator("html").evaluate(FITS)


def test_saved_stays_its_time_after_a_second_saving(setup: Page) -> None:
    setup.clock.install()
    saved = setup.get_by_test_id("settings-saved")
    for steps in ("31", "32"):
        setup.get_by_test_id("setting-optimisation.steps").fill(steps)
        setup.get_by_test_id("settings-submit").click()
        expect(saved).to_have_text("Saved.")
        setup.clock.run_for(3000)
    expect(saved).to_have_text("Saved.")
    setup.clock.run_for(1500)
    expect(saved).to_have_text("")


def test_in_the_dark_the_browsers_own_parts_are_dark_and_words_stand_out(app: App, browser: Browser) -> None:
    for scheme in ("dark", "light"):
        with watched(browser, color_scheme=scheme) as page:
            open_page(page, f"{app.address}/?tab=setup")
            page.wait_for_selector(".sail-setup[data-mounted]")
            dark = page.locator("html").evaluate("one => getComputedStyle(one).colorScheme === 'dark'")
            assert dark == (scheme == "dark")
            for selector, pseudo, property, least in (
                ('[role="tab"][aria-selected="true"]', "", "color", 4.5),
                ('[data-testid="create-prompts"]', "::placeholder", "color", 4.5),
                ('[data-testid="create-prompts"]', "", "borderTopColor", 3),
                ('[data-testid="project-select"]', "", "borderTopColor", 3),
            ):
                contrast = page.locator(selector).first.evaluate(CONTRAST, [pseudo, property])
                assert contrast >= least, (scheme, selector, property)


def test_what_the_device_does_for_another_project_is_named(
    app: App, busy: Store, store: Store, page: Page
) -> None:
    opened(page, app, busy)
    page.goto(f"{app.address}/?project=first&tab=rounds")
    device = page.get_by_test_id("device")
    expect(device).to_have_text(f"Busy: Drawing pairs in {busy.name}")
    waiting = jobs.draw(store, 2, by="ann")
    expect(device).to_have_text(f"Draw pairs waits · Drawing pairs in {busy.name}")
    expect(page.get_by_test_id("next")).to_contain_text(f"Now: Drawing pairs in {busy.name}.")
    store.record_run_event(waiting.id, "withdrawn", by="ann")


def test_on_a_wide_window_rounds_takes_more_room_and_the_bar_stays_in_its_place(
    app: App, browser: Browser
) -> None:
    with watched(browser, viewport={"width": 1920, "height": 1080}) as page:
        open_page(page, app.address)
        name = page.get_by_test_id("name")
        before, narrow = name.bounding_box(), page.get_by_test_id("panel-label").bounding_box()
        open_tab(page, "Rounds")
        wide = page.get_by_test_id("panel-rounds").bounding_box()
        assert narrow and wide and narrow["width"] <= 1016 and 1250 < wide["width"] <= 1400
        assert name.bounding_box() == before


def test_a_project_is_renamed_removed_and_put_back(page: Page, app: App, home: Path) -> None:
    make_store(home / "mine").close()
    open_page(page, f"{app.address}/?project=mine&tab=setup")
    page.wait_for_selector(".sail-setup[data-mounted]")
    page.get_by_text("Rename or remove").click()
    name = page.get_by_test_id("renamed-name")
    expect(name).to_have_value("mine")
    name.fill("first")
    name.press("Enter")
    says(name, "There is a project 'first' already. Choose another name.")
    name.fill("my own")
    name.press("Enter")
    page.wait_for_url("**/?project=my+own&tab=setup")
    page.wait_for_selector(".sail-setup[data-mounted]")
    projects = page.get_by_test_id("projects")
    mine = projects.get_by_role("link", name="my own")
    expect(mine).to_be_visible()
    expect(projects.get_by_role("link", name="mine", exact=True)).to_have_count(0)
    page.get_by_text("Rename or remove").click()
    page.get_by_test_id("remove").click()
    page.wait_for_url("**/?project=first&tab=setup")
    page.wait_for_selector(".sail-setup[data-mounted]")
    expect(projects.get_by_role("link", name="first")).to_be_visible()
    expect(mine).to_have_count(0)
    page.get_by_text("Removed projects").click()
    page.get_by_role("button", name="Put my own back").click()
    page.wait_for_url("**/?project=my+own&tab=setup")
    expect(mine).to_be_visible()
    expect(page.get_by_test_id("removed-fold")).to_be_hidden()


def test_why_a_project_stays_is_said_beside_the_button(setup: Page) -> None:
    setup.get_by_text("Rename or remove").click()
    setup.get_by_test_id("remove").click()
    expect(setup.get_by_test_id("renamed-error")).to_contain_text(
        "first is the project that this app was started with"
    )
    expect(setup.get_by_test_id("projects").get_by_role("link", name="first")).to_be_visible()
