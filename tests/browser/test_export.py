"""Export as a person meets it: one file to take away, of which round and from when."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from annotating import proposed, run_now
from labelling import open_page, open_tab, watched
from playwright.sync_api import Browser, expect

from annotator import jobs
from benchmarks.running_app import App
from sail.runfolder import ADAPTER_FILE

pytestmark = pytest.mark.browser


def test_each_export_is_one_file_that_names_its_project_and_round(
    home: Path, app: App, browser: Browser
) -> None:
    store, _ = proposed(home / "my taste", 4)
    first = run_now(store, jobs.export(store, by="ann"))
    run_now(store, jobs.train(store, by="ann"))
    second = run_now(store, jobs.export(store, by="ann"))
    with watched(browser, viewport={"width": 360, "height": 740}, color_scheme="dark") as page:
        open_page(page, f"{app.address}/?project=my taste")
        open_tab(page, "Export")
        rows = page.get_by_test_id("export-list").locator("> li")
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("Round 1")
        expect(rows.nth(0)).to_contain_text("current")
        expect(rows.nth(1)).to_contain_text("Round 0")
        made = page.evaluate(
            "at => new Date(1000 * at).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' })",
            store.run(second.id).since,
        )
        expect(rows.nth(0)).to_contain_text(made)
        expect(page.get_by_test_id("export")).to_have_text("Export round 1 again")
        with page.expect_download() as download:
            page.get_by_test_id(f"download-{first.id}").click()
        assert download.value.suggested_filename == "my taste-round-0.zip"
        packed = zipfile.ZipFile(download.value.path()).namelist()
        assert sorted(packed) == [
            f"my taste-round-0/{name}" for name in ("README.md", f"lora/{ADAPTER_FILE}")
        ]
        rows.nth(1).locator("summary").click()
        with page.expect_download() as card:
            rows.nth(1).get_by_role("link", name="README.md").click()
        assert card.value.suggested_filename == "my taste-round-0-README.md"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_text("What its 16 columns hold").click()
        expect(page.get_by_role("row", name="reason_text")).to_contain_text("about people")
        to_publish = page.get_by_test_id("download-to-publish")
        assert (to_publish.get_attribute("href") or "").endswith("/preferences.parquet?people=false")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        with page.expect_download() as history:
            page.get_by_test_id("download-history").click()
        assert history.value.suggested_filename == "my taste-history.csv"
        assert "current round" in Path(history.value.path()).read_text(encoding="utf-8")
        table = page.get_by_test_id("export-facts").locator("table")
        expect(table.get_by_role("row", name="mixup ratio")).to_contain_text(re.compile(r"\d+ %$"))
        expect(table.get_by_role("row", name="diversity")).to_contain_text("1.00 × base's")
        assert table.evaluate("one => one.offsetWidth <= one.parentElement.clientWidth")
        for cells in table.locator("tr").all():
            lines = cells.evaluate(
                "one => [...one.children].map((cell) => getComputedStyle(cell).borderTopWidth)"
            )
            assert len(set(lines)) == 1
        page.goto(f"{app.address}/?project=first&tab=export")
        page.get_by_test_id("export-facts").get_by_role("button", name="Open Rounds").click()
        expect(page.get_by_test_id("next")).to_be_visible()
    store.close()
