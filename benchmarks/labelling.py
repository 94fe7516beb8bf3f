"""How fast labelling is, and whether anything said is lost: people over HTTP, one of them at a real page.

`python -m benchmarks.labelling --annotators 50 --seconds 30 --json`. A project with its images drawn is
made in a temporary folder; the server is killed (SIGKILL) half-way and started again on the same port.
Before the others come, one person alone gives 50 labels at a real page, from opening it to the last label on
disk. They look at each pair for `--think` seconds from when they see it; what is above that the app cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from annotator.store import Store
from benchmarks.running_app import App, chromium, start_app
from sail.model_ref import ModelRef
from sail.records import Candidate, CandidateSet
from sail.requests import ProposeRequest
from sail.runfolder import RunFolder

OWN = {"x-sail-client": "benchmark"}
PIXELS = 512
IMAGES = 24
"""Different image files; every candidate has an address of its own, so a browser decodes each anew."""
IDLE_TABS = 50
GUARD_MS = 250
LABELS = 50
RETRY_S = 0.5
LONGEST_S = 60.0
"""So long a request is tried again, and labels may take to the disk: what takes longer is a fault."""


def project(folder: Path, pairs: int) -> Path:
    """A project whose pairs are drawn: noise of the size of real images, and no latents."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model_index.json").write_text("{}")
    model = ModelRef(source=str(folder / "model"))
    prompts = [f"a thing, number {number}" for number in range(pairs)]
    store = Store.create(folder / "project", model=model, prompts=prompts, by="benchmark")
    run = store.record_run(1, "draw", round_number=0, folder="0001-propose", by="benchmark")
    request = ProposeRequest(model=model, prompts=tuple(prompts), num_candidates=2, pairs_to_show=1)
    images = RunFolder.create(store.run_folder(run), request).path / "candidates"
    images.mkdir()
    chance = random.Random(0)
    for number in range(IMAGES):
        small = Image.frombytes("RGB", (64, 64), chance.randbytes(64 * 64 * 3))
        small.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(images / f"00000-{number}.png")
    store.take_in_candidates(run, (_candidates(index, prompt) for index, prompt in enumerate(prompts)))
    store.record_run_event(run.id, "done")
    store.close()
    return folder / "project"


def _candidates(index: int, prompt: str) -> CandidateSet:
    files = [f"candidates/00000-{(2 * index + number) % IMAGES}.png" for number in range(2)]
    return CandidateSet(
        prompt_index=index,
        prompt=prompt,
        latents="none",
        candidates=tuple(Candidate(index=number, image=file) for number, file in enumerate(files)),
        to_show=((0, 1),),
    )


@dataclass
class Seen:
    """What came of it."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    ack_ms: list[float] = field(default_factory=list)
    paint_ms: list[float] = field(default_factory=list)
    retries: int = 0


async def person(client: httpx.AsyncClient, number: int, pace_s: float, end: float, seen: Seen) -> None:
    """Fetches pairs and answers them as the page does; what is not acknowledged is sent again."""
    name = f"simulated-{number}"
    chance, queue = random.Random(number), list[str]()
    await asyncio.sleep(chance.random() * pace_s)
    while time.monotonic() < end:
        began = time.monotonic()
        if len(queue) < 6:
            said = await _post(client, name, "pairs/next", {"holding": queue}, seen)
            queue = [pair["id"] for pair in said["pairs"]]
        if queue:
            pair = queue.pop(0)
            answer = {"uuid": str(uuid.uuid4()), "pair": pair, "value": chance.choice(("left", "right"))}
            seen.sent.add(answer["uuid"])
            sent = time.monotonic()
            said = await _post(client, name, "labels", {"answers": [{**answer, "elapsed_ms": 2000}]}, seen)
            seen.ack_ms.append(1000 * (time.monotonic() - sent))
            seen.acknowledged.update(said["acknowledged"])
        await asyncio.sleep(max(0.0, pace_s * (0.8 + 0.4 * chance.random()) - (time.monotonic() - began)))


async def _post(client: httpx.AsyncClient, name: str, path: str, body: Any, seen: Seen) -> Any:
    who, end = {"cookie": f"sail_person={name}"}, time.monotonic() + LONGEST_S
    while True:
        try:
            response = await client.post(f"/api/projects/project/{path}", json=body, headers=who)
            response.raise_for_status()
            return response.json()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            seen.retries += 1
            await asyncio.sleep(RETRY_S)


READY = """() => {
  const { pair, ready } = document.querySelector(".sail-label").dataset;
  return pair && pair === ready;
}"""
PAINTED = """() => new Promise((done) => {
  const label = document.querySelector(".sail-label");
  const [before, start] = [label.dataset.ready, performance.now()];
  document.dispatchEvent(new KeyboardEvent("keydown", { key: Math.random() < 0.5 ? "1" : "2" }));
  const look = () => label.dataset.ready === before
    ? requestAnimationFrame(look)
    : requestAnimationFrame(() => done(performance.now() - start));
  look();
})"""


async def at_the_page(page: Page, pace_s: float, end: float, seen: Seen) -> None:
    """A person at a real page: from the key to the frame that shows the next pair."""
    while time.monotonic() < end:
        await page.wait_for_function(READY)
        await page.wait_for_timeout(max(GUARD_MS + 20, 1000 * pace_s))
        seen.paint_ms.append(await page.evaluate(PAINTED))


async def fifty_labels(browser: Browser, server: App, folder: Path, think_s: float) -> dict[str, float]:
    """Minutes that one person takes for 50 labels, and the share of them that was not thinking."""
    name, store = "simulated-alone", Store(folder)
    context = await browser.new_context(viewport={"width": 1280, "height": 860})
    await context.add_cookies([{"name": "sail_person", "value": name, "url": server.address}])
    page = await context.new_page()
    began = time.monotonic()
    await page.goto(server.address)
    await page.wait_for_selector(".sail-label[data-mounted]", state="attached")
    for number in range(LABELS):
        await page.wait_for_function(READY)
        await page.wait_for_timeout(1000 * think_s)
        await page.keyboard.press("12"[number % 2])
    said = time.monotonic()
    while (kept := sum(row["person"] == name for row in store.label_history())) < LABELS:
        if time.monotonic() > said + LONGEST_S:
            raise SystemExit(f"{LABELS} labels were given at the page, and {kept} are on the disk.")
        await asyncio.sleep(0.01)
    total = time.monotonic() - began
    await context.close()
    store.close()
    return {
        "minutes_to_50_labels": round(total / 60, 3),
        "app_share_of_50_labels": round(1 - LABELS * think_s / total, 4),
        "app_s_a_label": round(total / LABELS - think_s, 3),
        "think_s": think_s,
    }


async def idle_share(server: App, seconds: float) -> float:
    """Share of a core that the server takes for the polls of idle tabs: every 15 s each, as core.js does."""
    async with httpx.AsyncClient(base_url=server.address, headers=OWN) as client:
        client.cookies.set("sail_person", "idle")

        async def tab(number: int) -> None:
            etag = ""
            await asyncio.sleep(15 * number / IDLE_TABS)
            while True:
                answer = await client.get("/api/projects/project/status", headers={"if-none-match": etag})
                etag = answer.headers["etag"]
                await asyncio.sleep(15 * (0.9 + 0.2 * random.random()))

        tabs = [asyncio.create_task(tab(number)) for number in range(IDLE_TABS)]
        await asyncio.sleep(15)
        before, began = server.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds)
        share = (server.cpu_s() - before) / (time.monotonic() - began)
        for task in tabs:
            task.cancel()
        return share


async def measure(
    folder: Path, *, annotators: int, seconds: float, rate: float, think_s: float
) -> dict[str, Any]:
    """Everything at once, then what the database says of it."""
    server, seen, calm = start_app(folder), Seen(), Seen()
    try:
        idle = await idle_share(server, min(seconds, 30))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(**chromium())
            alone = await fifty_labels(browser, server, folder, think_s)
            page = await browser.new_page(viewport={"width": 1280, "height": 860})
            await page.goto(server.address)
            await page.wait_for_selector(".sail-label[data-mounted]")
            before = server.cpu_s()
            await _under(annotators, server, rate, seconds / 2, calm, page)
            cpu_ms = 1000 * (server.cpu_s() - before)
            restarted = asyncio.create_task(asyncio.to_thread(_kill_and_start, server, folder))
            await _under(annotators, server, rate, seconds / 2, seen, page)
            await restarted
            unsent = "() => !Object.keys(localStorage).some((key) => key.startsWith('sail.outbox/'))"
            await page.wait_for_function(unsent, timeout=60_000)
            await browser.close()
    finally:
        server.end()
    return {
        **_kept(folder, calm, seen),
        # Whoever waits for answers gives fewer labels than were asked for.
        "labels_a_second": round((len(calm.ack_ms) + len(calm.paint_ms)) / (seconds / 2), 1),
        # Latencies hang on what else the machine does, this does not.
        "server_cpu_ms_per_label": round(cpu_ms / max(1, len(calm.ack_ms) + len(calm.paint_ms)), 1),
        "idle_tab_cpu_share": round(idle, 4),
        **alone,
    }


async def _under(annotators: int, server: App, rate: float, seconds: float, seen: Seen, page: Page) -> None:
    pace_s = annotators / rate
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=annotators)
    async with httpx.AsyncClient(base_url=server.address, headers=OWN, timeout=30, limits=limits) as client:
        end = time.monotonic() + seconds
        people = [person(client, number, pace_s, end, seen) for number in range(annotators)]
        await asyncio.gather(*people, at_the_page(page, 1.0, end, seen))


def _kill_and_start(server: App, folder: Path) -> None:
    time.sleep(2)
    server.end(signal.SIGKILL)
    server.process = start_app(folder, port=server.port).process


def _kept(folder: Path, calm: Seen, killed: Seen) -> dict[str, Any]:
    """Latencies are of the half without a kill; what is lost or doubled is of both."""
    store = Store(folder)
    history = store.label_history()
    store.close()
    kept = [row["uuid"] for row in history]
    sent = calm.sent | killed.sent
    own = {row["uuid"] for row in history if row["person"].startswith("simulated-")}
    pairs_answered = [(row["person"], row["pair"]) for row in history]
    return {
        "labels_sent": len(sent) + len(calm.paint_ms) + len(killed.paint_ms),
        # All that was given is acknowledged in the end, so all of it has to be there; at the page one a key.
        "labels_lost": len((calm.acknowledged | killed.acknowledged | sent) - set(kept))
        + max(0, len(calm.paint_ms) + len(killed.paint_ms) - (len(kept) - len(own))),
        "labels_doubled": len(kept) - len(set(kept)) + len(pairs_answered) - len(set(pairs_answered)),
        "ack_p50_ms": percentile(calm.ack_ms, 50),
        "ack_p95_ms": percentile(calm.ack_ms, 95),
        "paint_p95_ms": percentile(calm.paint_ms, 95),
        "paint_p95_ms_with_a_kill": percentile(killed.paint_ms, 95),
        "requests_tried_again": killed.retries,
        "answered_by_two": len(history) - len({row["pair"] for row in history}),
    }


def percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1) if ordered else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=25, help="labels a second, all together")
    parser.add_argument(
        "--think", type=float, default=1.2, help="seconds that the person alone looks at a pair"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    flags = parser.parse_args()
    if 1000 * flags.think <= GUARD_MS:
        parser.error(f"--think must be over {GUARD_MS / 1000} s: a pair takes no answer before.")
    with tempfile.TemporaryDirectory() as folder:
        pairs = int(flags.rate * flags.seconds) + 12 * flags.annotators + LABELS + 10
        made = project(Path(folder), pairs)
        found = asyncio.run(
            measure(
                made,
                annotators=flags.annotators,
                seconds=flags.seconds,
                rate=flags.rate,
                think_s=flags.think,
            )
        )
    print(json.dumps(found) if flags.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    if found["labels_lost"] or found["labels_doubled"]:
        raise SystemExit(f"{found['labels_lost']} labels were lost and {found['labels_doubled']} doubled.")


if __name__ == "__main__":
    main()
