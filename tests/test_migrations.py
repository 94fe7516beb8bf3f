"""A project of an earlier version, opened by this one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotating import label, new_uuid, open_pairs
from sqlite_utils import Database

from annotator import migrations
from annotator.rows import Answer, Match
from annotator.store import DATABASE, Store
from sail.records import SelfPair

PROMPTS = ["a fox", "a cat", "a dog"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """From before a prompt had several self pairs: two labels stand and one is undone; one self pair is
    flipped, one approved in bulk, and the same of the third was taken back."""
    database = Database(tmp_path / DATABASE)
    migrations.project.apply(database, stop_before="m007_several_self_pairs_of_a_prompt")
    settings = {"monitor_prompts": 0, "held_out_every": 10, "min_human_pairs": 2}
    said = {
        "model": {"model": {"source": "somewhere"}, "download": False},
        "prompts": PROMPTS,
        "settings": settings,
    }
    rows: dict[str, list[dict[str, object]]] = {
        "events": [{"kind": kind, "payload": json.dumps(payload)} for kind, payload in said.items()],
        "runs": [
            {"id": 1, "job": "draw", "round": 0, "folder": "0001-draw"},
            {"id": 2, "job": "propose", "round": 1, "folder": "0002-propose"},
        ],
        "run_events": [{"run": run, "what": "done", "payload": "{}"} for run in (1, 2)],
        "candidates": [
            {
                "id": f"image-{run}-{index}-{number}",
                "run": run,
                "prompt_index": index,
                "prompt": prompt,
                "number": number,
                "image": f"candidates/{index}-{number}.png",
                "latents": f"candidates/{index}.safetensors",
            }
            for run in (1, 2)
            for index, prompt in enumerate(PROMPTS)
            for number in (0, 1)
        ],
        "pairs": [
            {"ordinal": n, "id": f"pair-{n}", "run": 1, "one": f"image-1-{n}-0", "two": f"image-1-{n}-1"}
            for n in range(3)
        ],
        "assignments": [{"pair": f"pair-{n}", "person": "ann", "left": f"image-1-{n}-1"} for n in (0, 1)],
        "labels": [
            {"uuid": "label-0", "pair": "pair-0", "value": "left", "left": "image-1-0-1"},
            {"uuid": "label-1", "pair": "pair-1", "value": "left", "left": "image-1-1-1"},
            {
                "uuid": "label-2",
                "pair": "pair-1",
                "value": "undo",
                "left": "image-1-1-1",
                "undoes": "label-1",
            },
            {"uuid": "label-3", "pair": "pair-1", "value": "right", "left": "image-1-1-1"},
        ],
        "self_pairs": [
            {
                "id": f"self-{n}",
                "run": 2,
                "prompt_index": n,
                "winner": f"image-2-{n}-0",
                "loser": f"image-2-{n}-1",
                "winner_reward": 1.0,
                "loser_reward": 0.0,
                "margin": 1.0,
                "margin_error": 0.1,
                "rank": n,
            }
            for n in range(3)
        ],
        "reviews": [
            {"uuid": "review-0", "self_pair": "self-0", "decision": "flip"},
            {"uuid": "review-1", "self_pair": "self-1", "decision": "approve", "bulk": "bulk-0"},
            {"uuid": "review-2", "self_pair": "self-2", "decision": "approve", "bulk": "bulk-1"},
        ],
        "bulk_reviews": [
            {"uuid": "bulk-0", "run": 2, "threshold": 1.0},
            {"uuid": "bulk-1", "run": 2, "threshold": 0.0},
            {"uuid": "bulk-2", "run": 2, "undoes": "bulk-1"},
        ],
    }
    for table, own in rows.items():
        columns = database.table(table).columns_dict
        every = {"at": 5.0, "by": "ann", "person": "ann", "elapsed_ms": 900}
        known = {name: value for name, value in every.items() if name in columns}
        database.table(table).insert_all([{**known, **row} for row in own])
    database.close()
    opened = Store(tmp_path)
    yield opened
    opened.close()


def test_all_that_was_said_in_an_earlier_version_holds(store: Store) -> None:
    assert store.project().prompts == tuple(PROMPTS) and store.project().settings.min_human_pairs == 2
    assert [row["uuid"] for row in store.label_history()] == [f"label-{n}" for n in range(4)]
    assert [row["uuid"] for row in store.review_history()] == [f"review-{n}" for n in range(3)]
    assert [row["uuid"] for row in store.bulk_history()] == [f"bulk-{n}" for n in range(3)]
    counts = store.counts()
    # Its audit was never over, so that how many it turned round is not told yet; they are learned from.
    assert (counts.drawn, counts.labelled, counts.trainable, counts.flipped) == (3, 2, 2, 0)
    found = [(one.left, one.left_wins, one.source, one.annotator, one.round) for one in store.preferences()]
    assert found == [
        ("image-1-0-1", 1, "human", "ann", 0),
        ("image-1-1-1", 0, "human", "ann", 0),
        ("image-2-0-0", 0, "human", "ann", 1),
        ("image-2-1-1", 0, "self", "ann", 1),
        ("image-2-2-0", 1, "self", "judge", 1),
    ]
    learned = {pair.id: (pair.winner.row, pair.loser.row) for pair in store.human_pairs()}
    assert learned == {"pair-0": (1, 0), "pair-1": (0, 1), "self-0": (1, 0)}
    bulk = store.last_bulk(store.run(2))
    assert bulk is not None and (bulk.uuid, bulk.pairs) == ("bulk-0", 1)


def test_a_project_of_an_earlier_version_goes_on_as_one_of_this_version(store: Store) -> None:
    assert open_pairs(store) == ["pair-2"]
    (shown,) = store.show_pairs(["pair-2"], to="ann")
    given = label(store, shown, "left")
    why = Answer(uuid=new_uuid(), pair=shown.id, value="reasons", of=given, reasons=("colour",))
    assert store.record_answers([why], by="ann") == [None]
    assert store.reasons([given, "label-0"]) == {given: (["colour"], "")}
    second = SelfPair(
        prompt_index=0,
        prompt=PROMPTS[0],
        winner=1,
        loser=0,
        winner_reward=1.0,
        loser_reward=0.0,
        margin=1.0,
        margin_error=0.1,
        rank=3,
    )
    store.take_in_self_pairs(store.run(2), [second])
    assert len(store.review_pairs(store.run(2))) == 4
    assert store.comparisons_drawn(Match(one=0, two=None)) == 0 and store.comparison_history() == []
