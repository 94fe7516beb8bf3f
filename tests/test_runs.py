"""Runs as real child processes: one at a time, stopped, killed, found again, taken in once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import fake_trainer
import pytest
from annotating import (
    SETTINGS,
    decide,
    decide_audit,
    drawn,
    fake_runner,
    hold,
    label,
    make_store,
    open_pairs,
    run_now,
    wait_for,
)
from sqlite_utils import Database

from annotator import estimates, jobs, looks
from annotator.faults import FieldError
from annotator.launcher import Launcher
from annotator.processes import OFFLINE, ONLINE, launch
from annotator.routes.loop import run_detail_of
from annotator.rows import Run
from annotator.runs import Runner, RunView, take_in, why_ended
from annotator.store import DATABASE, DatabaseError, Displaced, Store, learning
from sail import rounds as loop
from sail.files import publish_json, publish_lines
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.records import JudgedPair
from sail.runfolder import ADAPTER_FILE, RunFolder, Snapshot
from sail.settings import LoopSettings


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = make_store(tmp_path / "p")
    yield made
    made.close()


def follow(runner: Runner, *stores: Store) -> Runner:
    for store in stores:
        runner.open(store)
    runner.start()
    return runner


def state(runner: Runner, store: Store, run: Run) -> str:
    return runner.view(store, store.run(run.id)).state


def label_all(store: Store, count: int = 6) -> None:
    for pair in drawn(store, count):
        label(store, pair, "left")


def test_pairs_are_there_to_label_while_the_rest_is_being_drawn(store: Store) -> None:
    run = jobs.draw(store, 6, by="ann")
    held = hold(store, run)
    runner = follow(fake_runner(), store)
    wait_for(lambda: len(open_pairs(store)) == 1)
    assert state(runner, store, run) == "running"
    held.unlink()
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(open_pairs(store)) == 6
    runner.close()


def test_one_run_at_a_time_over_all_projects(tmp_path: Path, store: Store) -> None:
    other = make_store(tmp_path / "q")
    first, second = jobs.draw(store, 3, by="ann"), jobs.draw(other, 3, by="ann")
    held = hold(store, first)
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: state(runner, store, first) == "running")
    runner.turn()
    view = runner.view(other, other.run(second.id))
    assert (view.state, view.ahead) == ("waiting", 1)
    held.unlink()
    wait_for(lambda: other.run(second.id).what == "done")
    runner.close()
    other.close()


def test_a_clock_that_is_set_back_lets_no_run_overtake_another(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store(tmp_path / "q")
    first, plain = jobs.draw(store, 2, by="ann"), time.time
    request = RunFolder(store.run_folder(first)).request()
    monkeypatch.setattr(time, "time", lambda: plain() - 3600)
    second = jobs.create(store, "try", request, by="ann")
    third = jobs.draw(other, 2, by="ann")
    monkeypatch.undo()
    runner = fake_runner()
    runner.open(store)
    runner.open(other)
    ahead = [runner.view(*run).ahead for run in ((store, first), (store, second), (other, third))]
    assert sorted(ahead) == [0, 1, 2] and ahead[0] < ahead[1]
    follow(runner)
    wait_for(lambda: not any(run.unfinished for run in (*store.runs(), *other.runs())))
    started = [
        next(event["seq"] for event in store.run_history(run) if event["what"] == "started")
        for run in (first, second)
    ]
    assert started == sorted(started)
    runner.close()
    other.close()


def test_runs_can_be_asked_for_although_the_folder_of_runs_is_gone(store: Store) -> None:
    shutil.rmtree(store.folder / "runs")
    run = run_now(store, jobs.draw(store, 2, by="ann"))
    assert run.what == "done" and len(open_pairs(store)) == 2


def test_a_run_is_stopped_and_goes_on_where_it_was(store: Store) -> None:
    run = jobs.draw(store, 8, by="ann")
    held = hold(store, run)
    runner = follow(fake_runner(), store)
    wait_for(lambda: len(open_pairs(store)) == 1)
    runner.stop(store, run.id, by="ann")
    assert state(runner, store, run) == "stopping"
    held.unlink()
    wait_for(lambda: state(runner, store, run) == "stopped")
    before = open_pairs(store)
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(before) == 1 and len(open_pairs(store)) == 8
    assert open_pairs(store)[:1] == before
    runner.close()


def test_a_draw_is_not_resumed_where_its_images_would_have_another_size_than_is_set_now(store: Store) -> None:
    run = jobs.draw(store, 3, by="ann")
    runner = fake_runner()
    with pytest.raises(FieldError, match="Pairs are being drawn, or will be"):
        jobs.change_settings(store, {"sampling": {"size": [32, 48]}}, by="ann")
    runner.stop(store, run.id, by="ann")
    jobs.change_settings(store, {"sampling": {"size": [32, 48]}}, by="ann")
    with pytest.raises(ValueError, match="Draw pairs anew"):
        runner.resume(store, run.id, by="ann")
    anew = jobs.draw(store, 3, by="ann")
    assert RunFolder(store.run_folder(anew)).request().sampling.size == (32, 48)
    follow(runner, store)
    wait_for(lambda: store.run(anew.id).what == "done")
    with pytest.raises(FieldError, match="pairs of two sizes cannot be learned from"):
        jobs.change_settings(store, {"sampling": {"size": None}}, by="ann")
    runner.close()


def test_the_folder_of_a_run_that_is_done_is_looked_into_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, waiting = run_now(store, jobs.draw(store, 2, by="ann")), jobs.draw(store, 2, by="ann")
    looked: list[str] = []

    def snapshot(folder: RunFolder) -> Snapshot:
        looked.append(folder.path.name)
        return plain(folder)

    plain = RunFolder.snapshot
    monkeypatch.setattr(RunFolder, "snapshot", snapshot)
    runner = fake_runner()
    first, second = runner.views(store), runner.views(store)
    assert first == second and first[-1].state == "done" and first[-1].step == first[-1].total == 2
    assert sorted(looked) == sorted([done.folder, waiting.folder, waiting.folder])


def test_a_waiting_run_leaves_the_queue_when_it_is_stopped(store: Store) -> None:
    run = jobs.draw(store, 3, by="ann")
    runner = fake_runner()
    runner.stop(store, run.id, by="ann")
    assert state(runner, store, run) == "stopped"
    with pytest.raises(ValueError, match="nothing to stop"):
        runner.stop(store, run.id, by="ann")


@pytest.mark.parametrize(("download", "offline"), [(False, "1"), (True, "0")])
def test_a_run_may_fetch_a_model_only_where_the_download_is_allowed(
    store: Store, download: bool, offline: str
) -> None:
    launcher = subprocess.Popen(["true"])
    launcher.wait()
    told: list[Mapping[str, str]] = []

    def spy(command: object, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        told.append(environment)
        return launcher

    store.set_model(store.project().model, download=download, by="ann")
    jobs.draw(store, 2, by="ann")
    runner = Runner(launch=spy)
    runner.open(store)
    runner.turn()
    assert told == [ONLINE if download else OFFLINE]
    assert {told[0][name] for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")} == {offline}


def test_a_disk_that_is_away_for_a_moment_ends_no_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = subprocess.Popen(["true"])
    launcher.wait()
    run = jobs.draw(store, 2, by="ann")
    runner = Runner(launch=lambda *_: launcher)
    runner.open(store)
    runner.turn()

    def away(folder: RunFolder) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    for asked in ("is_held", "result"):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, asked, away)
            runner.turn()
        assert state(runner, store, run) in ("running", "interrupted") and store.run(run.id).what == "started"
    runner.turn()
    assert not store.run(run.id).unfinished


def test_a_run_whose_folder_cannot_be_looked_up_for_a_moment_keeps_the_device(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = subprocess.Popen(["sleep", "60"])
    first = jobs.draw(store, 2, by="ann")
    runner = Runner(launch=lambda *_: at_work)
    runner.open(store)
    runner.turn()
    store.record_run(first.id + 1, "export", round_number=0, folder="0002-export", by="ann")

    def away(path: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_symlink", away)
        runner.turn()
    assert store.run(first.id).what == "started" and store.run(first.id + 1).what == "queued"
    # Also where something else was wrong with it: what is at work is not alone on the device.
    runner._end(store, store.run(first.id), message="Something.")
    runner.turn()
    assert store.run(first.id + 1).what == "queued"
    at_work.kill()
    at_work.wait()


def test_a_killed_trainer_is_shown_as_interrupted_and_can_be_resumed(store: Store) -> None:
    run = jobs.draw(store, 4, by="ann")
    held = hold(store, run)
    runner = follow(fake_runner(), store)
    wait_for(lambda: len(open_pairs(store)) == 1)
    os.kill(store.run(run.id).payload["pid"], signal.SIGKILL)
    wait_for(lambda: state(runner, store, run) == "interrupted")
    assert "signal 9" in runner.view(store, store.run(run.id)).message
    held.unlink()
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(open_pairs(store)) == 4
    runner.close()


def test_a_run_that_fails_says_why_and_keeps_the_end_of_its_log(store: Store) -> None:
    run = jobs.draw(store, 4, by="ann")
    (store.run_folder(run) / "fail").touch()
    runner = follow(fake_runner(), store)
    wait_for(lambda: state(runner, store, run) == "failed")
    view = runner.view(store, store.run(run.id))
    assert view.message == "The model folder is gone. Put it back, then resume."
    assert "RuntimeError" in RunFolder(store.run_folder(run)).log_tail()
    runner.close()


def test_a_run_that_cannot_even_begin_says_so(store: Store) -> None:
    def broken(kind: str, folder: Path, environment: object) -> subprocess.Popen[bytes]:
        with open(folder / "log.txt", "ab") as output:
            return subprocess.Popen([sys.executable, "-c", "import nothing_of_that_name"], stderr=output)

    runner = follow(Runner(launch=broken), store)
    run = jobs.draw(store, 2, by="ann")
    wait_for(lambda: state(runner, store, run) == "failed")
    assert "No module named 'nothing_of_that_name'" in runner.view(store, store.run(run.id)).message
    runner.close()


def test_a_run_whose_launcher_ended_before_it_is_at_work_still(store: Store) -> None:
    launcher = subprocess.Popen(["true"])
    launcher.wait()
    run = jobs.draw(store, 2, by="ann")
    runner = Runner(launch=lambda *_: launcher)
    runner.open(store)
    with RunFolder(store.run_folder(run)).lock():
        for _ in range(2):  # started, then followed
            runner.turn()
            assert state(runner, store, run) == "running"
    runner.turn()
    assert not store.run(run.id).unfinished


def test_a_run_that_a_full_disk_ended_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(store.run_folder(jobs.draw(store, 2, by="ann")))
    folder.publish_snapshot(Snapshot(state="running", stage="draw"))
    assert "Resume goes on" in why_ended(folder, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_400_000))
    assert why_ended(folder, 1) == "The disk is full (3 MB are free). Make room, then resume."


def test_a_run_that_was_killed_outright_may_have_run_out_of_memory(store: Store) -> None:
    folder = RunFolder(store.run_folder(jobs.draw(store, 2, by="ann")))
    assert "memory" in why_ended(folder, -signal.SIGKILL)
    assert "memory" not in why_ended(folder, -signal.SIGTERM)


def launcher_that_counts(folder: Path) -> str:
    """A launch command of a project's own: notes what it was given, then does it by the fake trainer."""
    script = folder / "launcher.py"
    script.write_text(
        "import pathlib, subprocess, sys\n"
        f"pathlib.Path({str(folder / 'seen')!r}).write_text(' '.join(sys.argv[1:-1]))\n"
        f"sys.exit(subprocess.call([sys.executable, {fake_trainer.__file__!r}, *sys.argv[-2:]]))\n"
    )
    return f"{{python}} {script} --gpus={{processes}} {{command}}"


def test_a_run_is_started_with_the_projects_own_command(tmp_path: Path, store: Store) -> None:
    command = launcher_that_counts(tmp_path)
    store.set_launcher(Launcher(processes=3, command=command).checked(), by="ann")
    runner = follow(Runner(), store)
    run = jobs.draw(store, 2, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    assert (tmp_path / "seen").read_text() == "--gpus=3 -m sail propose"
    started = [event["payload"] for event in store.run_history(run) if event["what"] == "started"]
    assert started[-1]["command"][-2:] == ["propose", str(store.run_folder(run))]
    runner.close()


def test_a_launcher_that_waits_for_a_machine_is_found_by_a_new_server(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = jobs.draw(store, 2, by="ann")
    folder = store.run_folder(run)
    waits = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(folder)])
    store.record_run_event(run.id, "started", pid=waits.pid)
    # Started long ago, and nothing in the folder says so.
    monkeypatch.setattr("annotator.runs.SLOWEST_START_S", 0.0)
    runner = fake_runner()
    runner.open(store)
    runner.turn()
    assert state(runner, store, run) == "running"
    waits.kill()
    waits.wait()
    runner.turn()
    assert state(runner, store, run) == "failed"


def test_a_new_server_finds_the_running_trainer_and_starts_no_second_one(store: Store) -> None:
    def starts() -> int:
        return [event["what"] for event in store.run_history(run)].count("started")

    run = jobs.draw(store, 6, by="ann")
    held = hold(store, run)
    first = follow(fake_runner(), store)
    wait_for(lambda: len(open_pairs(store)) == 1)
    first.close()
    before, second = starts(), fake_runner()
    second.open(store)
    second.turn()
    assert state(second, store, run) == "running" and starts() == before
    held.unlink()
    second.start()
    wait_for(lambda: store.run(run.id).what == "done")
    assert starts() == before
    assert len(open_pairs(store)) == 6
    second.close()


def test_a_run_that_ended_while_no_server_was_there_is_taken_in(store: Store) -> None:
    run = jobs.draw(store, 4, by="ann")
    held = hold(store, run)
    first = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "started")
    first.close()
    held.unlink()
    folder = RunFolder(store.run_folder(run))
    wait_for(lambda: folder.result() is not None and not folder.is_held())
    assert store.run(run.id).what == "started"
    second = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(open_pairs(store)) == 4
    second.close()


def test_a_result_that_cannot_be_taken_in_fails_the_run_and_not_the_queue(store: Store) -> None:
    label_all(store)
    runner = fake_runner()
    run = jobs.train(store, by="ann")
    folder = RunFolder(store.run_folder(run))
    folder.publish_result({"kind": "train"})
    store.record_run_event(run.id, "started", pid=0)
    follow(runner, store)
    wait_for(lambda: state(runner, store, run) == "failed")
    assert "could not be taken in" in runner.view(store, store.run(run.id)).message
    again = jobs.draw(store, 1, by="ann")
    wait_for(lambda: store.run(again.id).what == "done")
    runner.close()


@pytest.mark.parametrize("result", ["null", "[1]", '"done"'])
def test_a_result_that_is_none_ends_the_run_and_not_the_queue(store: Store, result: str) -> None:
    run = jobs.draw(store, 2, by="ann")
    fake_trainer.run(RunFolder(store.run_folder(run)))
    (store.run_folder(run) / "result.json").write_text(result)
    store.record_run_event(run.id, "started", pid=0)
    runner = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "ended")
    assert "result.json is no result" in store.run(run.id).payload["message"]
    again = jobs.draw(store, 1, by="ann")
    wait_for(lambda: store.run(again.id).what == "done")
    runner.close()


def test_a_run_over_another_kind_of_request_ends_and_the_others_go_on(tmp_path: Path, store: Store) -> None:
    other = make_store(tmp_path / "q")
    first, second = jobs.draw(store, 2, by="ann"), jobs.draw(other, 2, by="ann")
    database = Database(store.folder / DATABASE)
    with database.conn:
        database.execute("update runs set job = 'compare'")
    fake_trainer.run(RunFolder(store.run_folder(first)))
    store.record_run_event(first.id, "started", pid=0)
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: other.run(second.id).what == "done")
    assert store.run(first.id).payload["message"].startswith("The run cannot go on: ")
    runner.close()
    other.close()


def test_a_run_whose_files_name_something_twice_ends(store: Store) -> None:
    run = jobs.draw(store, 2, by="ann")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    twice = json.loads((folder.path / "candidates" / "00000.json").read_text())
    twice["candidates"][1]["index"] = twice["candidates"][0]["index"]
    (folder.path / "candidates" / "00000.json").write_text(json.dumps(twice))
    store.record_run_event(run.id, "started", pid=0)
    runner = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "ended")
    assert "twice" in store.run(run.id).payload["message"]
    runner.close()


def test_a_launch_command_that_was_entered_elsewhere_is_not_left_out_without_a_word(store: Store) -> None:
    store.set_launcher(Launcher(command="sbatch --wait job.sh {command}", processes=2), by="ann")
    store.launch_key = bytes(32)
    run = jobs.draw(store, 2, by="ann")
    runner = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "ended")
    assert "Enter the launch command in Setup" in runner.view(store, store.run(run.id)).message
    # Who saves it empty has said that runs are to start here.
    store.set_launcher(Launcher(), by="ann")
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    runner.close()


def test_a_broken_file_of_candidates_withholds_no_others_and_a_resume_draws_it_again(store: Store) -> None:
    run = jobs.draw(store, 4, by="ann")
    folder = RunFolder(store.run_folder(run))
    runner = fake_runner()
    runner.open(store)
    fake_trainer.run(folder)
    (folder.path / "candidates" / "00001.json").write_text('{"cut')
    (folder.path / "result.json").rename(folder.path / "later.json")
    store.record_run_event(run.id, "started", pid=os.getpid())
    with folder.lock():
        runner.turn()
    assert len(open_pairs(store)) == 3
    (folder.path / "later.json").rename(folder.path / "result.json")
    follow(runner)
    wait_for(lambda: state(runner, store, run) == "failed")
    assert "candidates/00001.json cannot be read" in runner.view(store, store.run(run.id)).message
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(open_pairs(store)) == 4
    runner.close()


def test_a_training_that_was_asked_for_with_a_setting_that_is_gone_is_taken_in(store: Store) -> None:
    label_all(store)
    run = jobs.train(store, by="ann")
    folder = RunFolder(store.run_folder(run))
    fake_trainer.run(folder)
    asked = json.loads((folder.path / "request.json").read_bytes())
    publish_json(folder.path / "request.json", {**asked, "compiled": True})
    take_in(store, run, folder)
    assert [round_.round for round_ in store.rounds()] == [0]


def test_too_few_pairs_to_train_is_one_sentence_and_makes_no_run(store: Store) -> None:
    with pytest.raises(ValueError, match="Training needs at least 2 pairs with a winner and has 0"):
        jobs.train(store, by="ann")
    assert store.runs() == []


def test_the_same_job_is_not_queued_twice(store: Store) -> None:
    jobs.draw(store, 2, by="ann")
    with pytest.raises(ValueError, match="does that already"):
        jobs.draw(store, 2, by="ann")


def test_a_run_that_cannot_be_recorded_leaves_no_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DatabaseError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record_run", full)
        with pytest.raises(DatabaseError, match="disk is full"):
            jobs.draw(store, 2, by="ann")
    assert list((store.folder / "runs").iterdir()) == []
    recorded = store._write

    def moved(change: Callable[[], Any]) -> None:
        recorded(change)
        raise Displaced("project.db was moved while the app had it open.")

    monkeypatch.setattr(store, "_write", moved)
    with pytest.raises(Displaced):
        jobs.draw(store, 2, by="ann")
    assert store.run_folder(store.run(1)).is_dir()


def test_settings_do_not_change_between_a_request_and_its_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def asked(settings: LoopSettings, *told: Any, **more: Any) -> Any:
        saving = Thread(target=lambda: free.append(store.asking.acquire(blocking=False)))
        saving.start()
        saving.join()
        return request(settings, *told, **more)

    request = loop.seed_request
    monkeypatch.setattr(loop, "seed_request", asked)
    jobs.draw(store, 2, by="ann")
    assert free == [False]


def test_pairs_to_draw_come_on_prompts_not_used_before(store: Store) -> None:
    first = drawn(store, 4)
    second = drawn(store, 4)
    assert second[:4] == first
    assert not {pair.prompt for pair in first} & {pair.prompt for pair in second[4:]}


def test_the_loop_goes_on_from_label_to_train_to_propose_to_review(store: Store) -> None:
    steps = [jobs.next_step(store).name]
    label_all(store)
    steps.append(jobs.next_step(store).name)
    run_now(store, jobs.train(store, by="ann"))
    steps.append(jobs.next_step(store).name)
    run_now(store, jobs.propose(store, by="ann"))
    steps.append(jobs.next_step(store).name)
    run_now(store, jobs.train(store, by="ann"))
    steps.append(jobs.next_step(store).name)
    assert steps == ["draw", "train", "propose", "review", "propose"]
    assert jobs.next_step(store).round == 2


def test_a_flipped_pair_is_trained_as_human_with_winner_and_loser_turned(store: Store) -> None:
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    proposed = run_now(store, jobs.propose(store, by="ann"))
    flipped, dropped = store.review_pairs(proposed)[:2]
    before = {pair.id: pair for pair in store.self_pairs(proposed)}
    decide(store, flipped.id, "flip")
    decide(store, dropped.id, "drop")
    run = jobs.train(store, self_fraction=0.5, by="ann")
    trained = {pair.id: pair for pair in RunFolder(store.run_folder(run)).pairs()}
    own = trained[flipped.id]
    assert dropped.id not in trained
    assert own.source == "human" and not own.held_out
    assert (own.winner.row, own.loser.row) == (before[flipped.id].loser.row, before[flipped.id].winner.row)
    assert RunFolder(store.run_folder(run)).request().mixup.self_fraction == 0.5
    assert store.project().settings.mixup.self_fraction == 0.5


def test_where_no_self_pair_is_clear_the_next_round_learns_from_people_alone(store: Store) -> None:
    jobs.change_settings(store, {"min_margin": 100}, by="ann")
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    proposed = run_now(store, jobs.propose(store, by="ann"))
    assert store.review_pairs(proposed) == [] and store.audit(proposed).done
    assert jobs.next_step(store).name == "review"
    jobs.require_audit(store)
    run_now(store, jobs.train(store, by="ann"))
    assert (store.rounds()[1].human_pairs, store.rounds()[1].self_pairs) == (store.counts().trainable, 0)


def test_a_share_that_suits_few_self_pairs_holds_for_their_round_and_is_no_setting(store: Store) -> None:
    jobs.change_settings(store, {"mixup": {"self_fraction": 0.9}, "prompts_per_round": 1}, by="ann")
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    run_now(store, jobs.propose(store, by="ann"))
    people, before = store.counts().trainable, store.project().settings
    run = run_now(store, jobs.train(store, by="ann"))
    assert RunFolder(store.run_folder(run)).request().mixup.self_fraction == 4 / (4 + people) < 0.9
    assert store.project().settings == before


def test_a_flipped_pair_stays_human_in_later_rounds(store: Store) -> None:
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    flipped = store.review_pairs(run_now(store, jobs.propose(store, by="ann")))[0]
    decide(store, flipped.id, "flip")
    run_now(store, jobs.train(store, by="ann"))
    run_now(store, jobs.propose(store, by="ann"))
    later = {pair.id: pair.source for pair in jobs.training_pairs(store)[0]}
    assert later[flipped.id] == "human"
    assert sum(source == "self" for source in later.values()) == SETTINGS.prompts_per_round


def test_the_mixup_plan_is_of_what_would_be_trained(store: Store) -> None:
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    run_now(store, jobs.propose(store, by="ann"))
    plan = jobs.mixup_plan(store, 0.25)
    assert (plan.human_pairs, plan.self_pairs) == (store.counts().trainable, 4)
    assert (plan.human_draws, plan.self_draws) == (9, 3)


def test_a_mixup_plan_counts_what_the_pairs_themselves_come_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    proposed = run_now(store, jobs.propose(store, by="ann"))
    decide_audit(store, proposed)  # Before it is over the plan tells of no flip.

    def agree() -> tuple[int, int]:
        plan, pairs = jobs.mixup_plan(store), jobs.training_pairs(store)[0]
        own = sum(pair.source == "self" for pair in pairs)
        assert (plan.human_pairs, plan.self_pairs) == (loop.trainable(pairs), own)
        assert plan.self_fraction == loop.suited_fraction(store.project().settings, pairs)
        return plan.human_pairs, plan.self_pairs

    with monkeypatch.context() as patch:
        # No record is made of a pair: there may be tens of thousands.
        patch.setattr(learning, "TrainingPair", None)
        jobs.mixup_plan(store)
    human, own = agree()
    flipped, dropped, *_ = store.review_pairs(proposed)
    for pair, decision in ((flipped, "flip"), (dropped, "drop")):
        decide(store, pair.id, decision)  # type: ignore[arg-type]
    assert agree() == (human + 1, own - 2)
    kept, *_ = store.self_pairs(proposed)
    learned = next(pair for pair in store.human_pairs() if not pair.held_out)
    for pair in (kept, learned):
        Path(pair.winner.file).unlink()
    assert agree() == (human, own - 3)
    jobs.change_settings(store, {"keep_self_pairs": 0.5}, by="ann")
    assert agree()[1] < own - 2


def test_a_model_that_went_away_is_said_before_anything_is_queued(store: Store) -> None:
    store.set_model(ModelRef(source="/nowhere"), download=False, by="ann")
    with pytest.raises(ValueError, match="No model at '/nowhere'"):
        jobs.draw(store, 1, by="ann")
    assert store.runs() == []


def test_a_lora_is_exported_although_its_model_is_not_there(store: Store) -> None:
    # By the real exporter, which has to do without the model as well.
    from sail.export import export

    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    jobs.change_settings(store, {"sampling": {"steps": 9, "guidance": 1.5}}, by="ann")
    shutil.rmtree(store.project().model.source)
    with pytest.raises(ValueError, match="No model at"):
        jobs.propose(store, by="ann")
    folder = RunFolder(store.run_folder(jobs.export(store, by="ann")))
    export(folder, folder.request(), Progress(folder))
    card = (folder.path / "export" / "README.md").read_text()
    assert (folder.path / "export" / "lora" / ADAPTER_FILE).is_file()
    assert 'from_pretrained("path/to/p-model")' in card and str(store.folder.parent) not in card
    assert "num_inference_steps=9, guidance_scale=1.5" in card


def test_a_stop_while_a_run_starts_is_obeyed(store: Store) -> None:
    run = jobs.draw(store, 8, by="ann")
    held = hold(store, run, "start")
    runner = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "started")
    runner.stop(store, run.id, by="ann")
    held.unlink()
    wait_for(lambda: not store.run(run.id).unfinished)
    assert state(runner, store, run) == "stopped"
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    runner.close()


def test_a_run_of_which_nothing_is_heard_says_for_how_long_and_shows_its_log(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, runner = jobs.draw(store, 2, by="ann"), fake_runner()
    folder = RunFolder(store.run_folder(run))
    (folder.path / "log.txt").write_text("it hangs here")
    store.record_run_event(run.id, "started")
    began = store.run(run.id).since

    def after(minutes: float) -> RunView:
        monkeypatch.setattr(time, "time", lambda: began + 60 * minutes)
        return runner.view(store, store.run(run.id))

    assert after(4.9).quiet_min is None and run_detail_of(folder, after(4.9))["log"] == ""
    assert after(12.5).quiet_min == 12 and run_detail_of(folder, after(12.5))["log"] == "it hangs here"
    folder.publish_snapshot(Snapshot(state="running", time=began + 60 * 11))
    assert after(12.5).quiet_min is None and after(17).quiet_min == 6
    runner.stop(store, run.id, by="ann")
    assert after(30).state == "stopping" and after(30).overdue and after(30).quiet_min is None


def test_a_second_stop_takes_back_no_time_that_passed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, runner = jobs.draw(store, 2, by="ann"), fake_runner()
    store.record_run_event(run.id, "started")
    runner.stop(store, run.id, by="ann")
    folder, first = store.run_folder(run), store.run(run.id)
    (folder / "stop").unlink()
    runner.stop(store, run.id, by="bob")
    assert store.run(run.id) == first and (folder / "stop").exists()


def test_a_run_that_does_not_answer_a_stop_is_ended_and_can_be_resumed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store(tmp_path / "q")
    run, second = jobs.draw(store, 4, by="ann"), jobs.draw(other, 2, by="ann")
    held = hold(store, run, "start")
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: "pid" in store.run(run.id).payload)
    runner.stop(store, run.id, by="ann")
    assert not runner.view(store, store.run(run.id)).overdue
    with pytest.raises(ValueError, match="not asked to stop, or not 60 s ago"):
        runner.end(store, run.id, by="ann")
    monkeypatch.setattr("annotator.runs.STOP_PATIENCE_S", 0.0)
    assert runner.view(store, store.run(run.id)).overdue and other.run(second.id).what == "queued"
    runner.end(store, run.id, by="bob")
    wait_for(lambda: other.run(second.id).what == "done")
    assert "ended by force" in runner.view(store, store.run(run.id)).message
    forced = [event for event in store.run_history(run) if event["payload"].get("by_force")]
    assert [event["by"] for event in forced] == ["bob"]
    held.unlink()
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: store.run(run.id).what == "done")
    runner.close()
    other.close()


def sleeper(store: Store, run: Run, code: str = "pass", **how: bool) -> subprocess.Popen[bytes]:
    """A process that works on a run's folder as far as one can see from outside, and is asked to stop."""
    code = (
        f"import pathlib, signal, sys, time; {code}; pathlib.Path(sys.argv[1], 'up').touch(); time.sleep(60)"
    )
    folder = store.run_folder(run)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], **how)  # type: ignore[call-overload]
    wait_for((folder / "up").exists)
    store.record_run_event(run.id, "stop_asked", pid=process.pid)
    return process  # type: ignore[no-any-return]


def test_a_run_that_ignores_being_told_to_leave_is_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.runs.STOP_PATIENCE_S", 0.0)
    monkeypatch.setattr("annotator.processes.TERM_PATIENCE_S", 0.3)
    run = jobs.draw(store, 2, by="ann")
    deaf = sleeper(store, run, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", start_new_session=True)
    fake_runner().end(store, run.id, by="ann")
    assert deaf.wait(timeout=10) == -signal.SIGKILL


def test_only_a_process_that_does_the_run_in_a_session_of_its_own_is_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.runs.STOP_PATIENCE_S", 0.0)
    run = jobs.draw(store, 2, by="ann")
    ours = sleeper(store, run)  # in the session of this test
    elsewhere = {"pid": 7, "host": "node3"}
    publish_json(store.run_folder(run) / "holder.json", elsewhere)
    runner = fake_runner()
    with pytest.raises(ValueError, match="process 7 on node3 held it last"):
        runner.end(store, run.id, by="ann")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    for payload in ({"pid": other.pid}, {}):
        store.record_run_event(run.id, "stop_asked", **payload)
        with pytest.raises(ValueError, match="no process that this app started on this machine"):
            runner.end(store, run.id, by="ann")
    assert ours.poll() is None and other.poll() is None
    for process in (ours, other):
        process.kill()
        process.wait()


def test_a_run_that_was_done_before_it_could_stop_is_done(store: Store) -> None:
    runner = fake_runner()
    runner.open(store)
    run = jobs.draw(store, 2, by="ann")
    fake_trainer.run(RunFolder(store.run_folder(run)))
    store.record_run_event(run.id, "started", pid=os.getpid())
    runner.stop(store, run.id, by="ann")
    assert state(runner, store, run) == "stopping"
    runner.turn()
    assert state(runner, store, run) == "done"


def test_a_resumed_run_that_still_loads_is_found_by_a_new_server(store: Store) -> None:
    run = jobs.draw(store, 2, by="ann")
    folder = RunFolder(store.run_folder(run))
    folder.publish_snapshot(Snapshot(state="stopped", step=1, time=time.time() - 600))
    store.record_run_event(run.id, "started", pid=os.getpid())
    runner = fake_runner()
    runner.open(store)
    runner.turn()
    assert state(runner, store, run) == "running"


def test_a_run_whose_folder_is_gone_ends_and_the_others_go_on(tmp_path: Path, store: Store) -> None:
    other = make_store(tmp_path / "q")
    first, second = jobs.draw(store, 2, by="ann"), jobs.draw(other, 2, by="ann")
    shutil.rmtree(store.run_folder(first))
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: other.run(second.id).what == "done")
    assert store.run(first.id).what == "ended"
    assert "it has no request.json" in store.run(first.id).payload["message"]
    runner.close()
    other.close()


def test_a_project_starts_and_changes_nothing_outside_its_run_folders(tmp_path: Path, store: Store) -> None:
    other = make_store(tmp_path / "q")
    first, second = jobs.draw(store, 2, by="ann"), jobs.draw(other, 2, by="ann")
    elsewhere = shutil.copytree(store.run_folder(first), tmp_path / "elsewhere")
    RunFolder(elsewhere).publish_snapshot(Snapshot(state="failed", message="as it was"))
    (elsewhere / "stop").touch()
    before = {file.name: file.read_bytes() for file in elsewhere.iterdir() if file.is_file()}
    database = Database(store.folder / DATABASE)
    with database.conn:
        database.execute("update runs set folder = '../../elsewhere'")
    store.record_run_event(first.id, "queued")
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: other.run(second.id).what == "done" and not store.run(first.id).unfinished)
    (view,) = runner.views(store)
    assert view.state == "failed" and "'../../elsewhere'" in view.message
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir() if file.is_file()} == before
    assert estimates.seconds_of(store, loop.NextStep(name="propose", round=1)) is None
    runner.close()
    other.close()


@pytest.mark.parametrize("name", ["log.txt", "stop", "candidates", "inputs/latents"])
def test_a_run_whose_folder_holds_a_link_is_not_started(tmp_path: Path, store: Store, name: str) -> None:
    run = jobs.draw(store, 2, by="ann")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    link = store.run_folder(run) / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine)
    runner = fake_runner()
    runner.open(store)
    runner.turn()
    (view,) = runner.views(store)
    assert view.state == "failed" and f"{name} in the run folder {run.folder} is a link" in view.message
    assert mine.read_text() == "mine" and link.is_symlink()


def test_no_log_is_written_or_shown_through_a_link(tmp_path: Path, store: Store) -> None:
    folder = store.run_folder(jobs.draw(store, 2, by="ann"))
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (folder / "log.txt").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic link"):
        launch([sys.executable, "-c", "print('written')"], folder, {})
    assert mine.read_text() == "mine" and RunFolder(folder).log_tail() == ""


def test_runs_may_lie_on_another_disk_behind_a_link(tmp_path: Path, store: Store) -> None:
    (store.folder / "runs").rename(tmp_path / "larger")
    (store.folder / "runs").symlink_to(tmp_path / "larger")
    run = jobs.draw(store, 2, by="ann")
    runner = follow(fake_runner(), store)
    wait_for(lambda: store.run(run.id).what == "done")
    assert len(open_pairs(store)) == 2
    runner.close()


def full_for(store: Store, table: str) -> None:
    """Let SQLite find its disk full whenever a row comes into this table."""
    others = Database(store.folder / DATABASE)
    others.execute("create table ballast (it blob)")
    others.execute(
        f"create trigger full before insert on {table} "
        "begin insert into ballast values (zeroblob(1000000)); end"
    )
    others.close()
    store._write(lambda: store._writing.execute("pragma max_page_count = 1"))


def test_a_project_that_cannot_be_written_starts_nothing_and_keeps_nobody_waiting(
    tmp_path: Path, store: Store
) -> None:
    other = make_store(tmp_path / "q")
    first, second = jobs.draw(store, 2, by="ann"), jobs.draw(other, 2, by="ann")
    full_for(store, "run_events")
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: other.run(second.id).what == "done")
    assert store.run(first.id).what == "queued"
    assert not (store.run_folder(first) / "log.txt").exists()
    runner.close()
    other.close()


def test_a_run_that_is_over_but_cannot_be_recorded_keeps_nobody_waiting(tmp_path: Path, store: Store) -> None:
    other = make_store(tmp_path / "q")
    first = jobs.draw(store, 2, by="ann")
    fake_trainer.run(RunFolder(store.run_folder(first)))
    store.record_run_event(first.id, "started", pid=os.getpid())
    full_for(store, "run_events")
    second = jobs.draw(other, 2, by="ann")
    runner = follow(fake_runner(), store, other)
    wait_for(lambda: other.run(second.id).what == "done")
    runner.close()
    other.close()


def test_only_the_current_rounds_judge_proposes_for_the_next_round(store: Store) -> None:
    label_all(store)
    for begin in (jobs.train, jobs.propose, jobs.train, jobs.propose):
        run_now(store, begin(store, by="ann"))
    by_round_1 = jobs.proposal(store)
    store.make_current(0, by="ann")
    assert jobs.next_step(store).name == "propose" and jobs.next_step(store).round == 2
    assert all(pair.source == "human" for pair in jobs.training_pairs(store)[0])
    by_round_0 = run_now(store, jobs.propose(store, by="ann"))
    assert jobs.proposal(store) == by_round_0
    store.make_current(1, by="ann")
    assert jobs.proposal(store) == by_round_1


def test_a_round_that_was_chosen_during_training_stays_current(store: Store) -> None:
    label_all(store)
    for begin in (jobs.train, jobs.propose, jobs.train, jobs.propose):
        run_now(store, begin(store, by="ann"))
    run = jobs.train(store, by="ann")
    store.make_current(0, by="ann")
    run_now(store, run)
    assert [(round_.round, round_.parent, round_.accepted) for round_ in store.rounds()][2] == (2, 1, True)
    current = store.current_round()
    assert current is not None and current.round == 0


def test_where_the_only_accepted_adapter_is_gone_the_loop_starts_again_from_base(store: Store) -> None:
    label_all(store)
    run = run_now(store, jobs.train(store, by="ann"))
    shutil.rmtree(store.run_folder(run) / "adapter")
    for begin in (jobs.train, jobs.propose, jobs.export):
        with pytest.raises(ValueError, match=r"is gone\. Make an earlier round or base current"):
            begin(store, by="ann")
    store.make_current(None, by="ann")
    assert store.current_round() is None and jobs.next_step(store).name == "train"
    for begin in (jobs.propose, jobs.export):
        with pytest.raises(ValueError, match=r"[Nn]o trained round is current"):
            begin(store, by="ann")
    again = run_now(store, jobs.train(store, by="ann"))
    assert RunFolder(store.run_folder(again)).request().parent_adapter is None
    assert [(round_.round, round_.parent) for round_ in store.rounds()] == [(0, None), (1, None)]
    assert store.current_round() == store.rounds()[1] and jobs.next_step(store).name == "propose"


def test_a_round_that_the_gate_refused_is_a_persons_to_take(store: Store) -> None:
    label_all(store)
    jobs.change_settings(store, {"monitoring": {"min_diversity_ratio": 2}}, by="ann")
    run_now(store, jobs.train(store, by="ann"))
    assert [round_.accepted for round_ in store.rounds()] == [False] and store.current_round() is None
    store.make_current(0, by="ann")
    assert store.current_round() == store.rounds()[0] and jobs.next_step(store).name == "propose"
    with pytest.raises(ValueError, match="LoRA settings stay as they are"):
        jobs.change_settings(store, {"lora": {"rank": SETTINGS.lora.rank + 1}}, by="ann")
    request = RunFolder(store.run_folder(jobs.export(store, by="ann"))).request()
    assert request.facts["gate"].startswith("not accepted: Images vary 1.00 times")


def test_two_trainings_of_one_round_leave_one_round_and_the_queue_goes_on(store: Store) -> None:
    label_all(store)
    first = jobs.train(store, by="ann")
    store.record_run_event(first.id, "withdrawn")
    second = jobs.train(store, by="ann")
    # As where somebody resumes the one while the other is being asked for.
    store.record_run_event(first.id, "queued")
    runner = follow(fake_runner(), store)
    wait_for(lambda: not any(run.unfinished for run in store.runs()))
    assert [round_.round for round_ in store.rounds()] == [0]
    assert store.run(second.id).what == "done"
    late = runner.view(store, store.run(first.id))
    assert late.state == "failed" and "Round 0 was trained by another run meanwhile" in late.message
    assert jobs.next_step(store).name == "propose"
    runner.close()


def test_a_training_is_not_resumed_over_another_split_or_another_lora(store: Store) -> None:
    label_all(store)
    run = jobs.train(store, by="ann")
    store.record_run_event(run.id, "withdrawn")
    runner = Runner()
    rank = SETTINGS.lora.rank
    for changes, back, why in (
        (
            {"held_out_every": 3},
            {"held_out_every": SETTINGS.held_out_every},
            "Other pairs are kept aside now",
        ),
        ({"lora": {"rank": rank + 1}}, {"lora": {"rank": rank}}, "LoRA settings were changed"),
    ):
        jobs.change_settings(store, changes, by="ann")
        with pytest.raises(ValueError, match=why):
            runner.resume(store, run.id, by="ann")
        jobs.change_settings(store, back, by="ann")
    runner.resume(store, run.id, by="ann")
    assert store.run(run.id).what == "queued"


def a_try(store: Store, by: str) -> Run:
    return looks.try_prompt(store, "a fox", [None], strength=1.0, count=1, noise_seed=0, by=by)


def test_a_run_is_not_resumed_while_another_does_the_same(store: Store) -> None:
    run, runner = jobs.draw(store, 2, by="ann"), fake_runner()
    runner.stop(store, run.id, by="ann")
    jobs.draw(store, 2, by="bob")
    with pytest.raises(ValueError, match="Another run does the same"):
        runner.resume(store, run.id, by="ann")
    assert store.run(run.id).what == "withdrawn"


def test_a_try_is_resumed_while_somebody_elses_waits_and_not_while_ones_own_does(store: Store) -> None:
    run, runner = a_try(store, "ann"), fake_runner()
    runner.stop(store, run.id, by="ann")
    a_try(store, "bob")
    runner.resume(store, run.id, by="ann")
    assert store.run(run.id).what == "queued"
    runner.stop(store, run.id, by="ann")
    a_try(store, "ann")
    with pytest.raises(ValueError, match="Another run does the same"):
        runner.resume(store, run.id, by="ann")


def test_a_run_of_a_round_that_is_trained_already_is_not_resumed(store: Store) -> None:
    label_all(store)
    run, runner = jobs.train(store, by="ann"), fake_runner()
    runner.stop(store, run.id, by="ann")
    run_now(store, jobs.train(store, by="ann"))
    with pytest.raises(ValueError, match="Round 0 is trained already"):
        runner.resume(store, run.id, by="ann")


def test_a_resumed_run_that_cannot_begin_does_not_say_why_it_ended_before(store: Store) -> None:
    def broken(kind: str, folder: Path, environment: object) -> subprocess.Popen[bytes]:
        with open(folder / "log.txt", "ab") as output:
            return subprocess.Popen([sys.executable, "-c", "import nothing_of_that_name"], stderr=output)

    run = jobs.draw(store, 2, by="ann")
    RunFolder(store.run_folder(run)).publish_snapshot(
        Snapshot(state="stopped", message="Stopped on request.")
    )
    store.record_run_event(run.id, "ended")
    runner = follow(Runner(launch=broken), store)
    assert runner.view(store, store.run(run.id)).message == "Stopped on request."
    runner.resume(store, run.id, by="ann")
    wait_for(lambda: state(runner, store, run) == "failed")
    assert "No module named 'nothing_of_that_name'" in runner.view(store, store.run(run.id)).message
    runner.close()


def test_margins_are_at_the_beta_of_the_judge_whatever_setup_says_since(store: Store) -> None:
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    before = jobs.propose_request(store)
    jobs.change_settings(store, {"loss": {"beta": 10 * before.beta}}, by="ann")
    assert jobs.propose_request(store) == before


def test_a_prompt_that_was_learned_from_is_not_held_out_once_the_split_is_another(store: Store) -> None:
    run_now(store, jobs.draw(store, 7, by="ann"))
    drawn_for = set(store.used_prompts())
    store.set_settings(store.project().settings.model_copy(update={"monitor_prompts": 2}), by="ann")
    project = store.project()
    by_place = set(loop.split_prompts(project.prompts, project.settings)[1])
    assert by_place & drawn_for
    learn, held_out = jobs.split_prompts(store)
    assert len(held_out) == 2 and not set(held_out) & (drawn_for | set(learn))
    # Drawing goes on with the others, and what is held out stays so.
    run_now(store, jobs.draw(store, 1, by="ann"))
    assert jobs.split_prompts(store)[1] == held_out


def test_one_prompt_alone_is_drawn_for_and_measured_on(store: Store) -> None:
    store.set_prompts(["a fox"], by="ann")
    assert jobs.split_prompts(store) == (["a fox"], ["a fox"])
    run_now(store, jobs.draw(store, 2, by="ann"))
    assert jobs.split_prompts(store) == (["a fox"], ["a fox"])
    store.set_prompts(["a fox", "a cat"], by="ann")
    assert jobs.split_prompts(store) == (["a fox"], ["a cat"])
    run_now(store, jobs.draw(store, 2, by="ann"))


def test_what_a_trained_round_rests_on_cannot_be_changed(store: Store) -> None:
    other_rank = {"lora": {"rank": SETTINGS.lora.rank + 1}}
    jobs.change_settings(store, {"held_out_every": 4}, by="ann")
    label_all(store)
    run_now(store, jobs.train(store, by="ann"))
    with pytest.raises(ValueError, match="One pair out of every 4 is kept aside"):
        jobs.change_settings(store, {"held_out_every": 3}, by="ann")
    for current in (0, None):
        store.make_current(current, by="ann")
        with pytest.raises(ValueError, match="LoRA settings stay as they are"):
            jobs.change_settings(store, other_rank, by="ann")
    jobs.change_settings(store, {"held_out_every": 4, "min_human_pairs": 3}, by="ann")
    assert store.project().settings.min_human_pairs == 3


@pytest.mark.slow
def test_the_real_trainer_draws_pairs_and_trains_on_them(model: ModelRef, tmp_path: Path) -> None:
    settings = LoopSettings(
        held_out_every=4,
        min_human_pairs=2,
        monitor_prompts=0,
        sampling=SETTINGS.sampling.model_copy(update={"steps": 2}),
        scoring=SETTINGS.scoring.model_copy(update={"draws": 2}),
        optimisation=SETTINGS.optimisation.model_copy(update={"steps": 2}),
    )
    prompts = ["a red fox", "a blue fox", "a small pizza", "a big pizza"]
    store = Store.create(tmp_path / "p", model=model, prompts=prompts, settings=settings, by="ann")
    runner = follow(Runner(), store)
    run = jobs.draw(store, 4, by="ann")
    wait_for(lambda: not store.run(run.id).unfinished, timeout_s=120)
    for pair in store.show_pairs(open_pairs(store), to="ann"):
        label(store, pair, "right")
    train = jobs.train(store, by="ann")
    wait_for(lambda: not store.run(train.id).unfinished, timeout_s=120)
    assert [round_.human_pairs for round_ in store.rounds()] == [3], runner.view(store, store.run(train.id))
    runner.close()
    store.close()


def test_open_pairs_go_to_the_judge_only_where_the_uncertain_ones_are_wanted(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    pairs = drawn(store, 9)
    for pair in pairs[:6]:
        label(store, pair, "left")
    without = run_now(store, jobs.train(store, by="ann"))
    assert jobs.open_margins(store) == {}
    store.set_order("uncertain", by="ann")
    run = run_now(store, jobs.train(store, by="ann"))
    assert set(jobs.open_margins(store)) == {pair.id for pair in pairs[6:]}
    trained = [len(RunFolder(store.run_folder(one)).pairs()) for one in (without, run)]
    assert trained == [6, 9] and store.rounds()[1].human_pairs == store.rounds()[0].human_pairs


def test_as_many_pairs_are_drawn_as_asked_for_and_hardly_more(store: Store) -> None:
    prompts = len(jobs.split_prompts(store)[0])
    for count in (1, prompts, prompts + 1, 3 * prompts - 1):
        request = RunFolder(store.run_folder(jobs.draw(store, count, by="ann"))).request()
        each = request.pairs_to_show or request.num_candidates // 2
        assert count <= len(request.prompts) * each < count + each
        fake_runner().stop(store, store.runs()[-1].id, by="ann")


def test_a_training_that_is_refused_changes_no_setting(store: Store) -> None:
    label_all(store)
    jobs.train(store, by="ann")
    before = store.project().settings.mixup.self_fraction
    with pytest.raises(ValueError, match="does that already"):
        jobs.train(store, self_fraction=before / 2, by="bob")
    assert store.project().settings.mixup.self_fraction == before


def test_a_contradicted_answer_that_was_given_again_is_done_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = drawn(store, 3)
    for pair in pairs:
        label(store, pair, "left")
    run = run_now(store, jobs.train(store, by="ann"))
    lines = [
        JudgedPair(id=pair.id, margin=-2.0, margin_error=0.1, held_out=False).model_dump() for pair in pairs
    ]
    publish_lines(RunFolder(store.run_folder(run)).path / "judged_pairs.jsonl", lines)
    assert set(jobs.doubted_pairs(store, "ann")) == {pair.id for pair in pairs}
    plain = time.time
    monkeypatch.setattr(time, "time", lambda: plain() - 3600)
    label(store, pairs[1], "left")
    assert set(jobs.doubted_pairs(store, "ann")) == {pairs[0].id, pairs[2].id}


def test_answers_that_the_judge_contradicts_come_with_the_largest_margin_first(store: Store) -> None:
    pairs = drawn(store, 6)
    for pair in pairs:
        label(store, pair, "left")
    run = run_now(store, jobs.train(store, by="ann"))
    # (margin, its error): the first is the clearest in its own errors, the third within them; of the last two
    # one was not learned from, the other is not contradicted.
    judged = [(-0.2, 0.01), (-3.0, 1.0), (-0.5, 0.6), (-1.0, 0.2), (-4.0, 0.1), (2.0, 0.1)]
    lines = (
        JudgedPair(id=pair.id, margin=margin, margin_error=error, held_out=margin == -4.0).model_dump()
        for pair, (margin, error) in zip(pairs, judged, strict=True)
    )
    publish_lines(RunFolder(store.run_folder(run)).path / "judged_pairs.jsonl", lines)
    found = [pairs[number].id for number in (1, 3, 0)]
    assert jobs.contradicted_pairs(store) == found
    assert jobs.doubted_pairs(store, "ann") == found


def test_who_was_outvoted_and_has_the_judge_on_their_side_is_asked_nothing_again(store: Store) -> None:
    first, second, third = drawn(store, 3)
    best = first.left
    label(store, first, "left")
    for person in "bob", "cyd":
        (own,) = store.show_pairs([first.id], to=person)
        label(store, own, "right" if own.left == best else "left", by=person)
    for pair in second, third:
        label(store, pair, "left")
    run = run_now(store, jobs.train(store, by="ann"))
    lines = [
        JudgedPair(id=pair.id, margin=-2.0, margin_error=0.1, held_out=False).model_dump()
        for pair in (first, second)
    ]
    publish_lines(RunFolder(store.run_folder(run)).path / "judged_pairs.jsonl", lines)
    assert jobs.doubted_pairs(store, "ann") == [second.id]
    assert jobs.doubted_pairs(store, "bob") == jobs.doubted_pairs(store, "cyd") == [first.id]


def test_how_long_a_run_took_leaves_out_what_it_waited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = jobs.draw(store, 2, by="ann")
    begun = run.at
    for after, what in ((10, "started"), (11, "started"), (40, "ended"), (900, "queued"), (950, "started")):
        monkeypatch.setattr("annotator.store.runs.time.time", lambda after=after: begun + after)
        store.record_run_event(run.id, what)  # type: ignore[arg-type]
    monkeypatch.setattr("annotator.store.runs.time.time", lambda: begun + 960)
    store.record_run_event(run.id, "done")
    assert fake_runner().view(store, store.run(run.id)).took == 40
