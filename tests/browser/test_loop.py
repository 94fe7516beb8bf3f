"""The whole loop through the page, with the starter model and a real trainer: label to exported LoRA."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from annotating import wait_for
from labelling import GUARD_MS, answer, open_page, open_tab, wait_for_pair
from playwright.sync_api import Page, expect

from annotator import jobs
from annotator.audit import winner_side
from annotator.store import Store
from benchmarks.running_app import App, start_app
from sail.config import Loss, Monitoring, Optimisation, Sampling, Scoring
from sail.files import sha256_file
from sail.model_ref import ModelRef
from sail.runfolder import ADAPTER_FILE, MERGED_FOLDER, RunFolder
from sail.settings import LoopSettings

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_MS = 300_000
SETTINGS = LoopSettings(
    prompts_per_round=4,
    num_candidates=3,
    held_out_every=4,
    min_human_pairs=4,
    monitor_prompts=2,
    optimisation=Optimisation(
        steps=8, batch_pairs=4, micro_batch_pairs=4, warmup_steps=1, learning_rate=1e-3
    ),
    loss=Loss(hold_ties=0.3),
    sampling=Sampling(steps=6),
    scoring=Scoring(draws=4),
    # Eight steps teach too little to be measured: this test is of the loop, not of the gate.
    monitoring=Monitoring(per_prompt=2, min_judge_accuracy=0, min_diversity_ratio=0, max_saturation_ratio=9),
)


@pytest.fixture
def drawing(tmp_path: Path, root: Path) -> Iterator[tuple[App, Store]]:
    """An app on a project with the starter model and twelve pairs queued to be drawn."""
    prompts = (root / "data" / "prompts" / "starter.txt").read_text().splitlines()[:24]
    model = ModelRef(source=str(root / "data" / "starter")).checked()
    store = Store.create(tmp_path / "taste", model=model, prompts=prompts, settings=SETTINGS, by="ann")
    jobs.draw(store, 12, by="ann")
    app = start_app(tmp_path / "taste")
    yield app, store
    app.end()
    store.close()


def test_the_whole_loop_through_the_page(
    drawing: tuple[App, Store], page: Page, root: Path, tmp_path: Path
) -> None:
    app, store = drawing
    open_page(page, app.address)
    label_twelve(page, store)
    train_round_0(page, store)
    flipped, dropped = review(page, store)
    train_round_1(page, store, flipped, dropped)
    try_and_compare(page, store)
    lora, whole = export(page, store, tmp_path / "taken away")
    model = root / "data" / "starter"
    base, aligned = picture(model), picture(model, lora)
    assert numpy.array_equal(base, picture(model))
    assert numpy.abs(base - aligned).mean() > 0.1
    # The whole pipeline draws what base draws with the LoRA, but for the last bit of a pixel.
    assert numpy.abs(picture(whole) - aligned).max() <= 1


def label_twelve(page: Page, store: Store) -> None:
    """Twelve labels by keyboard, one of them taken back and given again, the last a tie."""
    page.wait_for_selector(".sail-label[data-ready]", timeout=PATIENCE_MS)
    first = wait_for_pair(page)
    second = answer(page, "2")
    page.keyboard.press("z")
    assert wait_for_pair(page, other_than=second) == first
    for number in range(12):
        # One labels faster than images are drawn.
        page.wait_for_selector(".sail-label:not([data-pair=''])", timeout=PATIENCE_MS)
        wait_for_pair(page)
        answer(page, "120"[number % 2 if number < 11 else 2])
    page.get_by_role("heading", name="All 12 pairs are answered").wait_for(timeout=PATIENCE_MS)
    wait_for(lambda: store.counts().labelled == 12)
    values = [row["value"] for row in store.label_history()]
    assert values == ["right", "undo", *["left", "right"] * 5, "left", "tie"]
    assert store.label_history()[2]["pair"] == first


def train_round_0(page: Page, store: Store) -> None:
    page.get_by_test_id("train").click()
    next_action = page.get_by_test_id("next-action")
    next_action.filter(has_text="Propose round 1").wait_for(timeout=PATIENCE_MS)
    expect(page.get_by_test_id("round-0")).to_contain_text("accepted")
    page.get_by_test_id("samples").wait_for()
    (trained,) = store.rounds()
    human = store.counts().trainable
    assert (trained.human_pairs, trained.self_pairs, trained.tie_pairs) == (human, 0, 1)
    assert trained.accepted and human in (8, 9)
    expect(page.get_by_test_id("round-0")).to_contain_text(f"{human} human + 0 self pairs · 1 tie held")
    next_action.click()
    next_action.filter(has_text="Review").wait_for(timeout=PATIENCE_MS)
    next_action.click()


def review(page: Page, store: Store) -> tuple[str, str]:
    """Decide the audit, which so few pairs all belong to: one against the judge, one dropped, two with it."""
    expect(page.get_by_test_id("review-grid").locator("article")).to_have_count(4)
    ids = [str(page.get_by_test_id(f"self-{n}").get_attribute("data-pair")) for n in range(4)]
    with_it = {"left": "1", "right": "2"}
    against = {"left": "2", "right": "1"}
    page.keyboard.press("j")
    for key in (against[winner_side(ids[0])], "x", *(with_it[winner_side(pair)] for pair in ids[2:])):
        # What comes by itself takes no key in its first quarter of a second.
        page.wait_for_timeout(300)
        page.keyboard.press(key)
    expect(page.get_by_test_id("review-counts")).to_contain_text("1 flipped (people’s choice now), 1 dropped")
    expect(page.get_by_test_id("audit-title")).to_have_text("Audit: the model was wrong in 2 of 4")
    wait_for(
        lambda: [r["decision"] for r in store.review_history()] == ["flip", "drop", "approve", "approve"]
    )
    flipped, dropped = ids[:2]
    return flipped, dropped


def train_round_1(page: Page, store: Store, flipped: str, dropped: str) -> None:
    run = jobs.proposal(store)
    assert run is not None
    before = next(pair for pair in store.review_pairs(run) if pair.id == flipped)
    human = store.counts().trainable
    page.get_by_test_id("mixup-ratio").fill("0.5")
    expect(page.get_by_test_id("mixup-meaning")).to_contain_text(
        f"Each of the {human} pairs that people judged"
    )
    expect(page.get_by_test_id("mixup-meaning")).to_contain_text("each of the model’s 2 about")
    page.get_by_test_id("train-round").click()
    page.get_by_test_id("round-1").wait_for(timeout=PATIENCE_MS)
    expect(page.get_by_test_id("round-1")).to_contain_text(f"{human} human + 2 self pairs")
    folder = RunFolder(
        store.run_folder(next(run for run in store.runs() if (run.job, run.round) == ("train", 1)))
    )
    trained = {pair.id: pair for pair in folder.pairs()}
    own = trained[flipped]
    won, lost = (int(store.image_file(uid).stem.rsplit("-", 1)[1]) for uid in (before.loser, before.winner))
    assert (own.source, own.held_out, own.winner.row, own.loser.row) == ("human", False, won, lost)
    assert dropped not in trained
    assert folder.request().mixup.self_fraction == 0.5
    assert store.project().settings.mixup.self_fraction == 0.5


def try_and_compare(page: Page, store: Store) -> None:
    """A prompt with base and round 1 at half its strength; then one blind comparison of the two."""
    open_tab(page, "Try")
    page.get_by_test_id("try-prompt").fill("a fox")
    page.get_by_test_id("try-strength").fill("0.5")
    page.get_by_test_id("try-submit").click()
    images = page.get_by_test_id("tries").locator("img")
    expect(images).to_have_count(4, timeout=PATIENCE_MS)
    expect(page.get_by_test_id("tries").locator("figcaption")).to_have_text(["Base", "Round 1 × 0.5"])
    assert (
        len(
            {
                store.image_file(str(image.get_attribute("src")).rsplit("/", 1)[1]).read_bytes()
                for image in images.all()
            }
        )
        == 4
    )
    open_tab(page, "Compare")
    page.get_by_test_id("compare-draw").click()
    page.wait_for_selector(".sail-compare[data-ready]", timeout=PATIENCE_MS)
    page.wait_for_timeout(GUARD_MS)
    page.keyboard.press("1")
    wait_for(lambda: [row["value"] for row in store.comparison_history()] == ["left"])
    page.get_by_test_id("show-result").click()
    expect(page.get_by_test_id("early-result")).to_contain_text("Too few answers to tell yet.")
    page.keyboard.press("Escape")
    # The device does one run at a time, and the export is next.
    wait_for(lambda: not any(run.unfinished for run in store.runs()), timeout_s=PATIENCE_MS / 1000)


def export(page: Page, store: Store, folder: Path) -> tuple[Path, Path]:
    """The LoRA as it lies in the one file that is downloaded; the whole pipeline is written beside it."""
    open_tab(page, "Export")
    page.get_by_test_id("merged").get_by_role("checkbox").check()
    page.get_by_test_id("export").click()
    link = page.get_by_role("link", name="Download taste-round-1.zip")
    link.wait_for(timeout=PATIENCE_MS)
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "taste-round-1.zip"
    with page.expect_download() as table:
        page.get_by_test_id("download-preferences").click()
    assert table.value.suggested_filename == "taste-preferences.parquet"
    with page.expect_download() as table:
        page.get_by_test_id("download-to-publish").click()
    assert table.value.suggested_filename == "taste-preferences-to-publish.parquet"
    zipfile.ZipFile(download.value.path()).extractall(folder)
    current, lora = store.current_round(), folder / "taste-round-1" / "lora"
    assert current is not None and current.round == 1
    assert sha256_file(lora / ADAPTER_FILE) == current.sha256
    assert not (folder / "taste-round-1" / MERGED_FOLDER).exists()
    assert current.sha256 in (folder / "taste-round-1" / "README.md").read_text()
    return lora, Path(page.locator("[data-testid^=pipeline-] code").inner_text())


def picture(model: Path, lora: Path | None = None) -> numpy.ndarray:
    """What plain diffusers draws, always from the same noise: 0 to 255."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    if lora:
        pipeline.load_lora_weights(lora)
    generator = torch.Generator().manual_seed(0)
    image = pipeline("a fox", num_inference_steps=6, generator=generator).images[0]
    return numpy.asarray(image, dtype=float)
