"""How long the next run will take, from how long the last ones took."""

from pathlib import Path

import pytest
from annotating import drawn, label, make_store, run_now

from annotator import estimates, jobs
from annotator.launcher import Launcher
from annotator.store import Store
from sail import cost
from sail.rounds import NextStep
from sail.runfolder import RunFolder

TRAIN = NextStep(name="train", round=0)


def test_nothing_is_said_of_time_before_anything_was_timed(tmp_path: Path):
    assert estimates.seconds_of(make_store(tmp_path / "project"), TRAIN) is None


def test_a_training_is_reckoned_where_no_answer_names_a_winner_any_more(tmp_path: Path):
    store = make_store(tmp_path / "project")
    for pair in drawn(store, 4):
        label(store, pair, "both_bad")
    assert store.counts().trainable == 0
    assert estimates.seconds_of(store, TRAIN) is not None


def test_a_step_that_starts_no_run_takes_no_time(tmp_path: Path):
    store = make_store(tmp_path / "project")
    drawn(store, 4)
    assert estimates.seconds_of(store, NextStep(name="label", round=0)) is None


def pace_before(store: Store, job: str) -> float | None:
    """Seconds an evaluation that the next run of that job is reckoned with."""
    return estimates._median_pace(estimates._finished(store, job))


def test_the_next_run_is_reckoned_by_its_cost_and_the_pace_of_those_before(tmp_path: Path):
    store = make_store(tmp_path / "project")
    for pair in drawn(store, 8):
        label(store, pair, "left")
    seconds_per_evaluation = 0.25
    run = store.runs()[-1]
    folder = RunFolder(store.run_folder(run))
    seconds = seconds_per_evaluation * cost.evaluations_to_propose(folder.request())
    folder.publish_result({**folder.result(), "seconds": seconds})

    assert pace_before(store, "draw") == pytest.approx(seconds_per_evaluation)
    counts = store.counts()
    expected = cost.evaluations_to_train(
        jobs.train_request(store, jobs.training_pairs(store)[0]),
        judged_pairs=counts.winners,
        human_pairs=counts.trainable,
        self_pairs=0,
    )
    assert estimates.seconds_of(store, TRAIN) == round(seconds_per_evaluation * expected)

    run_now(store, jobs.train(store, by="ann"))
    pace = pace_before(store, "propose")
    expected = cost.evaluations_to_propose(jobs.propose_request(store))
    seconds = estimates.seconds_of(store, NextStep(name="propose", round=1))
    assert pace and seconds == round(pace * expected) > 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("request.json", '{"cut'),
        ("result.json", '{"cut'),
        ("result.json", "null"),
        ("result.json", '{"made_with": null}'),
        ("result.json", '{"kind": "propose"}'),
    ],
)
def test_a_run_that_cannot_be_read_is_not_reckoned_with(tmp_path: Path, name: str, content: str):
    store = make_store(tmp_path / "project")
    for pair in drawn(store, 8):
        label(store, pair, "left")
    (store.run_folder(store.runs()[-1]) / name).write_text(content)
    assert estimates.seconds_of(store, TRAIN) is None


def test_a_run_that_was_resumed_is_not_reckoned_with(tmp_path: Path):
    store = make_store(tmp_path / "project")
    for pair in drawn(store, 8):
        label(store, pair, "left")
    (run,) = store.runs()
    for what in ("ended", "queued", "done"):
        store.record_run_event(run.id, what)
    assert estimates.seconds_of(store, TRAIN) is None
    drawn(store, 4)
    whole = estimates.pace_of(RunFolder(store.run_folder(store.runs()[-1])))
    assert pace_before(store, "draw") == whole


def test_where_guidance_is_distilled_a_solver_step_counts_once(tmp_path: Path):
    store = make_store(tmp_path / "project")
    drawn(store, 4)
    folder = RunFolder(store.run_folder(store.runs()[-1]))
    plain = pace_before(store, "draw")
    folder.publish_result({**folder.result(), "distilled": True})
    assert folder.request().sampling.guidance > 1
    assert pace_before(store, "draw") == pytest.approx(2 * plain)


def test_a_run_is_reckoned_by_the_last_ones_of_its_own_kind(tmp_path: Path):
    store = make_store(tmp_path / "project")
    for pair in drawn(store, 8):
        label(store, pair, "left")
    drawing = pace_before(store, "train")
    assert drawing == pace_before(store, "draw")

    run_now(store, jobs.train(store, by="ann"))
    folder = RunFolder(store.run_folder(store.runs()[-1]))
    before = pace_before(store, "train")
    folder.publish_result({**folder.result(), "seconds": 3 * folder.result()["seconds"]})
    assert pace_before(store, "train") == pytest.approx(3 * before)
    assert pace_before(store, "draw") == drawing


def test_the_pace_is_that_of_runs_with_as_many_processes(tmp_path: Path):
    store = make_store(tmp_path / "project")
    drawn(store, 4)
    drawn(store, 4)
    slow, fast = (RunFolder(store.run_folder(run)) for run in store.runs()[-2:])
    for folder, seconds, processes in ((slow, 40.0, 1), (fast, 10.0, 4)):
        made_with = {"processes": processes}
        folder.publish_result({**folder.result(), "seconds": seconds, "made_with": made_with})
    paces = []
    for processes in (1, 4, 2):
        store.set_launcher(Launcher(processes=processes), by="ann")
        paces.append(pace_before(store, "draw"))
    assert paces[0] == pytest.approx(4 * paces[1])
    # With a number that was never timed, all runs are what there is to go by.
    assert paces[2] == pytest.approx((paces[0] + paces[1]) / 2)
