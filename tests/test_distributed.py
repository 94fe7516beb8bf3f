"""Two processes that torchrun starts do what one does: real processes, real gloo, a model of random weights.

Starting them takes seconds, so one start does all that is only looked at, and others what hurts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from pairs import human_pairs, self_pairs, tied_pairs
from safetensors.torch import load_file

from sail import distributed
from sail.config import Lora, Loss, Mixup, Monitoring, Optimisation, Sampling, Scoring
from sail.files import read_lines
from sail.loop import Loop, LoopRequest
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.requests import CompareRequest, Look, ProposeRequest, TrainRequest
from sail.runfolder import ADAPTER_FILE, RunFolder, Snapshot
from sail.running import execute
from sail.settings import LoopSettings

PROMPTS = ("a red fox", "a blue fox", "a small pizza", "a big pizza", "a red pizza")
QUICK = Sampling(steps=2, chunk=4)
"""Two prompts of two candidates a chunk: three chunks, the last one smaller."""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
TIMEOUT_S = 300
LONG = 40
"""Steps of the run that is killed: enough that it is still going on when it is."""


def start_two(*command: str) -> subprocess.Popen[str]:
    home = str(Path(__file__).resolve().parents[1])
    # Bits change with the number of threads.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home}
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers_of(torchrun: subprocess.Popen[str]) -> list[psutil.Process]:
    """By rank."""
    children = psutil.Process(torchrun.pid).children()
    return sorted(children, key=lambda process: int(process.environ()["RANK"]))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)


def train_request(model: ModelRef, *, steps: int = 8, batch_pairs: int = 5) -> TrainRequest:
    return TrainRequest(
        model=model,
        lora=Lora(rank=2),
        loss=Loss(hold_ties=0.5),
        # An odd number of pairs: the parts of two processes differ in size.
        optimisation=Optimisation(
            steps=steps,
            batch_pairs=batch_pairs,
            micro_batch_pairs=2,
            learning_rate=1e-3,
        ),
        scoring=Scoring(draws=3),
        sampling=QUICK,
        # Refused, so that parts of the training are looked at as well.
        monitoring=Monitoring(prompts=PROMPTS[:3], per_prompt=2, preview_prompts=1, min_diversity_ratio=2),
        checkpoint_every=4,
    )


class Runs:
    """The same requests, done by one process and by two."""

    def __init__(self, root: Path, model: ModelRef) -> None:
        self.root, self.model = root, model
        seed = ProposeRequest(model=model, prompts=PROMPTS, num_candidates=2, pairs_to_show=1, sampling=QUICK)
        self.seed = self._created("seed", seed)
        execute(self.seed)
        # One tie a step: of two processes one has none to hold.
        pairs = [*human_pairs(self.seed), *tied_pairs(self.seed)]
        self.train = self._one_and_two("train", train_request(model), pairs=pairs)
        execute(self.train[0])
        adapter = self.train[0].path / "adapter"
        sha256 = self.train[0].result()["sha256"]
        scored = ProposeRequest(
            model=model,
            adapter=sha256,
            prompts=PROMPTS,
            num_candidates=2,
            sampling=QUICK,
            scoring=Scoring(draws=3),
        )
        self.propose = self._one_and_two("propose", scored, adapters={sha256: adapter})
        looks = (Look(), Look(adapter=sha256))
        compared = CompareRequest(model=model, looks=looks, prompts=PROMPTS, per_prompt=2, sampling=QUICK)
        self.compare = self._one_and_two("compare", compared, adapters={sha256: adapter})
        for one, _ in (self.propose, self.compare):
            execute(one)

    def _created(self, name: str, request, **inputs) -> RunFolder:
        return RunFolder.create(self.root / name, request, **inputs)

    def _one_and_two(self, name: str, request, **inputs) -> tuple[RunFolder, RunFolder]:
        return tuple(self._created(f"{name}-{count}", request, **inputs) for count in (1, 2))

    def copy(self, run: RunFolder, name: str, *without: str) -> RunFolder:
        """Of that run as it was before some of its files were there."""
        shutil.copytree(run.path, self.root / name)
        for pattern in without:
            for file in (self.root / name).glob(pattern):
                file.unlink()
        return RunFolder(self.root / name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model) -> Runs:
    """With two processes: all three, a propose run that one process had begun, a whole long training and one
    that was hurt three times before."""
    runs = Runs(tmp_path_factory.mktemp("runs"), model)
    # Of a part of a step the judge may know all, some or nothing, and each has its part of what losers teach.
    long = train_request(model, steps=LONG)
    changes = {
        "loss": long.loss.model_copy(update={"safeguard": True}),
        "optimisation": long.optimisation.model_copy(update={"self_pair_draws": "judged"}),
        "mixup": Mixup(self_fraction=0.5),
    }
    long = long.model_copy(update=changes)
    pairs = [*human_pairs(runs.seed), *tied_pairs(runs.seed), *self_pairs(runs.propose[0])]
    runs.whole, runs.hurt = (runs._created(name, long, pairs=pairs) for name in ("whole", "hurt"))
    runs.said = hurt_three_times(runs.hurt)
    runs.half = runs.copy(runs.hurt, "half")
    runs.resumed = runs.copy(
        runs.propose[0], "resumed", "result.json", "rewards.jsonl", "candidates/0000[1-4]*"
    )
    done_by_two = (runs.train[1], runs.propose[1], runs.compare[1], runs.resumed, runs.whole, runs.hurt)
    both = start_two(str(Path(__file__).parent / "several.py"), *(str(run.path) for run in done_by_two))
    log, _ = both.communicate(timeout=TIMEOUT_S)
    assert both.returncode == 0, log
    return runs


def hurt_three_times(run: RunFolder) -> dict[str, Snapshot]:
    """Kill one process, kill torchrun, ask for a stop: what the folder says each time that all have ended."""

    def steps() -> int:
        return len(run.metrics())

    said = {}
    for what in ("a process is killed", "torchrun is killed", "a stop is asked for"):
        before, torchrun = steps(), start_two("-m", "sail", "train", str(run.path))
        wait_for(lambda before=before: run.is_held() and steps() != before and steps() > 5, torchrun)
        workers = workers_of(torchrun)
        if what == "a process is killed":
            workers[1].send_signal(signal.SIGKILL)
        elif what == "torchrun is killed":
            torchrun.kill()
        else:
            run.request_stop()
        log, _ = torchrun.communicate(timeout=TIMEOUT_S)
        assert torchrun.returncode != 0, log
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, f"{what}: {alive} goes on"
        assert run.result() is None and steps() < LONG, f"{what}: {log}"
        said[what] = run.snapshot()
    return said


def adapter_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.path / "adapter" / ADAPTER_FILE)


def differ_by(one: RunFolder, other: RunFolder) -> float:
    """Largest difference between two adapters' weights."""
    mine, theirs = adapter_of(one), adapter_of(other)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def files_of(run: RunFolder, pattern: str) -> dict[str, bytes]:
    return {str(file.relative_to(run.path)): file.read_bytes() for file in run.path.glob(pattern)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["propose", "compare"])
def test_two_processes_draw_and_judge_as_one_does_bit_for_bit(runs, kind):
    one, two = getattr(runs, kind)
    drawn = files_of(one, "candidates/*")
    assert len(drawn) >= 4 * len(PROMPTS) and files_of(two, "candidates/*") == drawn
    assert files_of(two, "*s.jsonl") == files_of(one, "*s.jsonl")
    assert (one.result()["made_with"]["processes"], two.result()["made_with"]["processes"]) == (1, 2)
    assert two.result()["made_with"]["chunk"] == QUICK.chunk


@pytest.mark.slow
def test_what_one_process_began_two_finish_with_the_same_bits(runs):
    drawn = files_of(runs.propose[0], "candidates/*")
    assert files_of(runs.resumed, "candidates/*") == drawn
    assert files_of(runs.resumed, "*s.jsonl") == files_of(runs.propose[0], "*s.jsonl")


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_trains_to_1e_5(runs):
    one, two = runs.train
    moved = max(float(tensor.abs().max()) for name, tensor in adapter_of(one).items() if "lora_B" in name)
    assert moved > 1e-3 and differ_by(one, two) < 1e-5
    for mine, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert mine["winner_gain"] == pytest.approx(theirs["winner_gain"], abs=1e-6)
        # A margin is a thousand times a difference of errors near 1, of which float32 keeps seven digits.
        for name in ("step", "loss", "margin", "accuracy", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=3e-4)
    measured = ("human_pairs", "steps", "judge_accuracy", "human_agreement", "accepted", "looks")
    assert {name: one.result()[name] for name in measured} == {name: two.result()[name] for name in measured}
    assert two.result()["looks"] == 4
    assert one.result()["diversity_ratio"] == pytest.approx(two.result()["diversity_ratio"], abs=1e-3)
    judged = [run.judged_pairs() for run in runs.train]
    assert [pair.id for pair in judged[0]] == [pair.id for pair in judged[1]]
    margins = [[pair.margin for pair in pairs] for pairs in judged]
    assert margins[0] == pytest.approx(margins[1], rel=1e-2, abs=1e-2)


@pytest.mark.slow
def test_a_run_whose_process_was_killed_can_be_resumed_and_no_process_goes_on(runs):
    assert runs.said["a process is killed"].state == "interrupted"
    assert runs.said["torchrun is killed"].state == "interrupted"
    assert "Resume goes on" in runs.said["a process is killed"].message


@pytest.mark.slow
def test_a_stop_is_heard_by_all_processes_at_the_same_step(runs):
    said = runs.said["a stop is asked for"]
    assert (said.state, said.stage) == ("stopped", "train") and not (runs.hurt.path / "stop").exists()


@pytest.mark.slow
def test_killed_and_stopped_it_ends_with_the_same_adapter_bytes_as_undisturbed(runs):
    assert adapter_of(runs.hurt) and runs.hurt.result()["sha256"] == runs.whole.result()["sha256"]
    assert [line["step"] for line in runs.hurt.metrics()] == list(range(1, LONG + 1))


@pytest.mark.slow
def test_what_two_processes_began_one_finishes_to_1e_5(runs):
    execute(runs.half)
    assert differ_by(runs.half, runs.whole) < 1e-5
    assert runs.half.result()["made_with"]["processes"] == 1


SECOND_PROCESS_HAS_A_FULL_DISK = """
import os, resource, sys
from sail.runfolder import RunFolder
from sail.running import execute
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
execute(RunFolder(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_run_that_fails_in_one_process_alone_says_why_and_is_resumed(tmp_path, model):
    request = ProposeRequest(model=model, prompts=PROMPTS, num_candidates=2, sampling=QUICK)
    run = RunFolder.create(tmp_path / "run", request)
    (tmp_path / "run.py").write_text(SECOND_PROCESS_HAS_A_FULL_DISK)
    torchrun = start_two(str(tmp_path / "run.py"), str(run.path))
    log, _ = torchrun.communicate(timeout=TIMEOUT_S)
    said = run.snapshot()
    assert torchrun.returncode != 0 and said.state == "failed", log
    assert "File too large" in said.message and not run.finished_prompts() & {2, 3}
    execute(run)
    assert (run.snapshot().state, len(run.candidate_sets())) == ("done", len(PROMPTS))


LEFT_OR_RIGHT = """
import json, sys, zlib
for line in sys.stdin:
    pair = json.loads(line)
    left_or_right = ("left", "right")[zlib.crc32(pair["prompt"].encode()) & 1]
    print(json.dumps({"pair": pair["pair"], "label": left_or_right}), flush=True)
"""


@pytest.mark.slow
def test_two_processes_go_through_the_loop_as_one_does(tmp_path, model):
    settings = LoopSettings(
        prompts_per_round=3,
        num_candidates=2,
        held_out_every=4,
        min_human_pairs=2,
        monitor_prompts=1,
        lora=Lora(rank=2),
        optimisation=Optimisation(steps=3, batch_pairs=4, learning_rate=1e-3),
        scoring=Scoring(draws=2),
        sampling=QUICK,
    )
    request = LoopRequest(model=model, prompts=PROMPTS, seed_pairs=4, settings=settings)
    (tmp_path / "annotator.py").write_text(LEFT_OR_RIGHT)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    annotator = f"{sys.executable} {tmp_path / 'annotator.py'}"
    Loop(tmp_path / "one", request).run(annotator, rounds=1)
    options = {
        "model": model.source,
        "prompts": tmp_path / "prompts.txt",
        "annotator": annotator,
        "out": tmp_path / "two",
        "seed-pairs": 4,
        "rounds": 1,
        "settings": tmp_path / "settings.json",
    }
    torchrun = start_two("-m", "sail", "loop", *(f"--{name}={value}" for name, value in options.items()))
    log, _ = torchrun.communicate(timeout=TIMEOUT_S)
    assert torchrun.returncode == 0, log
    one, two = (tmp_path / name for name in ("one", "two"))
    labels = [
        [(line["pair"], line["label"]) for line in read_lines(out / "labels.jsonl")] for out in (one, two)
    ]
    assert len(labels[0]) == 4 and labels[0] == labels[1]
    seed = [RunFolder(out / "runs/0000-propose") for out in (one, two)]
    assert files_of(seed[0], "candidates/*") == files_of(seed[1], "candidates/*")
    assert differ_by(*(RunFolder(out / "runs/0001-train") for out in (one, two))) < 1e-5
    result = json.loads((two / "result.json").read_text())
    rounds = result["rounds"]
    assert (Path(result["export"]) / "lora" / ADAPTER_FILE).is_file()
    assert [(done["round"], done["human_pairs"]) for done in rounds] == [(0, 3), (1, 3)]


# One process


def test_alone_a_process_has_everything_and_gets_back_what_it_gives():
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert list(distributed.share(range(5))) == [0, 1, 2, 3, 4] and distributed.span(5) == (0, 5)
    totals = {"loss": 0.1}
    assert distributed.from_main(lambda: totals) is totals and distributed.everyones(totals) == [totals]
    assert distributed.sum_gradients([], totals) is totals


def test_more_processes_than_gpus_are_refused_before_they_join(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed, "_state", lambda: pytest.fail("it joined"))
    with pytest.raises(ValueError, match="4 processes were started on a machine with 2 GPUs"):
        distributed.join()


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_and_spans_of_all_processes_are_everything_once(monkeypatch, world):
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    shares, spans = [], []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares += distributed.share(range(9))
        spans += range(*distributed.span(9))
    assert sorted(shares) == list(range(9)) and spans == list(range(9))


def test_what_made_another_process_fail_is_what_the_run_says(tmp_path, request_of_seed_pairs):
    run = RunFolder.create(tmp_path / "run", request_of_seed_pairs)
    main, other = Progress(run), Progress(run, is_main=False)
    main.stage("draw", 4)
    other.stage("draw", 2)
    other.end("failed", "Memory ran out.")
    main.advance()
    assert (run.snapshot().state, run.snapshot().message) == ("failed", "Memory ran out.")
    main.end("interrupted", "Another process of this run ended.")
    assert (run.snapshot().state, run.snapshot().message) == ("failed", "Memory ran out.")
    run.clear_failure()
    assert run.snapshot().message == "Another process of this run ended."


def test_a_step_with_fewer_pairs_than_processes_is_refused(monkeypatch, tmp_path, model):
    seed = ProposeRequest(model=model, prompts=PROMPTS[:2], num_candidates=2, pairs_to_show=1, sampling=QUICK)
    proposed = RunFolder.create(tmp_path / "seed", seed)
    execute(proposed)
    run = RunFolder.create(tmp_path / "run", train_request(model, batch_pairs=1), pairs=human_pairs(proposed))
    # Two processes as far as anybody asks; this one does not get as far as speaking to the other.
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="1 pairs cannot be shared by 2 processes"):
        execute(run)


def test_an_error_of_this_processes_device_is_not_that_of_another_process():
    for own in (
        torch.AcceleratorError("CUDA error: uncorrectable ECC error"),
        torch.OutOfMemoryError("CUDA"),
    ):
        with pytest.raises(type(own)), distributed._reaching_others():
            raise own
    with (
        pytest.raises(distributed.Lost, match="Another process of this run ended"),
        distributed._reaching_others(),
    ):
        raise RuntimeError("Connection closed by peer")
