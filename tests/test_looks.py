"""Blind comparisons and tries: what is drawn, what is shown to whom, what is kept, what is said of it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_trainer
import pytest
from annotating import PROMPTS, drawn, fake_runner, hold, label, make_store, new_uuid, run_now, wait_for
from fastapi.testclient import TestClient
from PIL import Image
from sqlite_utils import Database

from annotator import jobs, looks, winrate
from annotator.projects import Projects
from annotator.rows import Answer, Match, ShownPair, Tally
from annotator.runs import take_in
from annotator.server import build
from annotator.store import DATABASE, DatabaseError, Store
from sail import rounds as loop
from sail.files import publish_json
from sail.records import LabelValue
from sail.runfolder import RunFolder

ORIGIN = "http://127.0.0.1:7860"
BASE = "/api/projects/p"
ROUND_1_AND_BASE = Match(one=1, two=None)


@pytest.fixture(scope="module")
def trained_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two trained rounds, of which the second is current."""
    store = make_store(tmp_path_factory.mktemp("trained") / "p")
    for pair in drawn(store, 5):
        label(store, pair, "left")
    for begin in (jobs.train, jobs.propose, jobs.train):
        run_now(store, begin(store, by="ann"))
    store.close()
    return store.folder


@pytest.fixture
def store(trained_twice: Path, tmp_path: Path) -> Iterator[Store]:
    copied = Store(shutil.copytree(trained_twice, tmp_path / "all" / "p"))
    yield copied
    copied.close()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    projects = Projects(store.folder.parent, default="p", starter=store.folder, runner=fake_runner())
    client = TestClient(build(projects), base_url=ORIGIN, headers={"origin": ORIGIN})
    client.cookies.set("sail_person", "ann")
    yield client
    projects.close()


def hold_out_two(store: Store) -> None:
    """Two prompts that nothing was learned from."""
    store.set_prompts([*PROMPTS[:5], "a boat", *PROMPTS[5:], "a ship"], by="ann")
    store.set_settings(store.project().settings.model_copy(update={"monitor_prompts": 2}), by="ann")
    assert jobs.split_prompts(store)[1] == ["a boat", "a ship"]


def compared(store: Store, count: int = 4, match: Match = ROUND_1_AND_BASE) -> Match:
    run_now(store, looks.compare(store, match, count, by="ann"))
    return match


def opened(store: Store, match: Match, *, to: str = "ann") -> list[ShownPair]:
    return store.open_comparisons(match, to=to, limit=100)


def say(store: Store, pair: ShownPair, value: LabelValue, *, by: str = "ann", uid: str | None = None) -> str:
    uid = uid or new_uuid()
    assert store.record_comparison_answers([Answer(uuid=uid, pair=pair.id, value=value)], by=by) == [None]
    return uid


def side_of(store: Store, pair: ShownPair, match: Match, which: int) -> LabelValue:
    """Where the newer round's (0) or the older one's (1) image of a pair stands."""
    run = looks.runs_of(store, match)[0]
    request = RunFolder(store.run_folder(run)).request()
    own = int(store.image_file(pair.left).stem.rsplit("-", 1)[1]) // request.per_prompt
    return "left" if own == which else "right"


# What is drawn


def test_comparisons_are_of_held_out_prompts_and_both_looks_start_from_the_same_noise(store: Store) -> None:
    match = compared(store, 3)
    _, held_out = loop.split_prompts(PROMPTS, store.project().settings)
    shown = opened(store, match)
    assert len(shown) == 3 and {pair.prompt for pair in shown} == set(held_out)
    request = RunFolder(store.run_folder(looks.runs_of(store, match)[0])).request()
    current = store.current_round()
    assert current is not None
    assert [look.adapter for look in request.looks] == [current.sha256, None]
    for pair in shown:
        numbers = [int(store.image_file(uid).stem.rsplit("-", 1)[1]) for uid in (pair.left, pair.right)]
        assert sorted(number // request.per_prompt for number in numbers) == [0, 1]
        assert len({number % request.per_prompt for number in numbers}) == 1


def test_more_comparisons_come_from_other_noise(store: Store) -> None:
    match = compared(store, 2)
    compared(store, 2)
    seeds = {RunFolder(store.run_folder(run)).request().noise_seed for run in looks.runs_of(store, match)}
    assert len(seeds) == 2 and min(seeds) >= looks.COMPARED_FROM
    assert store.comparisons_drawn(match) == 4


def test_taking_in_again_changes_nothing_and_mends_what_a_crash_left_out(store: Store) -> None:
    run = looks.compare(store, ROUND_1_AND_BASE, 4, by="ann")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    # Candidates are in and their comparisons are not: where a kill in between leaves it.
    store.take_in_candidates(run, folder.candidate_sets())
    assert store.comparisons_drawn(ROUND_1_AND_BASE) == 0
    take_in(store, run, folder)
    before = opened(store, ROUND_1_AND_BASE)
    take_in(store, run, folder)
    assert len(before) == 4 and opened(store, ROUND_1_AND_BASE) == before


def test_comparisons_that_were_asked_for_with_a_setting_that_is_gone_are_taken_in(store: Store) -> None:
    run = looks.compare(store, ROUND_1_AND_BASE, 4, by="ann")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    asked = json.loads((folder.path / "request.json").read_bytes())
    publish_json(folder.path / "request.json", {**asked, "compiled": True})
    take_in(store, run, folder)
    assert store.comparisons_drawn(ROUND_1_AND_BASE) == 4


def test_one_begins_to_compare_while_the_rest_is_drawn(store: Store) -> None:
    hold_out_two(store)
    run = looks.compare(store, ROUND_1_AND_BASE, 2, by="ann")
    held = hold(store, run)
    runner = fake_runner()
    runner.open(store)
    runner.start()
    wait_for(lambda: len(opened(store, ROUND_1_AND_BASE)) == 1)
    assert store.run(run.id).unfinished and looks.planned(store, ROUND_1_AND_BASE) == 2
    held.unlink()
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(opened(store, ROUND_1_AND_BASE)) == 2
    runner.close()


def test_comparisons_teach_nothing(store: Store) -> None:
    before = (store.counts(), store.human_pairs(), store.preferences())
    match = compared(store)
    for pair in opened(store, match):
        say(store, pair, "left")
    assert (store.counts(), store.human_pairs(), store.preferences()) == before


@pytest.mark.parametrize(
    ("one", "two", "sentence"),
    [(1, 1, "Both sides are the same"), (None, None, "Both sides are the same"), (7, None, "not trained")],
)
def test_what_cannot_be_compared_is_one_sentence(
    store: Store, one: int | None, two: int | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        looks.match_between(store, one, two)


def test_the_newer_round_comes_first_however_it_is_asked_for(store: Store) -> None:
    assert looks.match_between(store, None, 0) == Match(one=0, two=None)
    assert looks.match_between(store, 0, 1) == looks.match_between(store, 1, 0) == Match(one=1, two=0)


# What people say


def test_sides_are_drawn_for_each_person_and_kept(store: Store) -> None:
    match = compared(store)
    assert opened(store, match) == opened(store, match)
    lefts = {opened(store, match, to=f"person-{n}")[0].left for n in range(40)}
    assert len(lefts) == 2


def test_wins_are_of_the_newer_round_wherever_it_stood(store: Store) -> None:
    match = compared(store, 6)
    shown = opened(store, match)
    for pair, which in zip(shown[:4], (0, 0, 0, 1), strict=True):
        say(store, pair, side_of(store, pair, match, which))
    say(store, shown[4], "tie")
    say(store, shown[5], "skip")
    assert store.tallies(match) == [Tally(person="ann", wins=3, losses=1, ties=1)]
    assert store.comparisons_answered(match, "ann") == 6
    assert store.tallies(Match(one=0, two=None)) == []


def test_an_answer_sent_twice_is_one_and_undo_opens_the_comparison_again(store: Store) -> None:
    match = compared(store)
    first = opened(store, match)[0]
    uid = say(store, first, "left")
    say(store, first, "left", uid=uid)
    assert len(store.comparison_history()) == 1 and first not in opened(store, match)
    undo = Answer(uuid=new_uuid(), pair=first.id, value="undo", undoes=uid)
    assert store.record_comparison_answers([undo], by="bob") == ["There is no such answer of yours to undo."]
    assert store.record_comparison_answers([undo], by="ann") == [None]
    assert opened(store, match)[0] == first and store.tallies(match) == []


def test_an_id_of_somebody_elses_answer_is_refused(store: Store) -> None:
    match = compared(store)
    first = opened(store, match)[0]
    opened(store, match, to="bob")
    repeated = Answer(uuid=say(store, first, "left"), pair=first.id, value="right")
    refusals = store.record_comparison_answers([repeated], by="bob")
    assert refusals == ["This answer's id was used by someone else."]
    assert len(store.comparison_history()) == 1


def test_an_answer_to_what_was_never_shown_is_refused(store: Store) -> None:
    first = opened(store, compared(store))[0]
    answer = Answer(uuid=new_uuid(), pair=first.id, value="left")
    assert store.record_comparison_answers([answer], by="bob") == ["This comparison was never shown to you."]


def test_what_was_said_cannot_be_changed(store: Store) -> None:
    say(store, opened(store, compared(store))[0], "left")
    for change in ("update comparison_answers set value = 'right'", "delete from comparison_answers"):
        with pytest.raises(DatabaseError, match="append-only"):
            Database(store.folder / DATABASE).execute(change)


# What is said of it


def tally(wins: int, losses: int, ties: int = 0) -> Tally:
    return Tally(person="ann", wins=wins, losses=losses, ties=ties)


@pytest.mark.parametrize(("wins", "n"), [(6, 10), (11, 20), (4, 10), (13, 20), (30, 50)])
def test_so_many_more_answers_of_the_same_share_settle_it_and_one_fewer_does_not(wins: int, n: int) -> None:
    share, more = wins / n, winrate.answers_to_settle(winrate.win_rate(tally(wins, n - wins)))
    assert more

    def settles(total: int) -> bool:
        half = winrate.Z_95 / (2 * (total**0.5))
        return abs(share - 0.5) > half

    assert settles(n + more) and not settles(n + more - 1)


@pytest.mark.parametrize(
    ("counts", "verdict", "figures"),
    [
        (
            tally(31, 13),
            "Round 2 is preferred.",
            "Round 2 won 70 %; the true share is probably between 56 and 82 %.",
        ),
        (
            tally(12, 7, 1),
            "Round 2 is ahead, but it is not settled.",
            "Round 2 won 62 %, counting a tie as half; the true share is probably between 41 and 80 %. "
            "About 45 more answers would tell.",
        ),
        (
            tally(1, 11),
            "Base is preferred.",
            "Round 2 won 8 %; the true share is probably between 1 and 35 %.",
        ),
        (
            tally(4, 0),
            "Too few answers to tell yet.",
            "Round 2 won 100 %; the true share is probably between 51 and 100 %. "
            "About 10 more answers would tell.",
        ),
        (
            tally(0, 0, 3),
            "Too few answers to tell yet.",
            "Round 2 won 50 %, counting a tie as half; the true share is probably between 13 and 87 %. "
            "About 10 more answers would tell.",
        ),
        (
            tally(1, 0, 19),
            "No clear difference between round 2 and base.",
            "Round 2 won 52 %, counting a tie as half; the true share is probably between 32 and 72 %.",
        ),
        (tally(0, 0), "No comparison is answered yet.", ""),
    ],
)
def test_the_result_is_said_in_words(counts: Tally, verdict: str, figures: str) -> None:
    assert winrate.verdict(counts, one="round 2", two="base") == verdict
    assert winrate.figures(counts, one="round 2") == figures


# Over the routes


def compare_next(client: TestClient, **match: int | None) -> dict[str, Any]:
    return dict(client.post(f"{BASE}/comparisons/next", json={"one": 1, "two": None, **match}).json())


def send(client: TestClient, *pairs: dict[str, str], value: str = "left") -> dict[str, Any]:
    answers = [{"uuid": new_uuid(), "pair": pair["id"], "value": value, "elapsed_ms": 5} for pair in pairs]
    return dict(client.post(f"{BASE}/comparisons/answers", json={"answers": answers}).json())


def test_the_figure_is_shown_when_the_planned_answers_are_given_and_not_before(
    client: TestClient, store: Store
) -> None:
    compared(store)
    first, *rest = compare_next(client)["pairs"]
    assert set(first) == {"id", "prompt", "left", "right"}
    assert len(send(client, first)["acknowledged"]) == 1
    said = compare_next(client)
    assert (said["answered"], said["planned"], said["result"]) == (1, 4, None)
    send(client, *rest)
    result = compare_next(client)["result"]
    assert result["verdict"] == "Too few answers to tell yet."
    assert [(one["person"], one["you"]) for one in result["people"]] == [("you", True), ("everyone", False)]


def test_an_answer_that_can_be_none_keeps_none_of_the_others_back(client: TestClient, store: Store) -> None:
    compared(store)
    first, second, *_ = compare_next(client)["pairs"]
    answers = [
        {"uuid": new_uuid(), "pair": pair["id"], "value": value, "elapsed_ms": 5}
        for pair, value in ((first, "perhaps"), (second, "left"))
    ]
    said = client.post(f"{BASE}/comparisons/answers", json={"answers": answers}).json()
    assert said["acknowledged"] == [answers[1]["uuid"]] and list(said["refused"]) == [answers[0]["uuid"]]


def test_who_looks_before_is_shown_the_figure_and_that_is_kept(client: TestClient, store: Store) -> None:
    compared(store)
    send(client, compare_next(client)["pairs"][0])
    early = client.post(f"{BASE}/comparisons/result", json={"one": 1}).json()
    assert early["verdict"] == "Too few answers to tell yet." and early["more"] == 9
    (event,) = (event for event in store.events() if event["kind"] == "comparison_result_asked")
    assert (event["by"], event["payload"]) == ("ann", {"one": 1, "two": None, "answered": 1})
    assert compare_next(client)["result"] is None


def test_results_are_given_for_each_person_and_all_together(client: TestClient, store: Store) -> None:
    match = compared(store, 2)
    for person, which in (("bob", 0), ("ann", 1)):
        for pair in opened(store, match, to=person):
            say(store, pair, side_of(store, pair, match, which), by=person)
    store.name_person("bob", "Bob")
    people = compare_next(client)["result"]["people"]
    assert [(one["person"], one["wins"], one["losses"]) for one in people] == [
        ("Bob", 2, 0), ("you", 0, 2), ("everyone", 2, 2),
    ]  # fmt: skip


def test_nothing_that_is_sent_tells_which_side_is_which(client: TestClient, store: Store) -> None:
    compared(store)
    pairs = compare_next(client)["pairs"]
    assert len(pairs) == 4
    for pair in pairs:
        assert set(pair) == {"id", "prompt", "left", "right"}
        for side in ("left", "right"):
            response = client.get(pair[side])
            assert response.status_code == 200
            assert Image.open(io.BytesIO(response.content)).info == {}
            name = pair[side].rsplit("/", 1)[1]
            assert len(name) > 20 and "compare" not in str(response.headers)


def test_a_run_that_was_stopped_is_not_the_whole_plan(client: TestClient, store: Store) -> None:
    hold_out_two(store)
    run = looks.compare(store, ROUND_1_AND_BASE, 2, by="ann")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    (folder.path / "candidates/00001.json").unlink()
    take_in(store, run, folder)
    store.record_run_event(run.id, "ended", message="Stopped on request.")
    send(client, *compare_next(client)["pairs"])
    said = compare_next(client)
    assert (said["answered"], said["planned"], said["result"], said["run"]) == (1, 2, None, run.id)


def test_drawing_comparisons_is_asked_for_once(client: TestClient, store: Store) -> None:
    body = {"one": 1, "two": None, "count": 3}
    run = client.post(f"{BASE}/comparisons/draw", json=body).json()["run"]
    assert store.run(run).job == "compare" and compare_next(client)["planned"] == 3
    again = client.post(f"{BASE}/comparisons/draw", json=body)
    assert again.status_code == 422 and "does that already" in again.json()["detail"]


# Tries


def try_out(client: TestClient, **changes: Any) -> Any:
    body = {"prompt": "a green fox", "rounds": [None, 0, 1], "strength": 0.5, "count": 2, "noise_seed": 7}
    return client.post(f"{BASE}/tries", json={**body, **changes})


def test_a_try_is_drawn_with_every_round_that_was_chosen(client: TestClient, store: Store) -> None:
    run = store.run(try_out(client, prompt=" a  green\nfox ").json()["run"])
    (waiting,) = client.get(f"{BASE}/tries").json()["tries"]
    assert (waiting["run"]["state"], waiting["prompt"]) == ("waiting", "a green fox")
    assert [look["images"] for look in waiting["looks"]] == [[], [], []]
    run_now(store, run)
    (done,) = client.get(f"{BASE}/tries").json()["tries"]
    assert [(look["round"], look["strength"]) for look in done["looks"]] == [(None, 1.0), (0, 0.5), (1, 0.5)]
    images = [url for look in done["looks"] for url in look["images"]]
    assert len(set(images)) == 6 and all(client.get(url).status_code == 200 for url in images)
    request = RunFolder(store.run_folder(run)).request()
    assert (request.noise_seed, request.per_prompt) == (7, 2)


def test_the_last_tries_stay_in_the_project(client: TestClient, store: Store) -> None:
    for number in range(3):
        run_now(store, store.run(try_out(client, prompt=f"fox {number}").json()["run"]))
    again = Store(store.folder)
    assert [one.prompt for one in looks.tries(again)] == ["fox 2", "fox 1", "fox 0"]
    again.close()


def test_a_page_is_not_told_of_tries_that_are_long_done_at_every_poll(
    client: TestClient, store: Store
) -> None:
    tried = [try_out(client, prompt=f"fox {number}").json()["run"] for number in range(1)]
    for number in range(1, 5):
        run_now(store, store.run(tried[-1]))
        tried.append(try_out(client, prompt=f"fox {number}").json()["run"])
    told = client.get(f"{BASE}/status").json()["runs"]
    assert [run["id"] for run in told if run["job"] == "try"] == tried[:0:-1]
    assert sum(run["job"] != "try" for run in told) == len(store.runs()) - len(tried)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": " \n "}, "There is no prompt. Write what the images should show."),
        ({"prompt": "x" * 2001}, "The prompt has 2,001 characters; a prompt has at most 2,000. Shorten it."),
        ({"rounds": []}, "Nothing is chosen to draw with. Choose base or a round."),
        ({"rounds": [9]}, "Round 9 is not trained. Reload the page and choose another one."),
        ({"strength": 1.6}, "strength must be at most 1.5."),
        ({"count": 5}, "count must be at most 4."),
    ],
)
def test_a_try_that_cannot_be_drawn_is_one_sentence(
    client: TestClient, store: Store, changes: dict[str, Any], sentence: str
) -> None:
    response = try_out(client, **changes)
    assert (response.status_code, response.json()["detail"]) == (422, sentence)
    assert all(run.job != "try" for run in store.runs())


def test_each_person_has_one_try_in_the_queue(client: TestClient, store: Store) -> None:
    assert try_out(client).status_code == 200
    again = try_out(client)
    assert again.status_code == 422 and "Your last prompt is not drawn yet" in again.json()["detail"]
    client.cookies.set("sail_person", "bob")
    assert try_out(client).status_code == 200


def test_a_try_waits_for_the_run_before_it(client: TestClient, store: Store) -> None:
    jobs.draw(store, 2, by="ann")
    try_out(client)
    (waiting,) = client.get(f"{BASE}/tries").json()["tries"]
    assert (waiting["run"]["state"], waiting["run"]["ahead"]) == ("waiting", 1)
