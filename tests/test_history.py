"""Who decided what, when: the table for people."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from annotating import decide, decide_audit, drawn, label, make_store, new_uuid, proposed, undo

from annotator import history
from annotator.store import Store
from sail.settings import LoopSettings

COLUMN = {name: number for number, name in enumerate(history.COLUMNS)}


def told(store: Store, what: str) -> list[str]:
    """What the lines of that kind say, oldest first."""
    return [line[COLUMN["said"]] for line in history.lines(store) if line[COLUMN["what"]] == what]


def test_labels_stand_with_who_gave_them_and_undone_ones_stay(tmp_path: Path):
    store = make_store(tmp_path / "p")
    first, second = drawn(store, 2)
    store.name_person("ann", "Ann")
    given = label(store, first, "left")
    undo(store, given)
    store.show_pairs([second.id], to="ben")
    label(store, second, "tie", by="ben")
    lines = [line for line in history.lines(store) if line[COLUMN["what"]] == "label"]
    assert [(line[1], line[3], line[4], line[7]) for line in lines] == [
        ("Ann", "left", first.id, first.prompt),
        ("Ann", "undo", first.id, first.prompt),
        (history.called("ben", {}), "tie", second.id, second.prompt),
    ]
    times = [line[0] for line in history.lines(store)]
    assert times == sorted(times) and times[0].endswith("+00:00")
    # What a browser is known by is nobody's to read.
    assert not [line for line in history.lines(store) if "ben" in line or "ann" in line]


def test_settings_stand_from_what_to_what(tmp_path: Path):
    store = make_store(tmp_path / "p")
    settings = store.project().settings
    store.set_settings(settings.changed({"optimisation": {"steps": 99}, "monitor_prompts": 3}), by="ann")
    began, changed = told(store, "settings")
    assert began == "as the project began"
    was = (settings.monitor_prompts, settings.optimisation.steps)
    assert changed == f"monitor_prompts: {was[0]} -> 3; optimisation.steps: {was[1]} -> 99"
    prompts = store.project().prompts
    store.set_prompts([*prompts[1:], "a new one", "another"], by="ann")
    began, changed = told(store, "prompts")
    assert began == f"{len(prompts)} prompts"
    assert changed == f"2 added, 1 taken out, {len(prompts) + 1} now"


def test_what_was_decided_blind_is_told_when_the_sample_is_decided(tmp_path: Path):
    store, run = proposed(tmp_path / "p", 12, audited=False)
    (sampled, *_) = [pair for pair in store.review_pairs(run) if pair.in_audit]
    decide(store, sampled.id, "flip", by="ann")
    assert told(store, "decision in Review") == [history.NOT_YET]
    decide_audit(store, run)
    store.approve_in_bulk(
        run, [pair.id for pair in store.review_pairs(run)], threshold=0.0, uuid=new_uuid(), by="ann"
    )
    said = told(store, "decision in Review")
    assert said[0] == "flip" and history.NOT_YET not in said
    left = len(store.review_pairs(run)) - len({pair.id for pair in store.review_pairs(run) if pair.in_audit})
    assert told(store, "approval of the clear ones") == [f"approve {left} pairs"]
    assert told(store, "audit") == [f"all {len(said) - 1} pairs of the sample decided"]
    assert told(store, "gate") == ["round 0 accepted."]
    assert told(store, "current round") == ["round 0, accepted by the gate"]
    assert {"train queued", "train done", "propose done"} <= set(told(store, "run"))
    whose = {line[COLUMN["who"]] for line in history.lines(store) if line[COLUMN["what"]] == "gate"}
    assert whose == {history.THE_APP}


def test_what_somebody_typed_is_no_formula_to_a_spreadsheet(tmp_path: Path):
    store = make_store(tmp_path / "p")
    store.name_person("ann", "=1+1")
    history.write_csv(store, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(encoding="utf-8-sig", newline="") as file:
        head, *lines = csv.reader(file)
    assert tuple(head) == history.COLUMNS
    (named,) = [line for line in lines if line[COLUMN["what"]] == "name"]
    assert named[COLUMN["said"]] == named[COLUMN["who"]] == "'=1+1"


@pytest.mark.parametrize("payload", [None, 7, {"round": 1}])
def test_a_line_that_another_version_wrote_costs_no_other(tmp_path: Path, payload: object):
    store = make_store(tmp_path / "p", settings=LoopSettings())
    store._write(lambda: store._append_event("gate", payload, "ann"))
    assert len(told(store, "gate")) == 1 and told(store, "settings") == ["as the project began"]
