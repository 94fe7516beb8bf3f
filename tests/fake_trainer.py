"""Does what `python -m sail KIND FOLDER` does as seen from outside, in milliseconds and without torch.

What it draws is a picture of one colour; what it trains is a file of bytes. It waits before it holds its
folder while that has a file `hold-start`, and at the end of a step while it has `hold-step`; where it has
`fail`, that is where it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from PIL import Image
from safetensors.numpy import save_file

from sail.files import publish_json, publish_lines, sha256_file
from sail.progress import Progress
from sail.records import Candidate, CandidateSet, Interval, JudgedPair, SelfPair, human_margin
from sail.requests import CompareRequest, ExportRequest, ProposeRequest, TrainRequest
from sail.runfolder import ADAPTER_FILE, MERGED_FOLDER, RunFolder, Stopped

LONGEST_WAIT_S = 120
"""Nobody is left behind by a test that failed."""


def launch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A runner's launch that starts this file instead of what `command` starts."""
    home = str(Path(__file__).resolve().parents[1])
    with open(folder / "log.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, __file__, *command[-2:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PYTHONPATH": home},
            start_new_session=True,
        )


def run(folder: RunFolder) -> None:
    request, progress = folder.request(), Progress(folder, min_interval_s=0)
    wait_while(folder.path / "hold-start")
    with folder.lock():
        try:
            jobs = {"propose": propose, "train": train, "export": export, "compare": compare}
            result = jobs[request.kind](folder, request, progress)
        except Stopped as stop:
            folder.clear_stop()
            progress.end("stopped", str(stop))
            sys.exit(3)
        except Exception as error:
            progress.end("failed", str(error))
            raise
        folder.publish_result({"kind": request.kind, "round": request.round, **result})
        progress.end("done")


def wait_while(held: Path) -> None:
    end = time.monotonic() + LONGEST_WAIT_S
    while held.exists():
        assert time.monotonic() < end, f"{held} is still there"
        time.sleep(0.01)


def step(folder: RunFolder, progress: Progress) -> None:
    wait_while(folder.path / "hold-step")
    progress.advance()
    if (folder.path / "fail").exists():
        raise RuntimeError("The model folder is gone. Put it back, then resume.")
    folder.stop_if_asked()


def propose(folder: RunFolder, request: ProposeRequest, progress: Progress) -> dict[str, Any]:
    publish_candidates(folder, request, progress, each=request.num_candidates, to_show=request.pairs_to_show)
    pairs = self_pairs(request) if request.scoring else []
    publish_lines(folder.path / "self_pairs.jsonl", (pair.model_dump() for pair in pairs))
    return {"prompts": len(request.prompts), "self_pairs": len(pairs), "seconds": 1.0}


def compare(folder: RunFolder, request: CompareRequest, progress: Progress) -> dict[str, Any]:
    publish_candidates(folder, request, progress, each=len(request.looks) * request.per_prompt)
    return {"prompts": len(request.prompts), "seconds": 1.0}


def publish_candidates(
    folder: RunFolder,
    request: ProposeRequest | CompareRequest,
    progress: Progress,
    *,
    each: int,
    to_show: int = 0,
) -> None:
    root = folder.path / "candidates"
    root.mkdir(exist_ok=True)
    done = folder.finished_prompts()
    progress.stage("draw", len(request.prompts), done=len(done))
    for index, prompt in enumerate(request.prompts):
        if index in done:
            continue
        found = []
        for number in range(each):
            name = f"candidates/{index:05d}-{number}.png"
            colour = (40 * number % 256, 37 * index % 256, request.noise_seed % 256)
            Image.new("RGB", (8, 8), colour).save(folder.path / name)
            found.append(Candidate(index=number, image=name))
        latents = f"candidates/{index:05d}.safetensors"
        drawn = {"latents": numpy.zeros((each, 4, 1, 1), numpy.float32)}
        save_file(drawn, folder.path / latents, metadata={"of": f"{request.noise_seed} {index}"})
        published = CandidateSet(
            prompt_index=index,
            prompt=prompt,
            latents=latents,
            candidates=tuple(found),
            to_show=tuple((2 * turn + 1, 2 * turn) for turn in range(to_show)),
        )
        publish_json(root / f"{index:05d}.json", published.model_dump())
        step(folder, progress)


def self_pairs(request: ProposeRequest) -> list[SelfPair]:
    """Margins from 2 down to near 0, and errors so much larger where a margin is, that in their own standard
    errors the emptiest pairs are the clearest: whoever ranks by that has the order upside down."""
    last = request.num_candidates - 1
    count = len(request.prompts)
    each = request.self_pairs_per_prompt

    def margin(rank: int) -> float:
        return 2 * (1 - rank / (count * each))

    made = [
        SelfPair(
            prompt_index=index,
            prompt=prompt,
            winner=turn,
            loser=last - turn,
            winner_reward=1.0,
            loser_reward=1.0 - margin(turn * count + index),
            margin=margin(turn * count + index),
            margin_error=margin(turn * count + index) ** 2,
            rank=turn * count + index,
        )
        for turn in range(each)
        for index, prompt in enumerate(request.prompts)
    ]
    return [pair for pair in made if pair.margin >= request.min_margin]


def train(folder: RunFolder, request: TrainRequest, progress: Progress) -> dict[str, Any]:
    pairs = folder.pairs()
    steps = request.optimisation.steps
    progress.stage("train", steps)
    for number in range(steps):
        folder.append_metric(
            step=number + 1, loss=0.69, margin=0.1, winner_gain=1e-4, loser_gain=-1e-4, accuracy=0.6
        )
        step(folder, progress)
    samples = folder.path / "samples"
    for at in (0, steps):
        (samples / f"step-{at:05d}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (at % 256, 0, 0)).save(samples / f"step-{at:05d}" / "0.png")
    publish_json(samples / "prompts.json", ["a fox"])
    adapter = folder.path / "adapter"
    adapter.mkdir(exist_ok=True)
    # A LoRA of one module, that is another one where the pairs are.
    weights = {f"unet.mid.lora_{side}.weight": numpy.ones((1, 1), numpy.float32) for side in "AB"}
    said = {"pairs": json.dumps([pair.model_dump() for pair in pairs])}
    save_file(weights, adapter / ADAPTER_FILE, metadata=said)
    held_out = [pair for pair in pairs if pair.held_out]
    human = [pair for pair in pairs if pair.source == "human"]
    judged = [
        # It contradicts the first of eight, and any that it never learned from.
        JudgedPair(
            id=pair.id,
            margin=0.4 if index % 8 and not pair.held_out else -0.2,
            margin_error=0.1,
            held_out=pair.held_out,
        )
        for index, pair in enumerate(human)
    ]
    publish_lines(folder.path / "judged_pairs.jsonl", (pair.model_dump() for pair in judged))
    unjudged = [pair for pair in pairs if pair.source == "open"]
    looked_at = [
        JudgedPair(id=pair.id, margin=0.1 * index, margin_error=0.1, held_out=True)
        for index, pair in enumerate(unjudged)
    ]
    publish_lines(folder.path / "judged_open.jsonl", (pair.model_dump() for pair in looked_at))
    asked = request.monitoring.min_diversity_ratio
    varied = {share: 1.5 - 0.5 * share for share in (1.0, 0.5)}
    kept = next((share for share in varied if varied[share] >= asked), None)
    refused = [f"Images vary 1.00 times as much as base's; {asked:g} is asked for."]
    return {
        "adapter": "adapter",
        "sha256": sha256_file(adapter / ADAPTER_FILE),
        "human_pairs": sum(pair.source == "human" and not pair.held_out for pair in pairs),
        "self_pairs": sum(pair.source == "self" for pair in pairs),
        "self_fraction": request.mixup.self_fraction,
        "human_margin": human_margin(judged),
        "judge_accuracy": Interval.of(len(held_out), len(held_out)).model_dump(),
        "diversity_ratio": varied[kept or 1.0],
        "saturation_ratio": 1.0,
        "kept": kept or 1.0,
        "cut_because": refused if kept and kept < 1 else [],
        "winner_gain": 1e-4,
        "loser_gain": -1e-4,
        "accepted": kept is not None,
        "reasons": [] if kept else refused,
        "seconds": 1.0,
    }


def export(folder: RunFolder, request: ExportRequest, progress: Progress) -> dict[str, Any]:
    progress.stage("export", 1)
    files = []
    whole = [(f"{MERGED_FOLDER}/unet/half.safetensors", b"whole weights")] if request.merged else []
    for name, content in (("lora/" + ADAPTER_FILE, b"weights"), ("README.md", b"# card"), *whole):
        file = folder.path / "export" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        files.append({"path": f"export/{name}", "bytes": len(content), "sha256": sha256_file(file)})
    step(folder, progress)
    return {"files": files, "seconds": 0.1}


if __name__ == "__main__":
    run(RunFolder(sys.argv[2]))
