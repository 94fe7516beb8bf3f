"""An adapter against base: the same prompts from the same noise, and what outside scorers say of either.

Draws as a compare run does, and goes on where it was. Knows no loss and no judge of the loop's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import torch
from PIL import Image
from tqdm import tqdm

from sail import scorers
from sail.config import Sampling
from sail.files import publish_json, publish_lines, publish_text, sha256_file
from sail.model_ref import ModelRef
from sail.records import Z_95, Interval, Record
from sail.requests import CompareRequest, EvaluateRequest, Look, TrainRequest
from sail.rounds import Round, current
from sail.runfolder import ADAPTER_FILE, RunFolder
from sail.running import execute
from sail.settings import LoopSettings

BATCH = 32
"""Images that a scorer is shown at once."""


@dataclass(frozen=True)
class Subject:
    """Whose images are compared with base's, and how they are drawn."""

    model: ModelRef
    adapter: Path
    sampling: Sampling
    prompts: tuple[str, ...]
    """Held-out prompts, as far as they are known."""
    trained_on: frozenset[str] = frozenset()
    """Prompts of the pairs that it learned from: of a loop in all its rounds, of a run in its own."""


class Verdict(Record):
    """What one scorer says: means over prompts of their images' mean scores."""

    scorer: str
    source: str
    base: float
    adapter: float
    gain: float
    """Mean of adapter minus base over prompts."""
    gain_low: float | None
    gain_high: float | None
    """Its 95 % interval by the normal approximation; None for one prompt alone."""
    won: Interval
    """Share of prompts with the higher mean score, ties counted half."""
    ties: int


def subject_of(target: Path, *, model: ModelRef | None = None, prompts: Sequence[str] = ()) -> Subject:
    """A loop's folder (its current round), a train or evaluate run, or the folder of a LoRA with its model.

    `prompts` takes the place of the run's own held-out prompts. ValueError where `target` is none of them
    or holds no adapter yet, where there are no prompts, and where a run's model is given again.
    """
    if (target / "loop.json").is_file():
        found = _of_loop(target)
    elif (target / "request.json").is_file():
        found = _of_run(RunFolder(target))
    elif (target / ADAPTER_FILE).is_file():
        if model is None:
            raise ValueError(f"{target} is a LoRA and does not say of which model. Give --model.")
        found, model = Subject(model, target, LoopSettings.for_model(model).sampling, ()), None
    else:
        raise ValueError(
            f"{target} is no folder of a loop, of a train run or of a LoRA: it has no loop.json, "
            f"request.json or {ADAPTER_FILE}."
        )
    if model is not None:
        raise ValueError(f"{target} says itself what its model is. Leave out --model.")
    found = replace(found, prompts=tuple(prompts) or found.prompts)
    if not found.prompts:
        raise ValueError(f"{target} names no held-out prompts. Give --prompts FILE.")
    return found


def _of_loop(target: Path) -> Subject:
    file = target / "result.json"
    found = json.loads(file.read_bytes())["rounds"] if file.is_file() else []
    rounds = [Round.model_validate(one) for one in found]
    now = current(rounds)
    if now is None:
        raise ValueError(f"The loop in {target} has no accepted round yet, so that there is no adapter.")
    of_round = _of_run(_folder_of(target, now))
    trained_on = of_round.trained_on.union(*map(_learned_from, _folders_before(target, now, rounds)))
    return replace(of_round, trained_on=trained_on)


def _folder_of(target: Path, trained: Round) -> RunFolder:
    """The run that trained a round, also where the loop's folder was moved since."""
    return RunFolder(target / "runs" / Path(trained.adapter).parent.name)


def _folders_before(target: Path, now: Round, rounds: Sequence[Round]) -> Iterator[RunFolder]:
    """Of the rounds that `now` goes back to, as far as they are kept."""
    while now.parent is not None:
        now = rounds[now.parent]
        folder = _folder_of(target, now)
        if (folder.path / "request.json").is_file():
            yield folder


def _of_run(folder: RunFolder) -> Subject:
    request = folder.request()
    if isinstance(request, TrainRequest):
        adapter = folder.path / "adapter"
        if folder.result() is None:
            raise ValueError(f"The run in {folder.path} has not ended. Finish it first.")
    elif isinstance(request, EvaluateRequest) and request.adapter is not None:
        adapter = folder.adapter_input(request.adapter)
    else:
        raise ValueError(f"The {request.kind} run in {folder.path} has no adapter to evaluate.")
    prompts = request.monitoring.prompts
    return Subject(request.model, adapter, request.sampling, prompts, _learned_from(folder))


def _learned_from(folder: RunFolder) -> frozenset[str]:
    return frozenset(pair.prompt for pair in folder.pairs() if not pair.held_out and pair.source != "open")


def evaluate_with(
    found: Sequence[scorers.Found], subject: Subject, out: Path, *, per_prompt: int, noise_seed: int
) -> str:
    """Draw, judge, and write OUT/scores.json, scores.jsonl and scores.md; return the latter's text.

    OUT/images is the compare run. ValueError where OUT holds another evaluation's.
    """
    folder = _drawn(subject, out, per_prompt, noise_seed)
    shown = list(_images(folder, per_prompt))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    columns = {one.name: _scores(one, shown, device) for one in found}
    lines = [
        {**image.record(), **{name: column[row] for name, column in columns.items()}}
        for row, image in enumerate(shown)
    ]
    verdicts = [verdict(one.name, one.source, shown, columns[one.name]) for one in found]
    known = len(subject.trained_on & set(subject.prompts)) if subject.trained_on else None
    facts = {
        "model": subject.model.model_dump(),
        "adapter": str(subject.adapter),
        "sha256": sha256_file(subject.adapter / ADAPTER_FILE),
        "prompts": len(subject.prompts),
        "prompts_trained_on": known,
        "per_prompt": per_prompt,
        "noise_seed": noise_seed,
        "sampling": subject.sampling.model_dump(),
    }
    publish_lines(out / "scores.jsonl", lines)
    publish_json(out / "scores.json", {**facts, "scorers": [one.model_dump() for one in verdicts]})
    text = in_words(verdicts, prompts=len(subject.prompts), per_prompt=per_prompt, trained_on=known)
    publish_text(out / "scores.md", text)
    return text


@dataclass(frozen=True)
class Shown:
    """One drawn image."""

    prompt_index: int
    prompt: str
    look: str
    file: Path
    name: str

    def record(self) -> dict[str, object]:
        return {
            "prompt_index": self.prompt_index,
            "prompt": self.prompt,
            "look": self.look,
            "image": self.name,
        }


def _drawn(subject: Subject, out: Path, per_prompt: int, noise_seed: int) -> RunFolder:
    sha256 = sha256_file(subject.adapter / ADAPTER_FILE)
    request = CompareRequest(
        model=subject.model,
        looks=(Look(), Look(adapter=sha256)),
        prompts=subject.prompts,
        per_prompt=per_prompt,
        noise_seed=noise_seed,
        sampling=subject.sampling,
    )
    path = out / "images"
    if path.exists():
        folder = RunFolder(path)
        if folder.request() != request:
            raise ValueError(
                f"{out} holds the images of another evaluation. Choose another --out or repeat its options."
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        folder = RunFolder.create(path, request, adapters={sha256: subject.adapter})
    execute(folder)
    return folder


def _images(folder: RunFolder, per_prompt: int) -> Iterator[Shown]:
    for drawn in folder.candidate_sets():
        for candidate in drawn.candidates:
            look = "base" if candidate.index < per_prompt else "adapter"
            name = f"images/{candidate.image}"
            yield Shown(drawn.prompt_index, drawn.prompt, look, folder.path / candidate.image, name)


def _scores(found: scorers.Found, shown: Sequence[Shown], device: torch.device) -> list[float]:
    """One scorer after the other: only one is in memory at a time."""
    scorer, scores = found.load(device), []
    firsts = range(0, len(shown), BATCH)
    for first in tqdm(firsts, desc=found.name, disable=None, leave=False):
        batch = shown[first : first + BATCH]
        # As they were drawn: of all formats that PIL reads it hands some to other programs.
        images = [Image.open(one.file, formats=("PNG",)).convert("RGB") for one in batch]
        scores += scorers.score(scorer, [one.prompt for one in batch], images, name=found.name)
    return scores


def verdict(name: str, source: str, shown: Sequence[Shown], scores: Sequence[float]) -> Verdict:
    """Means, gain and share won. A prompt is one trial: its images are not independent of one another."""
    of_prompt: dict[int, dict[str, list[float]]] = {}
    for image, score in zip(shown, scores, strict=True):
        of_prompt.setdefault(image.prompt_index, {"base": [], "adapter": []})[image.look].append(score)
    means = [(fmean(own["base"]), fmean(own["adapter"])) for own in of_prompt.values()]
    gains = [adapter - base for base, adapter in means]
    wins, ties = sum(gain > 0 for gain in gains), sum(gain == 0 for gain in gains)
    half = Z_95 * stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
    gain = fmean(gains)
    return Verdict(
        scorer=name,
        source=source,
        base=fmean(base for base, _ in means),
        adapter=fmean(adapter for _, adapter in means),
        gain=gain,
        gain_low=gain - half if half is not None else None,
        gain_high=gain + half if half is not None else None,
        won=Interval.of(wins + ties / 2, len(gains)),
        ties=ties,
    )


def in_words(verdicts: Sequence[Verdict], *, prompts: int, per_prompt: int, trained_on: int | None) -> str:
    """A Markdown table, a row a scorer, and what it was measured on."""
    images = "1 image" if per_prompt == 1 else f"{per_prompt} images"
    lines = [
        "| scorer | base | adapter | gain (95 % interval) | prompts won (95 % interval) | ties |",
        "|---|---|---|---|---|---|",
    ]
    for one in verdicts:
        assert one.won.value is not None and one.won.low is not None and one.won.high is not None
        between = f" ({one.gain_low:+.4f} to {one.gain_high:+.4f})" if one.gain_low is not None else ""
        won = f"{one.won.value:.1%} ({one.won.low:.1%} to {one.won.high:.1%})"
        lines.append(
            f"| {one.scorer} | {one.base:.4f} | {one.adapter:.4f} | {one.gain:+.4f}{between} "
            f"| {won} | {one.ties} |"
        )
    said = f"{prompts} prompts, {images} of each, base and adapter from the same noise."
    if trained_on:
        said += f" {trained_on} of the prompts were trained on."
    return "\n".join([*lines, "", said]) + "\n"
