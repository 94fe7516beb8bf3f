"""The command line as a user types it, on a Stable Diffusion of random weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from engine import sail
from typer.testing import Result

from sail.config import Optimisation, Sampling, Scoring
from sail.files import publish_json, publish_lines, read_lines, sha256_file
from sail.loop import Rounds
from sail.model_ref import ModelRef
from sail.requests import ProposeRequest
from sail.rounds import Round
from sail.runfolder import ADAPTER_FILE, RunFolder
from sail.settings import LoopSettings

PROMPTS = [
    f"a {size} {colour} {thing}"
    for size in ("small", "big")
    for colour in ("red", "blue")
    for thing in ("fox", "pizza")
]
BRIGHTER = """
    import json, sys
    from PIL import Image, ImageStat
    for line in sys.stdin:
        pair = json.loads(line)
        left, right = (sum(ImageStat.Stat(Image.open(pair[side])).mean) for side in ("left", "right"))
        print(json.dumps({"pair": pair["pair"], "label": "left" if left > right else "right"}), flush=True)
"""


@pytest.fixture(scope="module")
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    return file


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("settings") / "settings.json"
    quick = LoopSettings(
        prompts_per_round=3,
        num_candidates=3,
        min_human_pairs=3,
        monitor_prompts=1,
        optimisation=Optimisation(steps=4, batch_pairs=4),
        scoring=Scoring(draws=3),
        sampling=Sampling(steps=3),
    )
    file.write_text(quick.model_dump_json())
    return file


def annotator(folder: Path, source: str) -> str:
    file = folder / "annotator.py"
    file.write_text(textwrap.dedent(source))
    return f"{sys.executable} {file}"


def loop(model, prompts, settings, command: str, out: Path, *more: object) -> Result:
    return sail(
        *("loop", "--model", model, "--prompts", prompts, "--annotator", command, "--out", out),
        *("--seed-pairs", 6, "--rounds", 1, "--settings", settings, *more),
    )


@pytest.fixture(scope="module")
def looped(model, prompts, settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    done = loop(model, prompts, settings, annotator(folder, BRIGHTER), folder / "out")
    assert done.exit_code == 0, done.stderr
    return folder / "out"


def test_the_loop_writes_a_result_with_every_round_from_0_on(looped):
    result = json.loads((looped / "result.json").read_text())
    assert [done["round"] for done in result["rounds"]] == [0, 1]
    accepted = [done["round"] for done in result["rounds"] if done["accepted"]]
    assert result["current"] == (accepted[-1] if accepted else None)
    for done in result["rounds"]:
        assert Path(done["adapter"]).is_absolute()
        assert sha256_file(Path(done["adapter"]) / ADAPTER_FILE) == done["sha256"]
        assert set(done["judge_accuracy"]) == {"value", "low", "high", "n"}
    first, second = result["rounds"]
    assert (first["human_pairs"], first["self_pairs"], first["self_fraction"]) == (5, 0, 0)
    assert (second["human_pairs"], second["self_pairs"], second["self_fraction"]) == (5, 3, 0.25)


def test_the_winners_trained_on_are_the_ones_the_annotator_chose(looped):
    labels = read_lines(looped / "labels.jsonl")
    assert len(labels) == 6
    candidates = {one.prompt: one for one in RunFolder(looped / "runs/0000-propose").candidate_sets()}
    for label, pair in zip(labels, RunFolder(looped / "runs/0001-train").pairs(), strict=True):
        chosen = candidates[pair.prompt].candidates[pair.winner.row]
        assert Path(label[label["label"]]).name == Path(chosen.image).name


def test_no_prompt_is_used_in_two_rounds_while_fresh_ones_are_left(looped):
    runs = [RunFolder(looped / "runs" / name) for name in ("0000-propose", "0001-train", "0002-propose")]
    seed, held_out, first = runs[0].request(), runs[1].request().monitoring, runs[2].request()
    fresh = set(PROMPTS) - {*seed.prompts, *held_out.prompts}
    assert len(set(seed.prompts)) == 6 and len(fresh) == 1 and fresh <= set(first.prompts)


def test_the_same_command_again_changes_nothing(looped, model, prompts, settings, monkeypatch):
    before = (looped / "result.json").read_text()
    written = []

    def publish(path, value):
        written.append(json.loads(json.dumps(value)))
        publish_json(path, value)

    monkeypatch.setattr("sail.loop.publish_json", publish)
    command = f"{sys.executable} {looped.parent / 'annotator.py'}"
    done = loop(model, prompts, settings, command, looped)
    assert done.exit_code == 0 and (looped / "result.json").read_text() == before
    assert written == [json.loads(before)], "what was done is not taken back meanwhile"
    assert len(read_lines(looped / "labels.jsonl")) == 6


def test_a_loop_that_another_process_goes_through_is_refused(looped, model, prompts, settings):
    command = f"{sys.executable} {looped.parent / 'annotator.py'}"
    with RunFolder(looped).lock():
        second = loop(model, prompts, settings, command, looped)
    assert second.exit_code == 2 and f"{looped} is being worked on by process {os.getpid()}" in second.stderr


def test_another_command_in_the_same_folder_is_refused(looped, model, prompts, settings):
    done = loop(model, prompts, settings, "true", looped, "--noise-seed", 5)
    assert done.exit_code == 2
    assert "holds another loop: it differs in settings.noise_seed (0 there, 5 now)." in done.stderr


def test_a_loop_goes_on_wherever_its_model_is_called_from(
    looped, model, prompts, settings, tmp_path, monkeypatch
):
    out, command = shutil.copytree(looped, tmp_path / "out"), f"{sys.executable} {looped.parent}/annotator.py"
    monkeypatch.chdir(model.parent)
    begun = json.loads((out / "loop.json").read_text())
    assert begun["model"]["source"] == str(model)
    assert loop(model.name, prompts, settings, command, out).exit_code == 0
    # As it was begun before paths were written whole: what it does next is to be of the same model.
    publish_json(out / "loop.json", {**begun, "model": {**begun["model"], "source": model.name}})
    assert loop(model, prompts, settings, command, out, "--rounds", 2).exit_code == 0
    assert RunFolder(out / "runs/0005-train").request().model.source == model.name
    monkeypatch.chdir(tmp_path)
    other = loop(model, prompts, settings, command, out)
    assert other.exit_code == 2 and "it differs in model.source" in other.stderr


def test_fewer_rounds_than_there_are_take_none_back(looped, model, prompts, settings):
    before = (looped / "result.json").read_text()
    command = f"{sys.executable} {looped.parent / 'annotator.py'}"
    done = loop(model, prompts, settings, command, looped, "--rounds", 0)
    assert done.exit_code == 0 and (looped / "result.json").read_text() == before


def test_labels_are_taken_along_into_a_loop_with_other_settings(looped, model, prompts, settings, tmp_path):
    asked = tmp_path / "asked.txt"
    notes = BRIGHTER.replace(
        "pair = json.loads(line)",
        f"pair = json.loads(line); print(pair['pair'], file=open({str(asked)!r}, 'a'))",
    )
    of_another = looped / "labels.jsonl"
    lines = of_another.read_text().splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_text("".join(lines[:4]) + lines[4].replace("00004-", "00003-"))
    (tmp_path / "none.jsonl").write_text('{"pair": "00001"}\n')
    refused = loop(model, prompts, settings, "true", tmp_path / "no", "--labels", tmp_path / "none.jsonl")
    assert refused.exit_code == 2 and "none.jsonl, line 1, is no label" in refused.stderr
    told = ("--labels", tmp_path / "half.jsonl", "--steps", 2, "--rounds", 0)
    done = loop(model, prompts, settings, annotator(tmp_path, notes), tmp_path / "out", *told)
    assert done.exit_code == 0, done.stderr
    assert asked.read_text().split() == ["00004", "00005"], "the fifth line is of other images"
    labels = {line["pair"]: line["label"] for line in read_lines(tmp_path / "out" / "labels.jsonl")}
    assert labels == {line["pair"]: line["label"] for line in read_lines(of_another)}


def test_labels_of_a_loop_that_was_moved_hold_whichever_image_stands_left_now(
    looped, model, prompts, settings, tmp_path
):
    moved = shutil.copytree(looped, tmp_path / "moved")
    mirrored = {"left": "right", "right": "left"}
    lines = read_lines(looped / "labels.jsonl")
    turned = [
        {**line, "left": line["right"], "right": line["left"], "label": mirrored[line["label"]]}
        for line in lines[:3]
    ]
    gone = json.dumps([*turned, *lines[3:]]).replace(str(looped), str(tmp_path / "gone"))
    publish_lines(moved / "labels.jsonl", json.loads(gone))
    told = ("--labels", moved / "labels.jsonl", "--steps", 2, "--rounds", 0)
    done = loop(model, prompts, settings, "false", tmp_path / "out", *told)
    assert done.exit_code == 0, "nobody is asked"
    assert f"Labels taken from {moved / 'labels.jsonl'}: 6 of 6." in done.stderr
    labels = {line["pair"]: line["label"] for line in read_lines(tmp_path / "out/labels.jsonl")}
    assert labels == {line["pair"]: line["label"] for line in lines}


def test_an_answer_that_is_no_label_is_not_taken_along(looped, model, prompts, settings, tmp_path):
    first, *_ = read_lines(looped / "labels.jsonl")
    publish_lines(tmp_path / "labels.jsonl", [first, {**first, "label": "middle"}])
    told = ("--labels", tmp_path / "labels.jsonl")
    done = loop(model, prompts, settings, "false", tmp_path / "out", *told)
    assert done.exit_code == 2
    assert "labels.jsonl, line 2: 'middle' is no label. Labels: left, right, tie" in done.stderr


def test_a_run_is_given_the_adapters_that_its_request_names(looped, model, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("sail.loop.execute", lambda folder: None)
    asked = LoopSettings.model_validate_json(settings.read_bytes())
    rounds = Rounds(tmp_path, ModelRef(source=str(model)), asked, PROMPTS)
    result = json.loads((looped / "result.json").read_text())
    rounds.done = [Round.model_validate(one) for one in result["rounds"]]
    rounds.self_annotated(rounds.done[1])
    (given,) = tmp_path.glob("0004-propose/inputs/adapters/*")
    assert given.name == rounds.done[1].sha256, "not its parent: base is what it is scored against"


def test_an_annotator_that_dies_loses_nothing_it_said_nor_do_files_that_go_meanwhile(
    model, prompts, settings, tmp_path
):
    dies = BRIGHTER.replace(
        "pair = json.loads(line)", "pair = json.loads(line)\n        if pair['pair'] == '00004': sys.exit(7)"
    )
    done = loop(model, prompts, settings, annotator(tmp_path, dies), tmp_path / "out")
    assert done.exit_code == 2 and "ended with status 7 at pair 00004" in done.stderr
    assert len(said := read_lines(tmp_path / "out/labels.jsonl")) == 4
    # What was said goes by number: without a set the pairs after it would have each other's labels.
    seed = tmp_path / "out/runs/0000-propose/candidates"
    before = {file.name: file.read_bytes() for file in sorted(seed.iterdir())}
    for name in "00001.json", "00002.safetensors":
        (seed / name).unlink()
    again = loop(model, prompts, settings, annotator(tmp_path, BRIGHTER), tmp_path / "out")
    assert again.exit_code == 0, again.stderr
    assert {file.name: file.read_bytes() for file in sorted(seed.iterdir())} == before
    lines = read_lines(tmp_path / "out/labels.jsonl")
    assert lines[:4] == said and [line["pair"] for line in lines] == [f"{n:05d}" for n in range(6)]


def test_a_label_of_another_prompt_than_its_pair_has_now_is_not_learned_from(
    looped, model, prompts, settings, tmp_path
):
    shutil.copytree(looped, tmp_path / "out")
    file = tmp_path / "out/labels.jsonl"
    lines = file.read_text().splitlines()
    other = json.loads(lines[2])["prompt"]
    file.write_text("\n".join([*lines[:2], *lines[3:], lines[2].replace(other, "a house")]) + "\n")
    done = loop(model, prompts, settings, annotator(tmp_path, BRIGHTER), tmp_path / "out")
    assert done.exit_code == 2 and "00002 was labelled as 'a house' and is a pair of" in done.stderr


@pytest.mark.parametrize(
    "answer", ["nonsense", '{"pair": "00000", "label": "middle"}', '{"pair": "9", "label": "tie"}', "[]"]
)
def test_an_answer_that_is_no_label_is_shown_with_what_was_expected(tmp_path, answer):
    from sail.annotate import Annotator, ShownPair
    from sail.records import LatentsRef

    ref = LatentsRef(file="x", row=0)
    pair = ShownPair(0, "a fox", tmp_path / "l.png", tmp_path / "r.png", ref, ref)
    with (
        Annotator(annotator(tmp_path, f"input(); print({answer!r})")) as program,
        pytest.raises(ValueError, match=r'It must answer \{"pair": "00000"'),
    ):
        program.label(pair)


def test_an_annotator_is_told_nothing_of_the_processes_of_a_run(tmp_path, monkeypatch):
    from sail.annotate import Annotator, ShownPair
    from sail.records import LatentsRef

    torchruns = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "ROLE_NAME", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    for name in (*torchruns, "RANKED_BY"):
        monkeypatch.setenv(name, "1")
    told = f"""
        import os
        input()
        known = [name for name in {(*torchruns, "RANKED_BY")!r} if name in os.environ]
        print('{{"pair": "00000", "label": "tie"}}' if known == ["RANKED_BY"] else known)
    """
    ref = LatentsRef(file="x", row=0)
    with Annotator(annotator(tmp_path, told)) as program:
        assert program.label(ShownPair(0, "a fox", tmp_path / "l.png", tmp_path / "r.png", ref, ref)) == "tie"


def test_an_annotator_that_is_silent_for_long_is_waited_for_and_that_is_said(tmp_path, monkeypatch):
    from sail.annotate import Annotator, ShownPair
    from sail.records import LatentsRef

    # It answers once that is said.
    waits = """
        import pathlib, time
        input()
        for _ in range(600):
            if pathlib.Path(SAID).exists():
                print('{"pair": "00004", "label": "tie"}')
                break
            time.sleep(0.05)
    """.replace("SAID", repr(str(tmp_path / "said")))
    monkeypatch.setattr("sail.annotate.SILENCE_S", 0.01)
    monkeypatch.setattr(
        "sail.annotate.tqdm.write", lambda remark, file: (tmp_path / "said").write_text(remark)
    )
    ref = LatentsRef(file="x", row=0)
    with Annotator(annotator(tmp_path, waits)) as program:
        pair = ShownPair(4, "a fox", tmp_path / "l.png", tmp_path / "r.png", ref, ref)
        assert program.label(pair) == "tie"
    remark = (tmp_path / "said").read_text()
    assert remark.startswith("Still waiting for the annotator's answer to pair 00004.")


def test_ties_only_are_too_few_pairs_to_train(model, prompts, settings, tmp_path):
    ties = BRIGHTER.replace('"left" if left > right else "right"', '"tie"')
    done = loop(model, prompts, settings, annotator(tmp_path, ties), tmp_path / "out")
    assert done.exit_code == 2 and "at least 3 pairs with a winner and has 0" in done.stderr
    assert len(read_lines(tmp_path / "out/labels.jsonl")) == 6
    # No terminal shows the bars.
    assert "0000-propose: load\n0000-propose: draw, 6 to do\nlabel, 6 to do\n" in done.stderr


def test_sample_writes_an_index_in_the_order_of_prompts_then_images(model, looped, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a big fox\na pizza\n")
    adapter = json.loads((looped / "result.json").read_text())["rounds"][0]["adapter"]
    for out, more in (("base", ()), ("aligned", ("--adapter", adapter))):
        done = sail(
            *("sample", "--model", model, "--prompts", file, "--per-prompt", 2, "--noise-seed", 3),
            *("--steps", 3, "--out", tmp_path / out, *more),
        )
        assert done.exit_code == 0, done.stderr
    lines = read_lines(tmp_path / "base/index.jsonl")
    assert [line["prompt"] for line in lines] == ["a big fox", "a big fox", "a pizza", "a pizza"]
    assert all(line["noise_seed"] == 3 and Path(line["path"]).is_file() for line in lines)
    base, aligned = (tmp_path / out / "00000-0.png" for out in ("base", "aligned"))
    assert base.read_bytes() != aligned.read_bytes()


def test_a_sample_goes_on_in_its_folder_and_no_other_is_mixed_into_it(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a big fox\na pizza\n")
    out = tmp_path / "out"
    own = ("sample", "--model", model, "--prompts", tmp_path / "prompts.txt", "--steps", 3, "--out", out)
    assert sail(*own).exit_code == 0
    lost, kept = out / "00000-0.png", out / "00001-0.png"
    before, since = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    (out / "index.jsonl").unlink()
    assert sail(*own).exit_code == 0
    assert (lost.read_bytes(), kept.stat().st_mtime_ns) == (before, since)
    assert len(read_lines(out / "index.jsonl")) == 8
    beyond = sail(*own[:-1], tmp_path / "beyond", "--guidance", 1000)
    assert beyond.exit_code == 2 and not (tmp_path / "beyond").exists()
    refused = sail(*own, "--noise-seed", 1)
    assert refused.exit_code == 2 and "holds another sample: it differs in noise_seed" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere", "--prompts", "PROMPTS"], "No model at 'nowhere'"),
        (["--model", "MODEL", "--prompts", "EMPTY"], "There is no prompt"),
        (["--model", "MODEL", "--prompts", "LONG"], "Line 2 has 10,000 characters"),
        (["--model", "MODEL", "--prompts", "MISSING"], "cannot be read"),
        (["--model", "MODEL", "--prompts", "PROMPTS", "--adapter", "nowhere"], "holds no pytorch_lora"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(model, prompts, tmp_path, arguments, sentence):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "long.txt").write_text("a fox\n" + "x" * 10_000)
    places = {
        "MODEL": model,
        "PROMPTS": prompts,
        "EMPTY": tmp_path / "empty.txt",
        "LONG": tmp_path / "long.txt",
        "MISSING": tmp_path / "missing.txt",
    }
    done = sail("sample", *(places.get(word, word) for word in arguments), "--out", tmp_path / "out")
    assert done.exit_code == 2, done.stderr
    assert sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("while_", "sentence"),
    [
        ("backbones.load", "ran out while the model was loaded. Take a smaller model, the precision"),
        ("backbones.pipeline.PipelineBackbone.encode_prompts", "Memory ran out. Take fewer pairs"),
    ],
)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_memory_of_a_gpu_that_runs_out_is_one_sentence(
    model, prompts, tmp_path, monkeypatch, while_, sentence, error
):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(f"sail.{while_}", full)
    request = ProposeRequest(model=ModelRef(source=str(model)), prompts=("a fox",), num_candidates=2)
    folder = RunFolder.create(tmp_path / "run", request)
    for command in (
        ("propose", folder.path),
        ("sample", "--model", model, "--prompts", prompts, "--out", tmp_path / "out"),
    ):
        done = sail(*command)
        assert done.exit_code == 2 and sentence in done.stderr, command
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("run: ")]
        assert len(lines) == 1
    assert sentence in folder.snapshot().message


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = sail("train", tmp_path)
    assert done.exit_code == 2 and "is not a run folder" in done.stderr


def test_prompts_that_are_longer_than_the_model_reads_are_said(model, tmp_path):
    request = ProposeRequest(
        model=ModelRef(source=str(model)), prompts=("a fox", "a " * 20), num_candidates=2
    )
    folder = RunFolder.create(tmp_path / "run", request)
    done = sail("propose", folder.path)
    said = "1 prompt is longer than the model reads: what comes after that is cut off."
    assert said in done.stderr and folder.snapshot().message == said
    assert folder.result()["prompts_cut"] == 1


def test_a_run_of_another_kind_is_refused_with_the_right_command(model, tmp_path):
    request = ProposeRequest(model=ModelRef(source=str(model)), prompts=("a fox",))
    folder = RunFolder.create(tmp_path / "run", request)
    done = sail("train", folder.path)
    assert done.exit_code == 2 and f"python -m sail propose {folder.path}" in done.stderr


def test_the_command_line_works_as_a_program_of_its_own(tmp_path):
    command = [sys.executable, "-m", "sail", "propose", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.strip().endswith("it has no request.json.")
    assert "Traceback" not in done.stderr


def a_run(model: Path, path: Path, prompts: int) -> RunFolder:
    request = ProposeRequest(
        model=ModelRef(source=str(model)),
        prompts=tuple(f"a fox of age {age}" for age in range(prompts)),
        num_candidates=2,
        sampling=Sampling(steps=3),
    )
    return RunFolder.create(path, request)


def as_a_program(folder: RunFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sail", "propose", str(folder.path)],
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_stop_is_exit_status_3_and_the_same_command_goes_on(model, tmp_path):
    folder = a_run(model, tmp_path / "run", prompts=2)
    folder.request_stop()
    program = as_a_program(folder)
    _, said = program.communicate(timeout=120)
    assert program.returncode == 3 and "Traceback" not in said
    assert folder.snapshot().state == "stopped" and folder.result() is None
    assert sail("propose", folder.path).exit_code == 0 and len(folder.candidate_sets()) == 2


def test_ctrl_c_is_exit_status_130(model, tmp_path):
    folder = a_run(model, tmp_path / "run", prompts=1000)
    program = as_a_program(folder)
    while not folder.candidate_sets():
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=120)
    assert program.returncode == 130 and said.strip().endswith("Interrupted. The same command goes on.")
    assert "Traceback" not in said and folder.result() is None


@pytest.mark.parametrize("command", ["", "no-such-program --at all", "'open"])
def test_an_annotator_that_cannot_start_is_refused_before_anything_is_drawn(
    model, prompts, settings, tmp_path, command
):
    done = loop(model, prompts, settings, command, tmp_path / "out")
    assert done.exit_code == 2 and "annotator" in done.stderr
    assert not list(tmp_path.glob("out/runs/*"))


def test_an_annotator_that_never_flushes_is_heard(model, prompts, settings, tmp_path):
    lazy = annotator(tmp_path, BRIGHTER.replace(", flush=True", ""))
    assert loop(model, prompts, settings, lazy, tmp_path / "out", "--rounds", 0).exit_code == 0


def test_a_loop_whose_first_round_is_refused_ends_without_a_current_one(model, prompts, settings, tmp_path):
    strict = tmp_path / "strict.json"
    refuses = {"monitoring": {"min_diversity_ratio": 9, "halvings": 0}}
    strict.write_text(json.dumps({**json.loads(settings.read_text()), **refuses}))
    command = annotator(tmp_path, BRIGHTER)
    done = loop(model, prompts, strict, command, tmp_path / "out", "--rounds", 2)
    assert done.exit_code == 0
    assert done.stderr.count("Round 0 was not accepted, so there is no judge to go on with.") == 1
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert [(one["round"], one["accepted"]) for one in result["rounds"]] == [(0, False)]
    assert result["current"] is None and result["export"] is None


def test_the_noise_seed_of_a_settings_file_holds_unless_another_is_given(model, prompts, settings, tmp_path):
    own = tmp_path / "settings.json"
    own.write_text(json.dumps({**json.loads(settings.read_text()), "noise_seed": 7}))
    for more, wanted in ((), 7), (("--noise-seed", 3), 3):
        out = tmp_path / str(wanted)
        assert loop(model, prompts, own, "false", out, *more).exit_code == 2
        assert json.loads((out / "loop.json").read_text())["settings"]["noise_seed"] == wanted


def test_files_that_cannot_be_used_are_one_sentence(model, prompts, tmp_path):
    taken = tmp_path / "taken"
    taken.write_bytes(b"not a LoRA")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / ADAPTER_FILE).write_bytes(b"not a LoRA")
    both = ("--model", model, "--prompts", prompts)
    for arguments in (
        ("sample", *both, "--out", taken),
        ("sample", *both, "--out", tmp_path / "out", "--adapter", tmp_path / "lora"),
        ("loop", *both, "--annotator", "true", "--out", taken),
        ("loop", *both, "--annotator", "true", "--out", tmp_path / "out", "--settings", tmp_path / "none"),
    ):
        done = sail(*arguments)
        assert done.exit_code == 2 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_too_few_seed_pairs_are_said_before_the_folder_is_taken(tmp_path):
    out = tmp_path / "loop"
    (tmp_path / "prompts.txt").write_text("a fox\na cow\n")
    common = ("loop", "--model", "data/starter", "--prompts", tmp_path / "prompts.txt", "--out", out)
    refused = sail(*common, "--annotator", "cat", "--seed-pairs", 6)
    assert refused.exit_code == 2 and "at most 5 can be learned from" in refused.output
    missing = sail(*common, "--annotator", "no-such-program", "--seed-pairs", 96)
    assert missing.exit_code == 2 and not out.exists()


@pytest.mark.parametrize("flags", [("--steps", 2_000_000), ("--noise-seed", 2**64)])
def test_a_setting_that_no_run_would_take_is_refused_before_anybody_labels(model, prompts, tmp_path, flags):
    asked = ("loop", "--model", model, "--prompts", prompts, "--annotator", "false", "--seed-pairs", 16)
    done = sail(*asked, "--out", tmp_path / "out", *flags)
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_a_settings_file_leaves_out_is_the_presets(model, prompts, tmp_path):
    file = tmp_path / "own.json"
    file.write_text('{"sampling": {"steps": 7}}')
    asked = ("loop", "--model", model, "--prompts", prompts, "--annotator", "false", "--seed-pairs", 16)
    for preset, settings in (
        ("paper", LoopSettings.paper()),
        ("default", LoopSettings.for_model(ModelRef(source=str(model)))),
    ):
        sail(*asked, "--out", tmp_path / preset, "--preset", preset, "--settings", file)
        found = LoopSettings.model_validate(
            json.loads((tmp_path / preset / "loop.json").read_text())["settings"]
        )
        assert found == settings.changed({"sampling": {"steps": 7}}) != settings


def test_a_loop_ends_with_its_current_rounds_files_for_other_tools(looped):
    result = json.loads((looped / "result.json").read_text())
    current, exported = result["rounds"][result["current"]], Path(result["export"])
    lora = Path(current["adapter"]) / ADAPTER_FILE
    assert sha256_file(exported / "lora" / ADAPTER_FILE) == sha256_file(lora)
    assert list(exported.glob("*-round-*.safetensors"))
    card = (exported / "README.md").read_text()
    # The steps of the settings.
    assert f"| human pairs | {current['human_pairs']} |" in card and "num_inference_steps=3," in card


def test_a_settings_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "prompts.txt").write_text("a fox\na cow\n")
    (tmp_path / "bad.json").write_text("{steps: 3}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "wrong.json").write_text('{"optimisation": {"stepz": 3}}')
    for name, sentence in (
        ("gone.json", "cannot be read"),
        ("bad.json", "bad.json: Invalid JSON"),
        ("wrong.json", "wrong.json: optimisation.stepz"),
        ("list.json", "list.json: Settings are an object"),
    ):
        options = ("--out", tmp_path / "o", "--annotator", "cat", "--settings", tmp_path / name)
        refused = sail("loop", "--model", "data/starter", "--prompts", tmp_path / "prompts.txt", *options)
        assert refused.exit_code == 2 and sentence in refused.output, refused.output
