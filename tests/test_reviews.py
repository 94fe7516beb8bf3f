"""Review by exception in the store and over the routes: audit, bulk approval, the gate before training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from annotating import decide, decide_audit, fake_runner, make_store, new_uuid, proposed, run_now
from fastapi.testclient import TestClient
from sqlite_utils import Database

from annotator import audit, jobs, migrations
from annotator.audit import typical_margin
from annotator.projects import Projects
from annotator.routes.review import review_counts
from annotator.rows import Review, ReviewPair, Run
from annotator.server import build
from annotator.store import DATABASE, DatabaseError, Store
from sail.records import Decision

ORIGIN = "http://127.0.0.1:7860"
BASE = "/api/projects/p"


@pytest.fixture(scope="module")
def undecided_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with 24 self pairs of which nobody has decided any."""
    store, _ = proposed(tmp_path_factory.mktemp("made") / "p", 24, audited=False)
    store.close()
    return store.folder


@pytest.fixture
def opened(tmp_path: Path, undecided_project: Path) -> Iterator[Projects]:
    shutil.copytree(undecided_project, tmp_path / "all" / "p")
    projects = Projects(tmp_path / "all", default="p", starter=tmp_path / "starter", runner=fake_runner())
    yield projects
    projects.close()


@pytest.fixture
def store(opened: Projects) -> Store:
    return opened.get("p").store


@pytest.fixture
def run(store: Store) -> Run:
    found = jobs.proposal(store)
    assert found is not None
    return found


@pytest.fixture
def client(opened: Projects) -> TestClient:
    return TestClient(
        build(opened), base_url=ORIGIN, headers={"origin": ORIGIN}, cookies={"sail_person": "ann"}
    )


def undecided(store: Store, run: Run) -> list[ReviewPair]:
    return [pair for pair in store.review_pairs(run) if pair.decision is None]


def of(store: Store, run: Run, pair: str) -> ReviewPair:
    return next(one for one in store.review_pairs(run) if one.id == pair)


def approve(store: Store, run: Run, pairs: list[ReviewPair], over: float = 1.0, uid: str = "") -> str:
    uid = uid or new_uuid()
    store.approve_in_bulk(run, [pair.id for pair in pairs], threshold=over, uuid=uid, by="bob")
    return uid


def post(client: TestClient, path: str, **body: Any) -> Any:
    return client.post(f"{BASE}/{path}", json=body)


# The audit


def test_the_audit_sample_comes_first_and_then_the_least_certain(store: Store, run: Run) -> None:
    pairs = store.review_pairs(run)
    assert [pair.in_audit for pair in pairs] == [True] * 10 + [False] * 14
    margins = [pair.margin for pair in pairs]
    assert margins[10:] == sorted(margins[10:])
    assert margins[:10] != sorted(margins[:10])


def test_how_clear_a_pair_is_follows_from_its_margin_and_not_from_its_error(
    client: TestClient, store: Store, run: Run
) -> None:
    decide_audit(store, run)
    pairs = sorted(store.review_pairs(run), key=lambda pair: -pair.margin)
    typical = typical_margin([pair.margin for pair in pairs])
    assert [pair.clarity for pair in pairs] == pytest.approx([pair.margin / typical for pair in pairs])
    in_errors = [pair.margin / pair.margin_error for pair in pairs]
    assert in_errors == sorted(in_errors)  # the other way round: this run tells the two apart
    judges = {pair["id"]: pair["judge"] for pair in client.get(f"{BASE}/review").json()["pairs"]}
    said = [judges[pair.id]["certainty"] for pair in pairs]
    sure = [pair.margin >= typical for pair in pairs].count(True)
    guess = [pair.margin < typical / 2 for pair in pairs].count(True)
    assert said == ["sure"] * sure + ["fairly sure"] * (24 - sure - guess) + ["a guess"] * guess
    assert min(sure, guess, 24 - sure - guess) > 3
    assert [judges[pair.id]["clarity"] for pair in pairs] == [pair.clarity for pair in pairs]


def test_typical_is_of_all_pairs_of_the_run_and_not_of_those_that_go_to_review(
    store: Store, run: Run
) -> None:
    before = {pair.id: pair.clarity for pair in store.review_pairs(run)}
    store.set_settings(store.project().settings.model_copy(update={"keep_self_pairs": 0.5}), by="ann")
    kept = {pair.id: pair.clarity for pair in store.review_pairs(run)}
    assert len(kept) == 12 and kept.items() <= before.items()


def test_the_audited_error_over_a_threshold_is_that_of_the_pairs_with_larger_margins(
    store: Store, run: Run
) -> None:
    blind = sorted((pair for pair in store.review_pairs(run) if pair.blind), key=lambda pair: pair.margin)
    for number, pair in enumerate(blind):
        decide(store, pair.id, "flip" if number < 5 else "approve")
    over = {one.over: one.error for one in audit.by_threshold(store.audit(run).audited)}
    assert (over[0.0].value, over[0.0].n) == (0.5, 10)
    for least, error in over.items():
        clear = [number for number, pair in enumerate(blind) if pair.clarity >= least]
        assert error.n == len(clear)
        assert not clear or error.value == pytest.approx(sum(number < 5 for number in clear) / len(clear))
    values = [error.value for error in over.values() if error.value is not None]
    assert values == sorted(values, reverse=True)


def test_a_side_that_is_chosen_blind_is_kept_as_approve_or_flip(store: Store, run: Run) -> None:
    first, second = store.review_pairs(run)[:2]
    winner = audit.winner_side(first.id)
    other = "left" if audit.winner_side(second.id) == "right" else "right"
    reviews = [
        Review(uuid=new_uuid(), self_pair=first.id, decision=winner),
        Review(uuid=new_uuid(), self_pair=second.id, decision=other),
    ]
    store.record_reviews(reviews, by="ann")
    assert [row["decision"] for row in store.review_history()] == ["approve", "flip"]


def test_one_decision_that_is_refused_keeps_none_of_the_others_back(
    client: TestClient, store: Store, run: Run
) -> None:
    decide_audit(store, run)
    pair, gone = undecided(store, run)[0].id, _choose("no such pair", "left")
    unknown = {**_choose(pair, "left"), "decision": "perhaps"}
    sent = [gone, unknown, {**_choose(pair, "left"), "decision": "drop"}]
    for _ in range(2):  # the second time changes nothing
        said = post(client, "reviews", answers=sent).json()
        assert said["refused"].keys() == {gone["uuid"], unknown["uuid"]}
        assert said["refused"][gone["uuid"]] == "There is no such pair to review. Reload the page."
        assert said["refused"][unknown["uuid"]].startswith("decision")
        assert said["acknowledged"] == [sent[2]["uuid"]]
    assert [row["decision"] for row in store.review_history()][10:] == ["drop"]


def test_the_audit_is_over_once_and_what_is_said_later_does_not_change_it(store: Store, run: Run) -> None:
    blind = [pair.id for pair in store.review_pairs(run) if pair.blind]
    for number, pair in enumerate(blind):
        assert not store.audit(run).done
        decision: Decision = "flip" if number < 2 else "drop" if number == 2 else "approve"
        decide(store, pair, decision)
    assert store.audit(run).done and audit.error(store.audit(run).audited).value == 0.3
    decide(store, blind[0], "approve")
    decide(store, blind[1], None)
    assert store.audit(run).done and audit.error(store.audit(run).audited).value == 0.3
    assert [event["by"] for event in store.events() if event["kind"] == "audit"] == ["ann"]
    assert not any(pair.blind for pair in store.review_pairs(run))


def test_who_decided_and_when_comes_with_a_pair(store: Store, run: Run) -> None:
    first = store.review_pairs(run)[0]
    decide(store, first.id, "drop", by="bob")
    (row,) = store.review_history()
    found = of(store, run, first.id)
    assert (found.by, found.at, found.bulk) == ("bob", row["at"], None)


def test_a_decision_does_not_hold_over_one_of_somebody_else_that_was_not_seen(store: Store, run: Run) -> None:
    pair = store.review_pairs(run)[0].id

    def say(decision: Decision | None, by: str, seen: str | None) -> tuple[str, str | None]:
        uid = new_uuid()
        review = Review(uuid=uid, self_pair=pair, decision=decision, seen=seen)
        return uid, store.record_reviews([review], by=by)[0]

    def stands() -> tuple[str | None, str | None]:
        now = store.review_pairs(run)[0]
        return now.decision, now.by

    flipped, _ = say("flip", "bob", "")
    late, why = say("approve", "ann", "")
    assert why and "meanwhile" in why and stands() == ("flip", "bob")
    assert say("drop", "ann", late)[1] == why, "nor what was said on top of it"
    dropped, why = say("drop", "ann", flipped)
    assert why is None and stands() == ("drop", "ann")
    assert say("approve", "ann", "")[1] is None, "one's own, from another tab"
    assert say("flip", "bob", dropped)[1], "which bob has not seen"
    assert say(None, "bob", None)[1] is None and stands() == (None, None)
    assert say("flip", "ann", "")[1] is None and stands() == ("flip", "ann")


def test_undo_gives_back_what_stood_before_in_the_name_and_the_bulk_it_had(
    client: TestClient, store: Store, run: Run
) -> None:
    decide_audit(store, run)
    pair, other = undecided(store, run)[:2]
    bulk = approve(store, run, [pair], over=0.0)
    by_bulk = of(store, run, pair.id)

    def say(about: str, decision: str | None, by: str, undoes: str | None = None) -> tuple[str, str | None]:
        review = Review(uuid=new_uuid(), self_pair=about, decision=decision, undoes=undoes)  # type: ignore[arg-type]
        return review.uuid, store.record_reviews([review, review], by=by)[1]

    flipped, _ = say(pair.id, "flip", "bob")
    cleared, _ = say(pair.id, None, "ann")
    for by, target, about in (
        ("bob", cleared, pair.id),
        ("ann", flipped, pair.id),
        ("ann", cleared, other.id),
    ):
        assert say(about, "undo", by, undoes=target)[1] == "There is no such decision of yours to undo."
    assert say(pair.id, "undo", "bob")[1], "nor one that it does not name"
    assert of(store, run, pair.id).decision is None
    undo, why = say(pair.id, "undo", "ann", undoes=cleared)
    assert why is None and (of(store, run, pair.id).decision, of(store, run, pair.id).by) == ("flip", "bob")
    assert say(pair.id, "undo", "ann", undoes=undo)[1], "an undo is not undone"
    say(other.id, "drop", "ann", undoes=flipped)
    assert of(store, run, pair.id).by == "bob", "only an undo takes anything back"
    say(pair.id, "undo", "bob", undoes=flipped)
    assert of(store, run, pair.id) == by_bulk and by_bulk.bulk == bulk
    store.undo_bulk(bulk, uuid=new_uuid(), by="ann")
    assert of(store, run, pair.id).decision is None
    # A flip that was under what it took back, and under a bulk approval, stands again with that undone.
    say(other.id, "flip", "ann")
    cleared, _ = say(other.id, None, "ann")
    bulk = approve(store, run, [other], over=0.0)
    say(other.id, "undo", "ann", undoes=cleared)
    counts = store.counts().flipped, store.preference_counts(), len(store.files_to_learn_from(run)["self"])
    store.undo_bulk(bulk, uuid=new_uuid(), by="ann")
    assert of(store, run, other.id).decision == "flip" and counts[0] == 0
    assert store.counts().flipped == 1 and store.preference_counts() == counts[1]
    assert len(store.files_to_learn_from(run)["self"]) == counts[2] - 1
    nameless = {"uuid": new_uuid(), "self_pair": pair.id, "decision": "undo"}
    assert post(client, "reviews", answers=[nameless]).json()["refused"].keys() == {nameless["uuid"]}


def test_nothing_that_is_sent_tells_what_the_judge_chose_before_the_audit_is_over(
    client: TestClient, store: Store, run: Run
) -> None:
    blind = [pair for pair in store.review_pairs(run) if pair.blind]
    said = post(client, "reviews", answers=[_choose(blind[0].id, "left")]).json()
    found = client.get(f"{BASE}/review").json()
    assert [pair["judge"] is None for pair in found["pairs"]] == [True] * 10 + [False] * 14
    assert (found["pairs"][0]["said"]["choice"], found["pairs"][0]["said"]["by"]) == ("left", "you")
    assert (said["review"]["approve"], said["review"]["flip"]) == (0, 0)
    assert said["review"]["audit"] == {"pairs": 10, "decided": 1, "done": False}
    assert found["audit"]["error"]["value"] is None
    labels, leaves = client.get(f"{BASE}/status").json()["labels"], client.get(f"{BASE}/export").json()
    mixed = client.get(f"{BASE}/mixup").json()
    for pair in blind[1:-1]:
        post(client, "reviews", answers=[_choose(pair.id, "left")])
        assert client.get(f"{BASE}/status").json()["labels"] == labels
        assert client.get(f"{BASE}/export").json() == leaves
        assert client.get(f"{BASE}/mixup").json() == mixed
    post(client, "reviews", answers=[_choose(pair.id, "right") for pair in blind[1:]])
    found = client.get(f"{BASE}/review").json()
    assert all(pair["judge"] for pair in found["pairs"])
    wrong = sum(pair["said"]["choice"] != pair["judge"]["side"] for pair in found["pairs"][:10])
    assert found["audit"]["error"]["value"] == pytest.approx(wrong / 10)


def _choose(pair: str, side: str) -> dict[str, str]:
    return {"uuid": new_uuid(), "self_pair": pair, "decision": side}


def test_preferences_name_who_decided_a_self_pair_and_leave_out_what_was_dropped(
    store: Store, run: Run
) -> None:
    flipped, dropped, approved, _ = pairs = store.review_pairs(run)[:4]
    for pair, decision, person in (
        (flipped, "flip", "ann"),
        (dropped, "drop", "bob"),
        (approved, "approve", "bob"),
    ):
        decide(store, pair.id, decision, by=person)
    found = {
        (one.left, one.right): (one.left_wins, one.source, one.annotator, one.round)
        for one in store.preferences()
        if one.round == run.round
    }
    assert len(found) == len(store.review_pairs(run)) - 1
    assert sum(store.preference_counts()) == len(store.preferences())

    def told(pair: ReviewPair) -> tuple[float, str, str, int] | None:
        """With what is said of the judge's winner, on whichever side it stands in Review."""
        if audit.winner_side(pair.id) == "left":
            return found.get((pair.winner, pair.loser))
        row = found.get((pair.loser, pair.winner))
        return row and (1 - row[0], *row[1:])

    of_run = [told(pair) for pair in pairs]
    assert of_run == [(0, "human", "ann", 1), None, (1, "self", "bob", 1), (1, "self", "judge", 1)]
    assert {left_wins for left_wins, source, *_ in found.values() if source == "self"} == {0, 1}


def test_both_sides_show_winners(client: TestClient, store: Store, run: Run) -> None:
    found = {pair["id"]: pair for pair in client.get(f"{BASE}/review").json()["pairs"]}
    on_left = [found[pair.id]["left"].endswith(pair.winner) for pair in store.review_pairs(run)]
    assert 0 < sum(on_left) < len(on_left)


# In bulk


def test_a_bulk_approval_takes_the_clear_and_undecided_pairs_and_names_who_when_and_over_what(
    store: Store, run: Run
) -> None:
    decide_audit(store, run)
    flipped, *rest = undecided(store, run)[::-1]
    decide(store, flipped.id, "flip")
    typical = typical_margin([pair.margin for pair in store.review_pairs(run)])
    clear = {pair.id for pair in rest if pair.margin >= typical}
    uid = approve(store, run, store.review_pairs(run))
    approved = [pair for pair in store.review_pairs(run) if pair.bulk == uid]
    assert {pair.id for pair in approved} == clear and 0 < len(clear) < len(rest)
    assert {(pair.decision, pair.by) for pair in approved} == {("approve", "bob")}
    assert of(store, run, flipped.id).decision == "flip"
    (row,) = store.bulk_history()
    assert (row["uuid"], row["person"], row["threshold"], row["run"]) == (uid, "bob", 1.0, run.id)


def test_only_what_was_shown_is_approved(store: Store, run: Run) -> None:
    decide_audit(store, run)
    shown = undecided(store, run)[-2:]
    approve(store, run, shown)
    assert {pair.id for pair in store.review_pairs(run) if pair.bulk} == {pair.id for pair in shown}


def test_a_bulk_approval_sent_twice_is_one(store: Store, run: Run) -> None:
    decide_audit(store, run)
    uid = approve(store, run, undecided(store, run))
    before = store.review_history()
    approve(store, run, undecided(store, run), over=0.0, uid=uid)
    assert store.review_history() == before and len(store.bulk_history()) == 1


def test_undoing_a_bulk_approval_is_one_event_and_spares_what_was_decided_since(
    store: Store, run: Run
) -> None:
    decide_audit(store, run)
    before = {pair.id for pair in undecided(store, run)}
    uid = approve(store, run, undecided(store, run))
    changed = next(pair.id for pair in store.review_pairs(run) if pair.bulk == uid)
    decide(store, changed, "flip")
    undo = new_uuid()
    for _ in range(2):
        store.undo_bulk(uid, uuid=undo, by="ann")
    assert {pair.id for pair in undecided(store, run)} == before - {changed}
    assert of(store, run, changed).decision == "flip"
    assert [row["undoes"] for row in store.bulk_history()] == [None, uid]
    assert store.last_bulk(run) is None


def test_an_id_of_somebody_elses_decision_is_refused(store: Store, run: Run) -> None:
    decide_audit(store, run)
    first, *others = undecided(store, run)
    review = Review(uuid=new_uuid(), self_pair=first.id, decision="drop")
    assert store.record_reviews([review], by="ann") == store.record_reviews([review], by="ann") == [None]
    assert store.record_reviews([review], by="bob") == ["This decision's id was used by someone else."]
    uid = approve(store, run, others)
    assert store.approve_in_bulk(run, [], threshold=1.0, uuid=uid, by="bob") > 0
    with pytest.raises(ValueError, match="used for something else"):
        store.approve_in_bulk(run, [], threshold=1.0, uuid=uid, by="ann")
    with pytest.raises(ValueError, match="used for something else"):
        store.undo_bulk(uid, uuid=uid, by="bob")
    assert store.last_bulk(run) is not None


def test_an_audit_whose_sample_became_smaller_and_is_decided_is_over(store: Store, run: Run) -> None:
    jobs.change_settings(store, {"keep_self_pairs": 0.25}, by="ann")
    sample = [pair.id for pair in store.review_pairs(run) if pair.blind]
    jobs.change_settings(store, {"keep_self_pairs": 1.0}, by="ann")
    assert 0 < len(sample) < store.audit(run).pairs
    for pair in sample:
        decide(store, pair, "approve")
    assert not store.audit(run).done
    jobs.change_settings(store, {"keep_self_pairs": 0.25}, by="ann")
    assert store.audit(run).done and jobs.next_step(store).name == "review"


def test_flips_of_an_audit_that_was_never_ended_count_once_the_round_is_trained(
    store: Store, run: Run
) -> None:
    for pair in [pair for pair in store.review_pairs(run) if pair.blind][:2]:
        decide(store, pair.id, "flip")
    before = store.counts()
    assert before.flipped == 0 and store.flips_untold(run) == 2
    run_now(store, jobs.train(store, by="ann"))
    assert store.counts().flipped == 2 and store.counts().trainable == before.trainable + 2


def test_before_the_audit_is_over_nothing_is_approved_in_bulk(
    client: TestClient, store: Store, run: Run
) -> None:
    pairs = [pair.id for pair in store.review_pairs(run)]
    answer = post(client, "reviews/bulk", uuid=new_uuid(), run=run.id, threshold=1.0, pairs=pairs)
    assert (answer.status_code, store.bulk_history()) == (422, [])
    assert "audit sample first" in answer.json()["detail"]


def test_a_bulk_approval_and_its_undo_over_the_routes(client: TestClient, store: Store, run: Run) -> None:
    decide_audit(store, run)
    uid, pairs = new_uuid(), [pair.id for pair in undecided(store, run)]
    said = post(client, "reviews/bulk", uuid=uid, run=run.id, threshold=1.0, pairs=pairs).json()
    found = client.get(f"{BASE}/review").json()
    assert (
        said["approved"]
        == found["bulk"]["pairs"]
        == sum(bool(pair["said"] and pair["said"]["in_bulk"]) for pair in found["pairs"])
    )
    assert (found["bulk"]["by"], found["bulk"]["threshold"]) == ("you", 1.0)
    post(client, "reviews/bulk/undo", uuid=new_uuid(), bulk=uid)
    assert client.get(f"{BASE}/review").json()["bulk"] is None
    assert len(undecided(store, run)) == len(pairs)
    again = post(client, "reviews/bulk/undo", uuid=new_uuid(), bulk=new_uuid())
    assert again.status_code == 422 and "no such approval" in again.json()["detail"]


def test_bulk_approvals_cannot_be_changed_or_deleted(store: Store, run: Run) -> None:
    decide_audit(store, run)
    approve(store, run, undecided(store, run))
    database = Database(store.folder / DATABASE)
    for statement in ("update bulk_reviews set threshold = 0", "delete from bulk_reviews"):
        with pytest.raises(DatabaseError, match="append-only"):
            database.execute(statement)


def test_decisions_from_before_bulk_approval_still_stand(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    database = Database(folder / DATABASE)
    migrations.project.apply(database, stop_before="m006_review_by_exception")
    old = {"uuid": new_uuid(), "self_pair": "s", "person": "ann", "decision": "drop", "at": 1.0}
    database.conn.execute("pragma foreign_keys = off")
    database.table("reviews").insert(old)
    database.close()
    store = Store(folder)
    (row,) = store.review_history()
    (standing,) = Database(folder / DATABASE).query("select * from standing_reviews")
    added = {"seq": 1, "bulk": None, "undoes": None}
    assert {**old, **added} == row == {name: standing[name] for name in row}
    store.close()


# What is counted


@pytest.mark.parametrize("audited", [False, True])
def test_review_is_counted_as_its_pairs_and_its_audit_say(
    opened: Projects, store: Store, run: Run, audited: bool
) -> None:
    def expected() -> dict[str, Any]:
        pairs, found = store.review_pairs(run), store.audit(run)
        said = [pair.decision for pair in pairs if not pair.blind]
        return {
            "run": run.id,
            "round": 1,
            "pairs": len(pairs),
            **{name: said.count(name) for name in ("approve", "flip", "drop")},
            "unreviewed": sum(pair.decision is None for pair in pairs),
            "audit": {"pairs": found.pairs, "decided": found.decided, "done": found.done},
        }

    def agree() -> None:
        standing = Database(store.folder / DATABASE).query("select * from standing_reviews")
        stands = {row["self_pair"]: row["uuid"] for row in standing}
        assert all(pair.uuid == stands.get(pair.id) for pair in store.review_pairs(run))
        assert review_counts(opened.get("p")) == expected()
        assert store.counts().flipped == store._flips_told()
        own = len(store.self_pairs(run))
        assert len(store.files_to_learn_from(run)["self"]) == own
        assert store.preference_counts()[1] == own + len(store._flipped())

    if audited:
        decide_audit(store, run)
    chance, ids, bulk = Random(4), [pair.id for pair in store.review_pairs(run)], ""
    for turn in range(40):
        decision = chance.choice(("approve", "flip", "drop", None))
        decide(store, chance.choice(ids), decision)  # type: ignore[arg-type]
        if turn % 3 == 2:
            undone = chance.choice([row for row in store.review_history() if row["decision"] != "undo"])
            undo = Review(
                uuid=new_uuid(), self_pair=undone["self_pair"], decision="undo", undoes=undone["uuid"]
            )
            store.record_reviews([undo], by="ann")
        if audited and turn % 10 == 3:
            bulk = approve(store, run, undecided(store, run), over=0.0)
        if audited and turn % 10 == 7:
            store.undo_bulk(bulk, uuid=new_uuid(), by="ann")
        if turn == 25:
            store.set_settings(store.project().settings.model_copy(update={"keep_self_pairs": 0.5}), by="ann")
        agree()
    assert store.audit(run).done == audited and store.last_bulk(run) is None


def test_a_poll_goes_through_self_pairs_only_where_something_came_in(
    opened: Projects, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def rows(own: Store, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        asked.append(sql)
        return plain(own, sql, **parameters)

    plain = Store._rows
    monkeypatch.setattr(Store, "_rows", rows)

    def goes_through() -> bool:
        asked.clear()
        review_counts(opened.get("p"))
        return "self_pairs" in str(asked)

    decide_audit(store, run)
    assert [goes_through(), goes_through()] == [True, False]
    uid = approve(store, run, undecided(store, run))
    assert [goes_through(), goes_through()] == [True, False]
    store.undo_bulk(uid, uuid=new_uuid(), by="ann")
    assert [goes_through(), goes_through()] == [True, False]


def test_what_a_review_costs_hangs_on_its_own_run_alone(opened: Projects, store: Store, run: Run) -> None:
    decide_audit(store, run)
    bulk = approve(store, run, undecided(store, run))

    def steps(connection: Any, ask: Callable[[], Any]) -> int:
        taken = [0]
        connection.set_progress_handler(lambda: taken.__setitem__(0, taken[0] + 1), 1)
        ask()
        connection.set_progress_handler(None, 1)
        return taken[0]

    def cost() -> list[int]:
        (pair, *_), reader, writer = undecided(store, run), store._local.reader.conn, store._writing.conn
        decision = Review(uuid=new_uuid(), self_pair=pair.id, decision="flip", seen="")
        return [
            *(steps(reader, lambda ask=ask: ask(run)) for ask in (store.review_pairs, store._count_reviews)),
            steps(reader, lambda: store.last_bulk(run)),
            steps(writer, lambda: store.record_reviews([decision], by="ann")),
            steps(writer, lambda: store.undo_bulk(bulk, uuid=new_uuid(), by="ann")),
        ]

    few = cost()
    database = Database(store.folder / DATABASE)
    (draw, *_) = store.runs()
    candidates = list(database.query("select * from candidates where run = ? limit 2", [draw.id]))
    pair = next(database.query("select * from self_pairs"))
    with database.conn:
        for n in range(500):
            both = [{**row, "id": f"c{n}-{i}", "prompt_index": 90 + n} for i, row in enumerate(candidates)]
            database.table("candidates").insert_all(both)
            own = {"id": f"s{n}", "run": draw.id, "winner": f"c{n}-0", "loser": f"c{n}-1"}
            database.table("self_pairs").insert({**pair, **own})
            said = {"self_pair": f"s{n}", "person": "bob", "decision": "drop", "at": 1.0}
            database.table("reviews").insert_all({**said, "uuid": new_uuid()} for _ in range(3))
    many = cost()
    assert all(after < 1.3 * before for before, after in zip(few, many, strict=True)), (few, many)


# Before training


def test_training_waits_for_the_audit(client: TestClient, store: Store, run: Run) -> None:
    refused = post(client, "runs", job="train")
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("10 of 10 audit pairs are not decided.")
    decide_audit(store, run)
    assert post(client, "runs", job="train").status_code == 200


@pytest.mark.parametrize("audited", [True, False])
def test_how_a_round_came_to_be_trained_stays_with_it(
    client: TestClient, opened: Projects, store: Store, run: Run, audited: bool
) -> None:
    if audited:
        decide_audit(store, run, "drop")
    store.name_person("ann", "Ann")
    started = post(client, "runs", job="train", without_audit=not audited).json()
    run_now(store, store.run(started["id"]))
    base, learned = client.get(f"{BASE}/status").json()["rounds"]
    assert "audit" not in base
    assert (learned["without_audit"], learned["by"]) == (not audited, "Ann")
    assert learned["audit"]["wrong"] == (10 if audited else 0)


def test_round_0_has_nothing_to_audit(tmp_path: Path) -> None:
    store = make_store(tmp_path / "q")
    jobs.require_audit(store)
    store.close()
