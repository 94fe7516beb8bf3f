import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sail.files import (
    link_or_copy,
    publish,
    publish_folder,
    publish_json,
    publish_lines,
    publish_text,
    read_lines,
    sha256_file,
)
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.records import Candidate, CandidateSet
from sail.requests import TrainRequest
from sail.runfolder import ADAPTER_FILE, RunBusy, RunFolder, Snapshot, Stopped

TRAIN = TrainRequest(model=ModelRef(source="somewhere"))

HOLD = """
import sys, time
from sail.progress import Progress
from sail.runfolder import RunFolder
folder = RunFolder(sys.argv[1])
with folder.lock():
    Progress(folder).stage("train", 10, done=3)
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def run(tmp_path, request_of_seed_pairs) -> RunFolder:
    return RunFolder.create(tmp_path / "0000-propose", request_of_seed_pairs)


@contextlib.contextmanager
def held_by_another_process(folder: RunFolder, root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def an_adapter(folder: Path, content: bytes = b"weights") -> tuple[str, Path]:
    folder.mkdir()
    (folder / ADAPTER_FILE).write_bytes(content)
    return sha256_file(folder / ADAPTER_FILE), folder


def publish_sets(folder: RunFolder, *indices: int) -> None:
    (folder.path / "candidates").mkdir()
    for index in indices:
        found = CandidateSet(
            prompt_index=index,
            prompt=f"prompt {index}",
            latents=f"candidates/{index:05d}.safetensors",
            candidates=(Candidate(index=0, image=f"candidates/{index:05d}-0.png"),),
        )
        (folder.path / found.latents).touch()
        publish_json(folder.path / "candidates" / f"{index:05d}.json", found.model_dump())


def latents_in(file: Path) -> bytes:
    return load_file(file)["latents"].tobytes()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Publishing


def test_what_is_published_is_there_whole(tmp_path):
    publish_json(tmp_path / "value.json", {"prompt": "füchse"})
    publish_lines(tmp_path / "values.jsonl", [{"step": 1}, {"step": 2}])
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == {"prompt": "füchse"}
    assert read_lines(tmp_path / "values.jsonl") == [{"step": 1}, {"step": 2}]


def test_what_is_published_is_on_disk_before_it_has_its_name_and_its_name_after(tmp_path, disk):
    publish_text(tmp_path / "value.txt", "new")
    assert disk.renamed == [("value.txt", True)] and disk.has(tmp_path)


def test_a_published_folder_is_on_disk_before_it_has_its_name_and_its_name_after(tmp_path, disk):
    building = tmp_path / "building"
    (building / "within").mkdir(parents=True)
    for file in (building / "one.txt", building / "within" / "two.txt"):
        file.write_text("new")
    publish_folder(building, tmp_path / "whole")
    assert disk.renamed == [("whole", True)] and disk.has(tmp_path)


def test_a_new_run_folder_is_on_disk_before_it_has_its_name_and_its_name_after(tmp_path, training_pair, disk):
    sha256, adapter = an_adapter(tmp_path / "adapter")
    pairs = [training_pair("a"), training_pair("b")]
    runs = tmp_path / "runs"
    runs.mkdir()
    RunFolder.create(runs / "0001-train", TRAIN, pairs=pairs, adapters={sha256: adapter})
    *files, folder = disk.renamed
    assert {name for name, _ in files} == {"request.json", "pairs.jsonl"} and all(whole for _, whole in files)
    assert folder == ("0001-train", True) and disk.has(runs)


def test_a_failed_publication_leaves_the_old_file_and_no_scrap(tmp_path):
    publish_text(tmp_path / "value.txt", "old")

    def write_half(beside: Path) -> None:
        beside.write_text("ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        publish(tmp_path / "value.txt", write_half)
    assert (tmp_path / "value.txt").read_text() == "old"
    assert names_in(tmp_path) == {"value.txt"}


def test_what_safetensors_cannot_write_is_an_error_of_the_disk(tmp_path):
    def full(beside: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match=r"latents could not be written: .*No space left on device"):
        publish(tmp_path / "latents", full)


def test_what_is_published_may_be_read_by_whoever_may_read_other_files(tmp_path):
    (tmp_path / "usual").touch()
    publish(tmp_path / "latents", lambda beside: save_file({"latents": np.zeros(2)}, beside))
    assert (tmp_path / "latents").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_reader_never_sees_half_a_file(tmp_path):
    texts = {letter * 200_000 for letter in "ab"}
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add((tmp_path / "value.txt").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for text in texts:
            publish_text(tmp_path / "value.txt", text)
    done.set()
    reader.join()
    assert seen and seen <= texts


def test_where_no_hard_link_can_be_made_the_file_is_copied(tmp_path, monkeypatch):
    def no_link(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    (tmp_path / "source").write_bytes(b"latents")
    monkeypatch.setattr(os, "link", no_link)
    link_or_copy(tmp_path / "source", tmp_path / "inputs" / "target")
    assert (tmp_path / "inputs" / "target").read_bytes() == b"latents"
    assert (tmp_path / "inputs" / "target").stat().st_nlink == 1


# Creating


def test_a_new_run_reads_back_what_was_asked(run, request_of_seed_pairs):
    assert run.request() == request_of_seed_pairs
    assert (run.pairs(), run.metrics(), run.candidate_sets(), run.self_pairs()) == ([], [], [], [])
    assert run.snapshot().state == "waiting"
    assert run.result() is None and run.log_tail() == ""


def test_a_runs_latents_are_its_own_and_stored_once(tmp_path, training_pair):
    pairs = [training_pair("p0", winner=b"fox"), training_pair("p1", winner=b"fox", loser=b"other")]
    run = RunFolder.create(tmp_path / "run", TRAIN, pairs=pairs)
    for pair in pairs:
        Path(pair.winner.file).unlink()
    kept = run.pairs()
    assert [pair.id for pair in kept] == ["p0", "p1"]
    assert [latents_in(run.path / pair.loser.file) for pair in kept] == [b"loser", b"other"]
    assert kept[0].winner == kept[1].winner
    assert latents_in(run.path / kept[0].winner.file) == b"fox"
    assert len(list((run.path / "inputs" / "latents").iterdir())) == 3


def test_an_adapter_lies_in_the_run_under_its_hash(tmp_path):
    sha256, source = an_adapter(tmp_path / "adapter")
    request = TRAIN.model_copy(update={"parent_adapter": sha256})
    run = RunFolder.create(tmp_path / "run", request, adapters={sha256: source})
    assert sha256_file(run.adapter_input(sha256) / ADAPTER_FILE) == sha256


def test_an_adapter_that_was_altered_after_the_run_was_made_is_refused_by_name(tmp_path):
    sha256, source = an_adapter(tmp_path / "adapter")
    request = TRAIN.model_copy(update={"parent_adapter": sha256})
    run = RunFolder.create(tmp_path / "run", request, adapters={sha256: source})
    (run.adapter_input(sha256) / ADAPTER_FILE).write_bytes(b"rotten")
    with pytest.raises(ValueError, match="was altered"):
        run.adapter_input(sha256)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_an_altered_adapter_is_refused_by_name_and_leaves_nothing(tmp_path, change):
    sha256, source = an_adapter(tmp_path / "adapter")
    (source / ADAPTER_FILE).write_bytes(change(b"weights"))
    with pytest.raises(ValueError, match=f"{source / ADAPTER_FILE} was altered"):
        RunFolder.create(tmp_path / "run", TRAIN, adapters={sha256: source})
    assert names_in(tmp_path) == {"adapter"}


def test_a_run_never_takes_the_place_of_another(run, request_of_seed_pairs):
    with pytest.raises(ValueError, match="exists already"):
        RunFolder.create(run.path, request_of_seed_pairs)


def test_a_folder_without_a_request_is_not_a_run(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        RunFolder(tmp_path).request()


@pytest.mark.parametrize("text", ["{", '{"kind": "dream"}', '{"kind": "train", "model": {}, "betta": 1}'])
def test_a_request_that_is_not_understood_names_its_file(tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(ValueError, match=r"request\.json: ") as error:
        RunFolder(tmp_path).request()
    assert "\n" not in str(error.value)


# Lock and state


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(run):
    (run.path / ".lock").unlink(missing_ok=True)
    os.mkfifo(run.path / ".lock")
    assert not run.is_held()


def test_a_run_held_by_another_process_is_busy_and_names_the_holder(run, root):
    with held_by_another_process(run, root) as holder:
        assert run.is_held()
        assert run.snapshot().state == "running"
        with pytest.raises(RunBusy, match=f"process {holder.pid} on "), run.lock(timeout_s=0.1):
            pass


def test_a_killed_run_is_interrupted_and_the_next_start_takes_it(run, root):
    with held_by_another_process(run, root) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        snapshot = run.snapshot()
        assert (snapshot.state, snapshot.stage, snapshot.step) == ("interrupted", "train", 3)
        assert "Resume goes on" in snapshot.message
        with run.lock():
            assert run.snapshot().state == "running"
    assert not run.is_held()


def test_those_who_ask_at_once_do_not_take_one_another_for_the_run(run):
    with run.lock():
        pass
    answers: list[bool] = []

    def ask() -> None:
        answers.extend(run.is_held() for _ in range(200))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(answers) == 800 and not any(answers)


def test_asking_does_not_keep_a_run_from_starting(run):
    with run.lock():
        pass
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            run.is_held()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(20):
            with run.lock():
                pass
    finally:
        stop.set()
        asking.join()


def test_a_result_means_done_whatever_progress_says(run):
    run.publish_snapshot(Snapshot(state="running", stage="train", step=9, total=10, seconds_left=4.0))
    run.publish_result({"accepted": True})
    assert run.result() == {"accepted": True}
    assert (run.snapshot().state, run.snapshot().seconds_left) == ("done", 0.0)


@pytest.mark.parametrize("text", ['{"state": "run', "", '{"state": "running", "step": "few"}'])
def test_progress_that_cannot_be_read_says_nothing_and_stops_nobody(run, text):
    (run.path / "progress.json").write_text(text)
    assert run.snapshot() == Snapshot()
    with run.lock():
        assert run.snapshot().state == "running"


def test_progress_of_a_newer_trainer_is_read_by_an_older_server(run):
    (run.path / "progress.json").write_text('{"state": "running", "step": 3, "watts": 90}')
    with run.lock():
        assert (run.snapshot().state, run.snapshot().step) == ("running", 3)


def test_who_reads_of_a_run_leaves_out_what_another_version_asked_for_and_who_does_it_must_not(run):
    asked = run.request()
    publish_json(run.path / "request.json", {**asked.model_dump(mode="json"), "fused": True})
    assert run.request(extra="ignore") == asked
    with pytest.raises(ValueError, match="fused"):
        run.request()


def test_a_failure_keeps_its_sentence(run):
    Progress(run).end("failed", "Memory ran out.")
    assert (run.snapshot().state, run.snapshot().message) == ("failed", "Memory ran out.")


def test_a_stop_is_raised_where_the_run_asks_and_can_be_taken_back(run):
    run.stop_if_asked()
    run.request_stop()
    with pytest.raises(Stopped, match="Resume goes on"):
        run.stop_if_asked()
    run.clear_stop()
    run.clear_stop()
    run.stop_if_asked()


# Progress, metrics, results


def test_progress_tells_stage_step_and_time_left(run):
    progress = Progress(run, min_interval_s=0)
    progress.stage("draw", 10, done=4)
    progress.advance()
    with run.lock():
        snapshot = run.snapshot()
    assert (snapshot.state, snapshot.stage, snapshot.step, snapshot.total) == ("running", "draw", 5, 10)
    assert snapshot.per_second is not None and snapshot.seconds_left is not None
    assert snapshot.seconds_left == pytest.approx(5 / snapshot.per_second)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seen", "is_main"), [(Terminal, True), (io.StringIO, True), (io.StringIO, False)])
def test_a_stage_is_one_line_where_no_terminal_shows_its_bar(run, monkeypatch, seen, is_main):
    monkeypatch.setattr(sys, "stderr", seen())
    progress = Progress(run, min_interval_s=0, is_main=is_main)
    progress.stage("load", 1)
    # As more of it is known.
    progress.download(0, 5_000_000)
    progress.download(1_000_000, 9_000_000)
    progress.stage("draw", 1_010, done=10)
    for _ in range(5):
        progress.advance()
    progress.end("done")
    told, name = sys.stderr.getvalue(), run.path.name
    lines = f"{name}: load\n{name}: download (MB), 5 to do\n{name}: draw, 1,000 to do\n"
    if seen is Terminal:
        assert "to do" not in told and "draw" in told
    else:
        assert told == (lines if is_main else "")


def test_the_time_left_is_that_of_the_stages_to_come_as_well(run):
    progress = Progress(run, min_interval_s=0)
    progress.plan({"draw": 100.0, "train": 300.0, "judge": 50.0})
    for stage, ahead in (("draw", 3.5), ("train", 1 / 6), ("judge", 0)):
        progress.stage(stage, 10)
        progress.advance(4)
        snapshot = run.snapshot()
        assert snapshot.per_second is not None
        assert snapshot.seconds_left == pytest.approx((6 + 10 * ahead) / snapshot.per_second)
    assert snapshot.time > 0


def test_the_last_step_of_a_stage_is_always_written(run):
    progress = Progress(run, min_interval_s=3600)
    progress.stage("draw", 3)
    for _ in range(3):
        progress.advance()
    with run.lock():
        assert run.snapshot().step == 3


def test_a_last_line_still_being_written_is_left_out(run):
    run.append_metric(step=1, loss=0.69)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1, "loss": 0.69}]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run):
    for step in range(1, 6):
        run.append_metric(step=step)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6')
    run.cut_metrics(3)
    run.append_metric(step=4)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]


def test_candidates_come_in_the_order_of_their_prompts_and_scraps_are_ignored(run):
    publish_sets(run, 100_000, 2, 0, 1, 99_999)
    (run.path / "candidates" / ".00003.json.1.new").write_text("{")
    assert [found.prompt_index for found in run.candidate_sets()] == [0, 1, 2, 99_999, 100_000]


def test_what_a_killed_process_had_begun_to_publish_goes_and_nothing_else(run):
    publish_sets(run, 0)
    kept = {path for path in run.path.rglob("*") if path.is_file()}
    (run.path / "candidates" / ".00003.json.1.new").write_text("{")
    scratch = run.path / ".lora.abc.new"
    scratch.mkdir()
    (scratch / "pytorch_lora_weights.safetensors").write_text("half")
    run.clear_unfinished()
    assert {path for path in run.path.rglob("*") if path.is_file()} == kept and not scratch.exists()


def test_candidates_that_cannot_be_read_are_not_finished_and_withhold_no_others(run):
    publish_sets(run, 0, 1, 2)
    (run.path / "candidates" / "00001.json").write_text('{"prompt_index": 1, "pro')
    assert [found.prompt_index for found in run.candidate_sets()] == [0, 2]
    assert run.finished_prompts() == {0, 2}
    (run.path / "candidates" / "00002.safetensors").unlink()
    assert run.finished_prompts() == {0}


def test_once_a_run_is_done_candidates_that_cannot_be_read_are_named(run):
    publish_sets(run, 0, 1)
    (run.path / "candidates" / "00001.json").write_bytes(b"")
    run.publish_result({})
    with pytest.raises(ValueError, match=r"candidates/00001\.json cannot be read.*Resume"):
        run.candidate_sets()
    assert len(run.candidate_sets(skip=(1,))) == 1


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"mess'])
def test_why_a_process_failed_says_nothing_where_it_cannot_be_read(run, content):
    run.publish_snapshot(Snapshot(state="interrupted", message="It was cut off."))
    (run.path / "failed.json").write_text(content)
    assert run.snapshot().message == "It was cut off."


def test_the_log_is_read_from_its_end(run):
    (run.path / "log.txt").write_bytes(b"first\nsecond \xff\nthird\n")
    assert run.log_tail(2) == "second \ufffd\nthird"
