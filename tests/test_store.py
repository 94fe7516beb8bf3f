"""The record of what people said: appended, idempotent, never lost."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from annotating import (
    PROMPTS,
    SETTINGS,
    decide,
    drawn,
    label,
    make_store,
    new_uuid,
    open_pairs,
    run_now,
    train_round_0,
    undo,
)
from sqlite_utils import Database

from annotator import jobs
from annotator.rows import Answer, PairState
from annotator.runs import take_in
from annotator.store import DATABASE, DatabaseError, Displaced, Store, learning
from sail.model_ref import ModelRef
from sail.records import LabelValue
from sail.runfolder import RunFolder
from sail.settings import LoopSettings


def test_a_folder_without_a_database_is_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a project: it has no project\.db"):
        Store(tmp_path)


def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(ValueError, match="cannot be read as a project"):
        Store(tmp_path)


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    database = Database(tmp_path / DATABASE)
    database.table("letters").insert({"text": "dear"})
    database.close()
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(ValueError, match="another program made it"):
        Store(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_a_project_of_a_newer_version_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    make_store(tmp_path / "p").close()
    database = Database(tmp_path / "p" / DATABASE)
    done = {"migration_set": "annotator", "name": "m999_from_next_year", "applied_at": "2030-01-01"}
    database.table("_sqlite_migrations").insert(done)
    database.close()
    before = (tmp_path / "p" / DATABASE).read_bytes()
    with pytest.raises(ValueError, match="newer version of this program"):
        Store(tmp_path / "p")
    assert (tmp_path / "p" / DATABASE).read_bytes() == before


def test_a_project_is_not_lost_to_a_setting_that_is_gone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    before = store.project()
    settings = before.settings.model_dump(mode="json")
    settings["monitoring"]["strengths"] = [1.0, 0.5]
    model = {"model": {**before.model.model_dump(mode="json"), "compiled": True}, "download": False}
    settings["drawn_by"] = "policy"
    for kind, payload in (("settings", settings), ("model", model), ("launcher", {"nodes": 2})):
        store._write(functools.partial(store._append_event, kind, payload, "ann"))
    assert store.project() == before


def test_a_project_is_not_lost_to_a_number_that_has_a_bound_now(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    settings = store.project().settings.model_dump(mode="json")
    settings["optimisation"]["learning_rate"] = 1000
    store._write(functools.partial(store._append_event, "settings", settings, "ann"))
    found = store.project().settings.optimisation
    assert (found.learning_rate, found.steps) == (1, settings["optimisation"]["steps"])


def test_a_connection_goes_with_the_thread_that_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    before = _open_files(tmp_path)
    for _ in range(20):
        thread = threading.Thread(target=store.project)
        thread.start()
        thread.join()
    assert _open_files(tmp_path) <= before + 3


def test_every_connection_waits_for_the_disk_and_lets_nothing_name_what_is_not_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    store.project()
    for database in (store._writing, store._local.reader):
        said = {
            name: database.execute(f"pragma {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "foreign_keys")
        }
        assert said == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}, "2 is full"


def _open_files(below: Path) -> int:
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return sum(link.startswith(str(below)) for link in links)


def test_a_project_is_never_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="exists already"):
        Store.create(tmp_path, model=ModelRef(source="m"), prompts=["a"], by="ann")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_of_two_projects_made_at_once_in_one_place_the_first_one_is_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Store.set_prompts

    def overtaken(store: Store, *given: Any, **how: Any) -> int:
        monkeypatch.setattr(Store, "set_prompts", plain)
        Store.create(tmp_path / "p", model=ModelRef(source="m"), prompts=["the first"], by="bob").close()
        return plain(store, *given, **how)

    monkeypatch.setattr(Store, "set_prompts", overtaken)
    with pytest.raises(OSError, match="not empty"):
        Store.create(tmp_path / "p", model=ModelRef(source="m"), prompts=["the second"], by="ann")
    assert Store(tmp_path / "p").project().prompts == ("the first",)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_project_keeps_model_prompts_and_settings_over_a_restart(tmp_path: Path) -> None:
    make_store(tmp_path / "p").close()
    project = Store(tmp_path / "p").project()
    assert project.prompts == tuple(PROMPTS)
    assert project.settings.prompts_per_round == 4


def test_what_a_poll_asks_for_is_read_again_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "p")
    read: list[str] = []

    def loads(text: str) -> Any:
        read.append(text)
        return plain(text)

    plain = json.loads
    monkeypatch.setattr(json, "loads", loads)
    run = jobs.draw(store, 2, by="ann")
    before = store.project(), store.runs()
    read.clear()
    assert (store.project(), store.runs()) == before and read == []
    store.set_prompts(["a fox"], by="ann")
    store.record_run_event(run.id, "started", pid=7)
    assert store.project().prompts == ("a fox",) and store.runs()[0].payload == {"pid": 7}
    assert len(read) == 2


def test_prompts_that_were_drawn_for_are_read_again_only_when_more_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "p")
    asked: list[str] = []

    def rows(own: Store, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        asked.append(sql)
        return plain(own, sql, **parameters)

    plain = Store._rows
    monkeypatch.setattr(Store, "_rows", rows)
    for expected in (0, 2, 3):
        assert len(store.used_prompts()) == expected
        store.used_prompts().clear()
        asked.clear()
        assert len(store.used_prompts()) == expected and "prompt_index" not in str(asked)
        drawn(store, max(1, 2 - expected))
    assert store.used_prompts(("propose",)) == []


def test_a_changed_setting_is_an_event_with_its_author(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    store.set_settings(LoopSettings(noise_seed=7), by="bob")
    changes = [event for event in store.events() if event["kind"] == "settings"]
    assert [change["by"] for change in changes] == ["ann", "bob"]
    assert store.project().settings.noise_seed == 7


def test_taking_in_twice_changes_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    run = run_now(store, jobs.draw(store, 3, by="ann"))
    before = open_pairs(store)
    take_in(store, run, RunFolder(store.run_folder(run)))
    assert len(before) == 3
    assert open_pairs(store) == before


def test_candidates_of_one_prompt_make_as_many_pairs_as_were_asked_for(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs = drawn(store, 2 * len(PROMPTS))
    assert len({pair.left for pair in pairs} | {pair.right for pair in pairs}) == 2 * len(pairs)
    # One prompt of the ten is held out; 20 pairs are three of each of seven.
    assert set(Counter(pair.prompt for pair in pairs).values()) == {3} and len(pairs) == 21


def test_sides_are_drawn_once_for_a_person_and_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs = drawn(store, 8)
    again = Store(tmp_path / "p").show_pairs([pair.id for pair in pairs], to="ann")
    assert again == pairs


def test_both_sides_come_up(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    lefts = {store.show_pairs([pair.id], to=f"person-{n}")[0].left for n in range(40)}
    assert lefts == {pair.left, pair.right}


def test_the_same_answer_twice_is_one_label(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    uid = label(store, pair, "left")
    label(store, pair, "left", uid=uid)
    assert len(store.label_history()) == 1


def test_an_id_of_somebody_elses_answer_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    store.show_pairs([pair.id], to="bob")
    given = label(store, pair, "left")
    why = Answer(uuid=new_uuid(), pair=pair.id, value="reasons", of=given, reasons=("colour",))
    assert store.record_answers([why], by="ann") == [None]
    for repeated in (Answer(uuid=given, pair=pair.id, value="right"), why):
        refusals = store.record_answers([repeated], by="bob")
        assert refusals == ["This answer's id was used by someone else."]
    assert len(store.label_history()) == 1


def test_a_pair_that_was_never_shown_cannot_be_labelled(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    with pytest.raises(ValueError, match="never shown to you"):
        label(store, pair, "left", by="eve")


def test_one_refused_answer_does_not_keep_back_the_others(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    answers = [
        Answer(uuid=new_uuid(), pair="nothing", value="left"),
        Answer(uuid=new_uuid(), pair=pair.id, value="tie"),
    ]
    refusals = store.record_answers(answers, by="ann")
    assert [bool(why) for why in refusals] == [True, False]
    assert [row["value"] for row in store.label_history()] == ["tie"]


def test_undo_is_an_event_and_the_pair_is_open_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    first, second = drawn(store, 2)
    uid = label(store, first, "left")
    label(store, second, "right")
    undo(store, uid)
    assert [row["value"] for row in store.label_history()] == ["left", "right", "undo"]
    assert open_pairs(store) == [first.id]
    assert store.counts().labelled == 1


def test_nobody_undoes_the_label_of_another(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    uid = label(store, pair, "left")
    with pytest.raises(ValueError, match="no such label of yours"):
        undo(store, uid, by="eve")


def test_after_an_undo_the_new_label_stands(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p", settings=LoopSettings(held_out_every=1000))
    (pair,) = drawn(store, 1)
    first = label(store, pair, "left")
    undo(store, first)
    label(store, pair, "right")
    (found,) = store.human_pairs()
    right = store.image_file(pair.right).name
    assert right.endswith(f"-{found.winner.row}.png")


def test_undo_finds_the_last_labels_after_a_restart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs = drawn(store, 3)
    uids = [label(store, pair, "left") for pair in pairs]
    store.close()
    past = Store(tmp_path / "p").last_labels("ann", 2)
    assert [one.uuid for one in past] == uids[1:]
    assert past[1].pair == pairs[2]


def test_the_last_labels_are_those_that_stand(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs, chance = drawn(store, 8), Random(3)
    said: list[str] = []
    for _ in range(60):
        if said and chance.random() < 0.3:
            undo(store, chance.choice(said))
        else:
            said.append(label(store, chance.choice(pairs), chance.choice(("left", "right", "skip"))))
    rows = store._rows("select uuid from standing_labels where person = 'ann' order by seq")
    assert [one.uuid for one in store.last_labels("ann", 100)] == [row["uuid"] for row in rows]
    assert [one.uuid for one in store.last_labels("ann", 3)] == [row["uuid"] for row in rows[-3:]]


def test_what_an_answer_usually_takes_costs_the_same_however_many_came_before(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p", settings=SETTINGS)
    pairs = drawn(store, 10)

    def instructions() -> int:
        taken = [0]
        reader = store._local.reader.conn
        reader.set_progress_handler(lambda: taken.__setitem__(0, taken[0] + 1), 1)
        store.usual_label_ms("ann")
        reader.set_progress_handler(None, 1)
        return taken[0]

    for pair in pairs:
        label(store, pair, "left")
    few = instructions()
    for pair in drawn(store, 200):
        label(store, pair, "left")
    assert instructions() < 4 * few


def test_winner_and_loser_follow_the_side_that_was_shown(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    values: tuple[LabelValue, ...] = ("left", "right")
    came_up: set[tuple[LabelValue, bool]] = set()
    # Sides are drawn by lot.
    while len(came_up) < 4:
        for pair, value in zip(drawn(store, 8), cycle(values), strict=False):
            label(store, pair, value)
            learned = next(one for one in store.human_pairs() if one.id == pair.id)
            rows = learned.winner.row, learned.loser.row
            images = (pair.left, pair.right) if value == "left" else (pair.right, pair.left)
            for image, row in zip(images, rows, strict=True):
                assert store.image_file(image).name.endswith(f"-{row}.png")
            came_up.add((value, rows[0] < rows[1]))


def test_ties_both_bad_and_skips_are_kept_and_never_trained(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs = drawn(store, 4)
    for pair, value in zip(pairs, ("tie", "both_bad", "skip", "left"), strict=True):
        label(store, pair, value)  # type: ignore[arg-type]
    counts = store.counts()
    assert (counts.labelled, counts.skipped, counts.winners, counts.ties) == (3, 1, 1, 1)
    assert len(store.label_history()) == 4


def test_a_pair_is_tied_while_nobody_who_judged_it_saw_a_difference(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pair, other = drawn(store, 2)
    label(store, pair, "tie")
    label(store, other, "tie")
    for shown, value in zip(store.show_pairs([pair.id, other.id], to="bob"), ("left", "skip"), strict=True):
        label(store, shown, value, by="bob")  # type: ignore[arg-type]
    (tied,) = store.tie_pairs()
    assert (tied.id, tied.source, tied.held_out) == (other.id, "tie", False)
    # They are trained on where the settings hold them, and count for no winner.
    assert {one.source for one in jobs.training_pairs(store)[0]} == {"human"}
    jobs.change_settings(store, {"loss": {"hold_ties": 0.5}}, by="ann")
    assert {one.source for one in jobs.training_pairs(store)[0]} == {"human", "tie"}


def test_pairs_whose_files_are_gone_are_left_out_until_they_come_back(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p", settings=SETTINGS.model_copy(update={"held_out_every": 1000}))
    pairs = drawn(store, 5)
    for pair in pairs:
        label(store, pair, "left")
    store.set_order("uncertain", by="ann")
    drawn(store, 2)
    lost = Path(jobs.training_pairs(store)[0][1].winner.file)
    (unseen, *_) = store.unjudged_pairs(2)
    Path(unseen.winner.file).unlink()
    lost.rename(tmp_path / "elsewhere")
    assert [pair.id for pair in store.human_pairs()] == [pair.id for pair in pairs], "labels stay"
    assert [pair.id for pair in jobs.training_pairs(store)[0]] == [pairs[n].id for n in (0, 2, 3, 4)]
    run = jobs.train(store, by="ann")
    given = {pair.id for pair in RunFolder(store.run_folder(run)).pairs()}
    assert pairs[1].id not in given and unseen.id not in given and pairs[0].id in given
    assert store.run_history(run)[0]["payload"]["left_out"] == (
        f"1 judged pair is left out: {lost.relative_to(store.folder)} is gone. "
        "Labels stay, and count again where files come back."
    )
    (tmp_path / "elsewhere").rename(lost)
    assert len(jobs.training_pairs(store)[0]) == 5


def test_what_is_learned_from_reads_the_candidates_of_its_own_pairs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = make_store(tmp_path / "p"), [0]

    def rows(own: Store, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        found = plain(own, sql, **parameters)
        read[0] += len(found)
        return found

    plain = Store._rows
    monkeypatch.setattr(Store, "_rows", rows)

    def cost(ask: Callable[[], Any]) -> int:
        read[0] = 0
        ask()
        return read[0]

    asked = (store.human_pairs, store.tie_pairs, store.latent_channels, lambda: store.unjudged_pairs(1))
    for pair, value in zip(drawn(store, 4), ("left", "right", "tie"), strict=False):
        label(store, pair, value)  # type: ignore[arg-type]
    store.counts()  # What is new of pairs and labels is read once, whoever asks.
    few = [cost(ask) for ask in asked]
    drawn(store, 100)
    store.counts()
    assert [cost(ask) for ask in asked] == few and few[2] == 1


def test_a_skipped_pair_is_left_for_others(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    label(store, pair, "skip")
    assert open_pairs(store) == []
    assert open_pairs(store, "bob") == [pair.id]


def test_two_people_on_one_pair_are_both_kept_and_a_draw_of_votes_is_no_pair(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    (other,) = store.show_pairs([pair.id], to="bob")
    label(store, pair, "left")
    label(store, other, "right" if other.left == pair.left else "left", by="bob")
    assert len(store.label_history()) == 2
    assert store.human_pairs() == []


def test_held_out_pairs_do_not_change_as_pairs_are_added(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p", settings=LoopSettings(held_out_every=5))
    for pair in drawn(store, 5):
        label(store, pair, "left")
    before = [pair.id for pair in store.human_pairs() if pair.held_out]
    for pair in drawn(store, 5):
        label(store, pair, "left")
    after = [pair.id for pair in store.human_pairs() if pair.held_out]
    assert len(before) == 1
    assert after[:1] == before and len(after) == 2


def test_what_people_said_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair,) = drawn(store, 1)
    label(store, pair, "left")
    database = Database(tmp_path / "p" / DATABASE)
    for statement in ("update labels set value = 'right'", "delete from labels", "delete from events"):
        with pytest.raises(DatabaseError, match="append-only"):
            database.execute(statement)


def test_all_self_pairs_of_a_prompt_are_taken_in_once(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"num_candidates": 4, "self_pairs_per_prompt": 2})
    store = make_store(tmp_path / "project", settings=settings)
    train_round_0(store, pairs=6)
    run = run_now(store, jobs.propose(store, by="ann"))
    assert len(store.review_pairs(run)) == 2 * settings.prompts_per_round
    store.take_in_self_pairs(run, RunFolder(store.run_folder(run)).self_pairs())
    assert len(store.review_pairs(run)) == 2 * settings.prompts_per_round


def test_a_flipped_self_pair_is_a_human_pair_from_then_on(tmp_path: Path) -> None:
    store = _proposed(tmp_path)
    run = jobs.proposal(store)
    assert run is not None
    first, second, third, *_ = store.review_pairs(run)
    before = {pair.id: pair for pair in store.self_pairs(run)}
    decide(store, first.id, "flip")
    decide(store, second.id, "drop")
    decide(store, third.id, "approve")
    own = {pair.id for pair in store.self_pairs(run)}
    (flipped,) = [pair for pair in store.human_pairs() if pair.id == first.id]
    assert own == set(before) - {first.id, second.id}
    assert flipped.source == "human" and not flipped.held_out
    assert (flipped.winner, flipped.loser) == (before[first.id].loser, before[first.id].winner)


def test_the_last_decision_holds_and_can_be_taken_back(tmp_path: Path) -> None:
    store = _proposed(tmp_path)
    run = jobs.proposal(store)
    assert run is not None
    pair = store.review_pairs(run)[0]
    for decision in ("flip", "drop", None):
        decide(store, pair.id, decision)  # type: ignore[arg-type]
    assert store.review_pairs(run)[0].decision is None
    assert len(store.review_history()) == 3
    assert store.counts().flipped == 0


def test_a_decision_sent_twice_is_one(tmp_path: Path) -> None:
    store = _proposed(tmp_path)
    run = jobs.proposal(store)
    assert run is not None
    pair, uid = store.review_pairs(run)[0], new_uuid()
    decide(store, pair.id, "flip", uid=uid)
    decide(store, pair.id, "flip", uid=uid)
    assert len(store.review_history()) == 1


def test_review_shows_only_the_share_to_keep(tmp_path: Path) -> None:
    store = _proposed(tmp_path)
    run = jobs.proposal(store)
    assert run is not None
    assert {pair.rank for pair in store.review_pairs(run)} == {0, 1, 2, 3}
    store.set_settings(store.project().settings.model_copy(update={"keep_self_pairs": 0.5}), by="ann")
    assert {pair.rank for pair in store.review_pairs(run)} == {0, 1}


def test_an_accepted_round_becomes_current_and_an_older_one_can_again(tmp_path: Path) -> None:
    store = _proposed(tmp_path)
    run_now(store, jobs.train(store, by="ann"))
    assert [(round_.round, round_.parent) for round_ in store.rounds()] == [(0, None), (1, 0)]
    assert store.current_round() == store.rounds()[1]
    store.make_current(0, by="ann")
    assert store.current_round() == store.rounds()[0]
    with pytest.raises(ValueError, match="There is no round 5"):
        store.make_current(5, by="ann")


def _proposed(tmp_path: Path) -> Store:
    """A project with round 0 trained and self pairs for round 1."""
    store = make_store(tmp_path / "p")
    train_round_0(store)
    run_now(store, jobs.propose(store, by="ann"))
    return store


WRITER = """
import sys, uuid
from annotator.rows import Answer
from annotator.store import Store
store = Store(sys.argv[1])
pairs = sys.argv[2:]
while True:
    for pair in pairs:
        batch = [Answer(uuid=str(uuid.uuid4()), pair=pair, value="left") for _ in range(3)]
        store.record_answers(batch, by="ann")
        print(",".join(answer.uuid for answer in batch), flush=True)
"""


@pytest.mark.timeout(60)
def test_a_killed_writer_loses_no_acknowledged_label_and_leaves_no_half_batch(
    tmp_path: Path, root: Path
) -> None:
    store = make_store(tmp_path / "p")
    pairs = [pair.id for pair in drawn(store, 4)]
    store.close()
    acknowledged: list[list[str]] = []
    for kill in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "p"), *pairs],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        for _ in range(5 + 3 * kill):
            acknowledged.append(process.stdout.readline().strip().split(","))
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        acknowledged += [line.split(",") for line in rest if len(line) == 3 * 36 + 2]
        process.wait()
    kept = [row["uuid"] for row in Store(tmp_path / "p").label_history()]
    assert {uid for batch in acknowledged for uid in batch} <= set(kept)
    assert len(kept) == len(set(kept)) and len(kept) % 3 == 0


@pytest.mark.timeout(60)
def test_two_apps_on_one_project_refuse_no_label_of_each_other(tmp_path: Path) -> None:
    first = make_store(tmp_path / "p")
    (pair,) = drawn(first, 1)
    stores, labels = [first, Store(tmp_path / "p")], 50

    def answer(store: Store) -> list[str]:
        return [label(store, pair, "left") for _ in range(labels)]

    with ThreadPoolExecutor(8) as threads:
        given = [uid for one in threads.map(answer, 4 * stores) for uid in one]
    assert len(given) == 8 * labels
    assert {row["uuid"] for row in first.label_history()} == set(given)


def replaced(folder: Path) -> None:
    """By a copy of itself, as a backup is put back."""
    folder.rename(folder.with_name("before"))
    shutil.copytree(folder.with_name("before"), folder)


def only_its_database(folder: Path) -> None:
    (folder / DATABASE).unlink()


@pytest.mark.parametrize("displace", [replaced, shutil.rmtree, only_its_database])
def test_nothing_is_acknowledged_or_read_once_the_file_at_the_path_is_another(
    tmp_path: Path, displace: Callable[[Path], None]
) -> None:
    store = make_store(tmp_path / "p")
    one, two = drawn(store, 2)
    kept = label(store, one, "left")
    displace(tmp_path / "p")
    with pytest.raises(Displaced, match=r"project\.db of p was moved, replaced or deleted"):
        label(store, two, "left")
    with pytest.raises(Displaced):
        store.label_history()
    store.close()
    if displace is replaced:
        assert [row["uuid"] for row in Store(tmp_path / "p").label_history()] == [kept]
    else:
        assert not (tmp_path / "p" / DATABASE).exists(), "nothing is made in its place"


def test_a_label_that_went_into_a_moved_project_is_kept_once(tmp_path: Path) -> None:
    store, uid = make_store(tmp_path / "p"), new_uuid()
    (pair,) = drawn(store, 1)
    (tmp_path / "p").rename(tmp_path / "moved")
    with pytest.raises(Displaced):
        label(store, pair, "left", uid=uid)
    store.close()
    again = Store(tmp_path / "moved")
    label(again, pair, "left", uid=uid)
    assert [row["uuid"] for row in again.label_history()] == [uid]


def test_what_is_kept_up_pair_by_pair_is_what_a_fresh_look_finds(tmp_path: Path) -> None:
    store, chance = make_store(tmp_path / "p"), Random(3)
    pairs = drawn(store, 6)
    for person in ("bob", "cleo"):
        store.show_pairs([pair.id for pair in pairs], to=person)
    given: list[tuple[str, str]] = []
    for turn in range(60):
        who = chance.choice(("ann", "bob", "cleo"))
        own = [uid for uid, by in given if by == who]
        if own and chance.random() < 0.3:
            undo(store, chance.choice(own), by=who)
        else:
            value = chance.choice(("left", "right", "tie", "skip"))
            given.append((label(store, chance.choice(pairs), value, by=who), who))  # type: ignore[arg-type]
        if turn == 20:
            drawn(store, 1)
        if turn == 30:
            store.withdraw_pair(chance.choice(pairs).id, why="", by="ann")
        if turn == 40:
            jobs.change_settings(store, {"held_out_every": 2}, by="ann")
        if turn % 10 == 9:
            fresh = Store(tmp_path / "p")
            states = store.pair_states()
            assert states == fresh.pair_states() and store.counts() == fresh.counts()
            unjudged = [pair for pair in states if not pair.judged and not pair.withdrawn]
            assert sorted(store.unjudged_states(), key=lambda pair: pair.ordinal) == unjudged
            assert store.counts().withdrawn == sum(pair.withdrawn for pair in states)
            assert store.counts().skipped == sum(bool(pair.answered_by) for pair in unjudged)
            assert store.counts().trainable == sum(not pair.held_out for pair in fresh.human_pairs())
            assert store.counts().winners == len(fresh.human_pairs())
            assert [pair.id for pair in fresh.human_pairs()] == _with_a_majority(fresh)
            fresh.close()
        store.counts()


def test_a_full_disk_is_not_taken_for_a_broken_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "p").close()
    (tmp_path / "p" / DATABASE).write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(ValueError, match="cannot be read as a project"):
        Store(tmp_path / "p")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_400))
    with pytest.raises(ValueError, match="the disk is full"):
        Store(tmp_path / "p")


def _with_a_majority(store: Store) -> list[str]:
    rows = store._rows(
        """
        select p.id from standing_labels s join pairs p on p.id = s.pair
        where s.value in ('left', 'right') group by p.ordinal
        having sum(iif((s.value = 'left') = (s.left = p.one), 1, -1)) != 0 order by p.ordinal
        """
    )
    return [row["id"] for row in rows]


def test_a_label_is_counted_without_counting_the_pairs_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = make_store(tmp_path / "p"), list[str]()

    def facts(pair: PairState, settings: LoopSettings) -> Iterator[str]:
        asked.append(pair.id)
        return plain(pair, settings)

    plain = learning._facts
    monkeypatch.setattr(learning, "_facts", facts)
    pairs = drawn(store, 50)
    assert store.counts().drawn == len(pairs)
    for number, pair in enumerate(pairs[:5], start=1):
        asked.clear()
        label(store, pair, "left")
        assert store.counts().labelled == number
        assert asked == [pair.id, pair.id], "as it was, and as it is"
    jobs.change_settings(store, {"held_out_every": 2}, by="ann")
    assert store.counts().trainable == sum(not pair.held_out for pair in store.human_pairs())


def test_after_a_start_what_stands_is_asked_for_once_and_not_pair_by_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = make_store(tmp_path / "p"), list[str]()
    first, second, *_ = drawn(store, 8)
    label(store, first, "left")
    label(store, first, "tie")
    taken_back = label(store, second, "right")
    undo(store, taken_back)
    store.show_pairs([first.id], to="bob")
    label(store, first, "both_bad", by="bob")
    states = store.pair_states()
    anew = Store(tmp_path / "p")
    rows = anew._rows

    def counted(sql: str, **parameters: object) -> list[dict[str, object]]:
        asked.append(sql)
        return rows(sql, **parameters)

    monkeypatch.setattr(anew, "_rows", counted)
    assert anew.pair_states() == states and len(asked) == 4
    assert states[0].answered_by == {"ann", "bob"} and not states[1].judged
    anew.close()


def test_counts_add_up_and_say_the_same_everywhere(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    for pair, value in zip(drawn(store, 6), ("left", "right", "tie", "skip", "both_bad"), strict=False):
        label(store, pair, value)  # type: ignore[arg-type]
    counts = store.counts()
    assert (counts.drawn, counts.labelled, counts.skipped, counts.winners) == (6, 4, 1, 2)
    assert len(store.preferences()) == counts.labelled == sum(store.preference_counts())
    assert counts.trainable == sum(not pair.held_out for pair in store.human_pairs())


def test_reasons_belong_to_a_label_of_ones_own_and_the_last_ones_hold(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair, *_) = drawn(store, 2)
    given = label(store, pair, "left")

    def because(uid: str, by: str, **why: object) -> str | None:
        answer = Answer(uuid=uid, pair=pair.id, value="reasons", of=given, **why)  # type: ignore[arg-type]
        return store.record_answers([answer], by=by)[0]

    first = new_uuid()
    assert because(first, "ann", reasons=("colour",)) is None
    assert because(first, "ann", reasons=("details",)) is None, "a repeat changes nothing"
    assert (
        because(new_uuid(), "bob", reasons=("style",))
        == "There is no such label of yours to give reasons for."
    )
    assert store.reasons([given]) == {given: (["colour"], "")}
    assert because(new_uuid(), "ann", reasons=(), text="too dark") is None
    assert store.last_labels("ann", 5)[0].text == "too dark"
    assert store.counts().labelled == 1 and len(store.label_history()) == 1


def test_a_name_changes_nothing_of_who_somebody_is_and_nobody_takes_anothers(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    (pair, *_) = drawn(store, 2)
    label(store, pair, "left", by="ann")
    store.name_person("ann", "  Ann  B. ")
    with pytest.raises(ValueError, match="“You” already means somebody"):
        store.name_person("ann", "You")
    with pytest.raises(ValueError, match="Somebody else here is called ann b"):
        store.name_person("person-2", "ann b.")
    store.name_person("ann", "Anna")
    store.name_person("person-2", "Ann B.")
    assert store.names() == {"ann": "Anna", "person-2": "Ann B."}
    assert [past.pair.id for past in store.last_labels("ann", 5)] == [pair.id]
    assert store.last_labels("person-2", 5) == []


@pytest.mark.parametrize("name", ["", "   ", "a" * 41, "a\u202eb"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="A name has 1 to 40 characters"):
        make_store(tmp_path / "p").name_person("ann", name)
