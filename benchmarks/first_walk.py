"""What a first-time user sees, in order: `python -m benchmarks.first_walk --out DIR`.

Clones this repository as it is committed, starts the app there with nothing configured, and goes through it
in a real Chromium: label, train, propose, review, compare, try, export, a project of one's own. Every step is
written as a small PNG with the seconds since the start command; `walk.json` has them all. Whoever answers
prefers the bluer of two images. Most of its time is drawing and training.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageStat
from playwright.sync_api import Locator, Page, expect, sync_playwright

from benchmarks.running_app import ROOT, chromium, start_app

PATIENCE_MS = 1_800_000
GUARD_MS = 300
ALIKE = 4.0
"""Grey levels of blue by which two images have to differ for one to be liked better."""
COLOURS = 128
READY = """before => {
    const { pair, ready } = document.querySelector(".sail-PLACE").dataset;
    return pair === "" || (pair && pair !== before && ready === pair);
}"""


class Walk:
    """A page, and what was seen on it."""

    def __init__(self, page: Page, out: Path, began: float) -> None:
        self.page = page
        self._out = out
        self._began = began
        self._steps: list[dict[str, object]] = []

    def see(self, name: str, *, whole: bool = False, only: Locator | None = None) -> None:
        """Keep what is on the screen, in few colours: it is for people to read, not to be compared."""
        file = self._out / f"{len(self._steps) + 1:02d}-{name}.png"
        seen = only.screenshot() if only else self.page.screenshot(full_page=whole)
        shot = Image.open(io.BytesIO(seen))
        shot.convert("RGB").quantize(COLOURS).save(file, optimize=True)
        self._steps.append({"file": file.name, "seconds": round(time.monotonic() - self._began)})
        (self._out / "walk.json").write_text(json.dumps(self._steps, indent=2) + "\n")
        print(f"{self._steps[-1]['seconds']:>5} s  {file.name}", flush=True)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.page.get_by_test_id(f"panel-{name.lower()}").wait_for()

    def pair(self, place: str, *, other_than: str = "") -> str:
        """Until another pair can be answered; '' when none is left."""
        self.page.wait_for_function(
            READY.replace("PLACE", place), arg=other_than, timeout=PATIENCE_MS, polling=100
        )
        self.page.wait_for_timeout(GUARD_MS)
        return self._pair_of(place)

    def _pair_of(self, place: str) -> str:
        return str(
            self.page.evaluate("place => document.querySelector(`.sail-${place}`).dataset.pair", place)
        )

    def answer(self, place: str, prefix: str) -> str:
        """Choose the bluer image; the next pair."""
        before = self._pair_of(place)
        images = [f'[data-testid="{prefix}image-{side}"] img' for side in ("left", "right")]
        self.page.keyboard.press(key_of(*(self._blue(image) for image in images)))
        return self.pair(place, other_than=before)

    def _blue(self, selector: str) -> float:
        address = str(self.page.locator(selector).evaluate("image => image.src"))
        image = Image.open(io.BytesIO(self.page.request.get(address).body())).convert("RGB")
        red, green, blue = ImageStat.Stat(image).mean
        return blue - (red + green) / 2


def key_of(left: float, right: float) -> str:
    if abs(left - right) < ALIKE:
        return "0"
    return "1" if left > right else "2"


def walk(seen: Walk, labels: int, settings: dict[str, int]) -> None:
    page = seen.page
    page.wait_for_selector(".sail-label[data-mounted]", state="attached", timeout=PATIENCE_MS)
    seen.see("the-page-opens")
    seen.pair("label")
    seen.see("the-first-pair")
    label(seen, labels)
    if settings:
        change(seen, settings)
    train(seen)
    review(seen)
    compare_and_try(seen)
    seen.tab("Export")
    page.get_by_test_id("export").click()
    page.get_by_test_id("export-list").get_by_role("link").first.wait_for(timeout=PATIENCE_MS)
    seen.see("export")
    seen.tab("Setup")
    page.get_by_test_id("create-submit").click()
    expect(page.get_by_test_id("create-name")).to_be_focused()
    # Beside it stands where the project lies, on this machine.
    card = page.locator("section", has=page.get_by_test_id("create-submit"))
    seen.see("a-project-of-ones-own", only=card)


def label(seen: Walk, labels: int) -> None:
    page = seen.page
    page.keyboard.press("p")
    page.get_by_test_id("practice").wait_for()
    seen.see("practice")
    page.keyboard.press("Escape")
    for number in range(labels):
        if not seen.answer("label", ""):
            # One labels faster than images are drawn.
            page.wait_for_selector(".sail-label:not([data-pair=''])", timeout=PATIENCE_MS)
            seen.pair("label")
        if number == labels // 2:
            seen.see("half-way")
    page.get_by_test_id("train-early").wait_for(timeout=PATIENCE_MS)
    seen.see("enough-to-train")


def change(seen: Walk, settings: dict[str, int]) -> None:
    """As a person would who has little time: in Setup, and back."""
    page = seen.page
    seen.tab("Setup")
    for name, value in settings.items():
        page.get_by_test_id(f"setting-{name}").fill(str(value))
    page.get_by_test_id("settings-submit").click()
    page.get_by_text("Saved.").wait_for()
    seen.tab("Label")


def train(seen: Walk) -> None:
    """Drawing goes first, as the device does one run at a time."""
    page = seen.page
    page.get_by_test_id("train-early").click()
    page.get_by_test_id("samples").wait_for(timeout=PATIENCE_MS)
    seen.see("training")
    next_action = page.get_by_test_id("next-action")
    next_action.filter(has_text="Propose round 1").wait_for(timeout=PATIENCE_MS)
    seen.see("round-0-is-trained", whole=True)
    next_action.click()
    next_action.filter(has_text="Review").wait_for(timeout=PATIENCE_MS)
    next_action.click()


def review(seen: Walk) -> None:
    page = seen.page
    page.get_by_test_id("self-0").wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(500)  # Images fade in.
    seen.see("review")


def compare_and_try(seen: Walk) -> None:
    page = seen.page
    seen.tab("Compare")
    page.get_by_test_id("compare-draw").click()
    seen.pair("compare")
    while True:
        page.wait_for_selector(".sail-compare[data-ready]", timeout=PATIENCE_MS)
        if not seen.answer("compare", "compare-"):
            if page.get_by_test_id("result").count():
                break
            page.wait_for_selector(
                ".sail-compare:not([data-pair='']), [data-testid=result]", timeout=PATIENCE_MS
            )
            if page.get_by_test_id("result").count():
                break
            seen.pair("compare")
    seen.see("compare")
    seen.tab("Try")
    page.get_by_test_id("try-prompt").fill("a fox in the snow")
    page.get_by_test_id("try-submit").click()
    page.get_by_test_id("tries").locator("img").nth(3).wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(500)
    seen.see("try")


@contextmanager
def first_start() -> Iterator[tuple[str, float]]:
    """The app on a clone of what is committed, with no project made and nothing configured."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        began = time.monotonic()
        app = start_app(root=clone)
        try:
            yield app.address, began
        finally:
            app.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the PNGs go")
    parser.add_argument("--labels", type=int, default=24, help="how many pairs are answered")
    parser.add_argument("--steps", type=int, help="training steps a round, set in Setup; else the model's")
    parser.add_argument("--prompts", type=int, help="prompts a round, set in Setup; else the default")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--dark", action="store_true")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    with first_start() as (address, began), sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium())
        page = browser.new_page(
            viewport={"width": flags.width, "height": flags.height},
            color_scheme="dark" if flags.dark else "light",
        )
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        asked = {"optimisation.steps": flags.steps, "prompts_per_round": flags.prompts}
        settings = {name: value for name, value in asked.items() if value is not None}
        walk(Walk(page, flags.out, began), flags.labels, settings)
        browser.close()


if __name__ == "__main__":
    main()
