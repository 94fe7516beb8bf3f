"""What the tests of the app share: a project of small size, drawn and labelled at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Literal

import fake_trainer

from annotator import jobs
from annotator.rows import Answer, Review, Run, ShownPair
from annotator.runs import Runner, take_in
from annotator.store import Store
from sail.config import Optimisation
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.records import Decision, LabelValue
from sail.runfolder import RunFolder
from sail.settings import LoopSettings

PROMPTS = [
    f"a {size} {subject}" for size in ("big", "small") for subject in ("fox", "cat", "dog", "pizza", "tree")
]
SETTINGS = LoopSettings(
    prompts_per_round=4,
    num_candidates=3,
    min_human_pairs=2,
    monitor_prompts=1,
    optimisation=Optimisation(steps=6, batch_pairs=2, micro_batch_pairs=2),
)


def new_uuid() -> str:
    return str(uuid.uuid4())


def make_model(folder: Path) -> Path:
    """The outline of a model: what can be seen of one without loading it."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def make_store(folder: Path, *, settings: LoopSettings = SETTINGS) -> Store:
    model = make_model(folder.parent / f"{folder.name}-model")
    return Store.create(
        folder, model=ModelRef(source=str(model)), prompts=PROMPTS, settings=settings, by="ann"
    )


def run_now(store: Store, run: Run) -> Run:
    """Do a run in this process and take it in."""
    # An app that has the project open would start it as well.
    store.record_run_event(run.id, "started")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    take_in(store, run, folder)
    store.record_run_event(run.id, "done")
    return store.run(run.id)


def drawn(store: Store, count: int) -> list[ShownPair]:
    """Draw that many pairs and show them to ann."""
    run_now(store, jobs.draw(store, count, by="ann"))
    return store.show_pairs(open_pairs(store), to="ann")


def open_pairs(store: Store, person: str = "ann") -> list[str]:
    """What nobody has judged and this person has not skipped, in the order in which it was drawn."""
    waiting = [pair for pair in store.unjudged_states() if person not in pair.answered_by]
    return [pair.id for pair in sorted(waiting, key=attrgetter("ordinal"))]


def train_round_0(store: Store, pairs: int = 5) -> Run:
    """Draw so many pairs, answer left to all of them, train."""
    for pair in drawn(store, pairs):
        label(store, pair, "left")
    return run_now(store, jobs.train(store, by="ann"))


def proposed(folder: Path, self_pairs: int, *, audited: bool = True) -> tuple[Store, Run]:
    """A project with round 0 trained and so many self pairs for round 1; audited, all were right."""
    store = make_store(folder, settings=SETTINGS.model_copy(update={"prompts_per_round": self_pairs}))
    train_round_0(store)
    store.set_prompts([f"a fox of age {age}" for age in range(self_pairs + 1)], by="ann")
    run = run_now(store, jobs.propose(store, by="ann"))
    if audited:
        decide_audit(store, run)
    return store, run


def decide_audit(store: Store, run: Run, decision: Decision = "approve", *, by: str = "ann") -> None:
    blind = [pair.id for pair in store.review_pairs(run) if pair.blind]
    store.record_reviews([Review(uuid=new_uuid(), self_pair=one, decision=decision) for one in blind], by=by)


def label(
    store: Store, pair: ShownPair, value: LabelValue, *, by: str = "ann", uid: str | None = None
) -> str:
    uid = uid or new_uuid()
    accepted(store.record_answers([Answer(uuid=uid, pair=pair.id, value=value, elapsed_ms=900)], by=by))
    return uid


def undo(store: Store, label: str, *, by: str = "ann") -> None:
    accepted(store.record_answers([Answer(uuid=new_uuid(), pair="", value="undo", undoes=label)], by=by))


def decide(
    store: Store, pair: str, decision: Decision | None, *, by: str = "ann", uid: str | None = None
) -> None:
    said = Review(uuid=uid or new_uuid(), self_pair=pair, decision=decision)
    accepted(store.record_reviews([said], by=by))


def accepted(refusals: list[str | None]) -> None:
    """ValueError where something was refused."""
    for refusal in filter(None, refusals):
        raise ValueError(refusal)


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.05)


def fake_runner() -> Runner:
    return Runner(launch=fake_trainer.launch)


def hold(store: Store, run: Run, where: Literal["start", "step"] = "step") -> Path:
    """Let a run wait before it holds its folder, or in its first step, until this file is removed."""
    held = store.run_folder(run) / f"hold-{where}"
    held.touch()
    return held


@contextmanager
def at_work(store: Store, run: Run, stage: str) -> Iterator[tuple[RunFolder, Progress]]:
    """A trainer that holds its folder, as another process would, at the beginning of a stage of 40 steps."""
    folder = RunFolder(store.run_folder(run))
    with folder.lock():
        store.record_run_event(run.id, "started")
        progress = Progress(folder, min_interval_s=0)
        progress.stage(stage, 40)
        yield folder, progress
