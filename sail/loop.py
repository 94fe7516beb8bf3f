"""The whole loop without the app: draw, ask an annotator program, train, propose, train. Resumes.

Everything lies in one folder: loop.json (what was asked), labels.jsonl (what the annotator said),
runs/ (a run folder a stage) and result.json (published after every round).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel
from tqdm import tqdm

from sail import distributed
from sail import rounds as loop_rounds
from sail.annotate import Annotator, ShownPair
from sail.config import Config, Prompt
from sail.files import publish_json, read_lines, sha256_file
from sail.model_ref import ModelRef
from sail.progress import tell_stage
from sail.records import CandidateSet, LabelValue, LatentsRef, SelfPair, TrainingPair
from sail.rounds import Round
from sail.runfolder import RunFolder, claim
from sail.running import execute
from sail.settings import LoopSettings

NO_JUDGE = (
    "Round 0 was not accepted, so there is no judge to go on with. Label more pairs, or allow more under "
    '"monitoring" in --settings, in another --out; --labels takes the labels of this one along.'
)
MIRRORED: Mapping[LabelValue, LabelValue] = {"left": "right", "right": "left"}
"""What a label says of the same two images where they stand the other way round."""


class LoopRequest(Config):
    """All that determines a loop, but for what the annotator says."""

    model: ModelRef
    prompts: tuple[Prompt, ...]
    seed_pairs: int
    settings: LoopSettings
    pairs: str | None = None
    """sha256 of the imported seed pairs' list; None: an annotator is shown pairs."""
    held_out_by: Literal["ordinal", "caption"] = "ordinal"
    """Imported pairs are held out by caption; in loops that were begun before that was so, by ordinal."""


class Rounds:
    """Round after round in one folder, from human pairs. Asked again after a stop it finds what is done."""

    def __init__(
        self,
        out: Path,
        model: ModelRef,
        settings: LoopSettings,
        prompts: Sequence[str],
        learned: Set[str] = frozenset(),
    ) -> None:
        """`learned` are prompts of seed pairs that are there already."""
        self._out, self._model, self._settings = out.resolve(), model, settings
        self._learn, self._held_out_prompts = loop_rounds.split_prompts(prompts, settings, learned)
        self._used: list[str] = []
        self.done: list[Round] = []

    @property
    def current(self) -> Round | None:
        """The last accepted round; None is the base model."""
        return loop_rounds.current(self.done)

    def take_prompts(self, count: int) -> list[str]:
        """Prompts that were not used before, as far as there are any."""
        taken = loop_rounds.take_prompts(self._learn, self._used, count)
        self._used += taken
        return taken

    def draw_seed(self, count: int) -> list[ShownPair]:
        """`count` pairs of the base model for somebody to choose from."""
        prompts = self.take_prompts(count)
        per_prompt = -(-count // len(prompts))
        folder = self._run(
            "propose",
            loop_rounds.seed_request(self._settings, self._model, prompts, pairs_per_prompt=per_prompt),
        )
        drawn = folder.candidate_sets()
        shown = [_shown(folder, found, turn) for turn in range(per_prompt) for found in drawn]
        return [_placed(ordinal, pair) for ordinal, pair in enumerate(shown[:count])]

    def self_annotated(self, policy: Round) -> list[TrainingPair]:
        """Draw fresh prompts with `policy`, have it judge them, and keep its clearest pairs."""
        prompts = self.take_prompts(self._settings.prompts_in(len(self.done)))
        parent = next((round_ for round_ in self.done if round_.round == policy.parent), None)
        request = loop_rounds.propose_request(
            self._settings, self._model, prompts, policy=policy, parent=parent, number=len(self.done)
        )
        folder = self._run("propose", request, policy, parent)
        found = {one.prompt_index: one for one in folder.candidate_sets()}
        return [
            TrainingPair(
                id=f"self-{request.round}-{pair.prompt_index:05d}-{pair.winner}",
                prompt=pair.prompt,
                winner=_latents(folder, found[pair.prompt_index], pair.winner),
                loser=_latents(folder, found[pair.prompt_index], pair.loser),
                source="self",
            )
            for pair in kept_self_pairs(folder, self._settings)
        ]

    def train(self, pairs: Sequence[TrainingPair], *, parent: Round | None) -> Round:
        """The next round on `pairs`, from `parent`'s adapter or from the base model."""
        number = len(self.done)
        request = loop_rounds.train_request(
            self._settings,
            self._model,
            number=number,
            parent=parent,
            held_out_prompts=self._held_out_prompts,
            pairs=pairs,
        )
        folder = self._run("train", request, parent, pairs=pairs)
        result = folder.result()
        assert result is not None
        trained = Round.from_result(
            result,
            number=number,
            parent=parent.round if parent else None,
            adapter=str(folder.path / result["adapter"]),
        )
        self.done.append(trained)
        return trained

    def export(self) -> Path | None:
        """The current round's files for other tools; None where base is current."""
        policy = self.current
        if policy is None:
            return None
        title = f"{self._out.parent.name}, round {policy.round}"
        request = loop_rounds.export_request(self._settings, self._model, policy, title=title)
        before = self._path("export")
        if before.exists() and RunFolder(before).request().adapter != policy.sha256:
            shutil.rmtree(before)  # Of a round that was trained anew.
        return self._run("export", request, policy).path / "export"

    def _path(self, kind: str) -> Path:
        return self._out / f"{2 * len(self.done) + (kind == 'train'):04d}-{kind}"

    def _run(
        self, kind: str, request: BaseModel, *adapters: Round | None, pairs: Sequence[TrainingPair] = ()
    ) -> RunFolder:
        """Create the run folder of this stage, or find it from before, and run it to its end."""
        path = self._path(kind)
        if path.exists():
            folder = RunFolder(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".{path.name}.*.new"):
                shutil.rmtree(left)  # Of a process that was killed while it made it.
            named = request.model_dump_json()
            known = {one.sha256: Path(one.adapter) for one in adapters if one and one.sha256 in named}
            folder = RunFolder.create(path, request, pairs=pairs, adapters=known)
        distributed.from_main(lambda: path)
        execute(folder)
        return folder


class Loop:
    """One loop in one folder. `run` may be called again after a stop; it goes on where it was."""

    def __init__(
        self, out: Path, request: LoopRequest, learned: Set[str] = frozenset(), labels: Path | None = None
    ) -> None:
        """`learned` are prompts of seed pairs that are there already, `labels` a loop's labels.jsonl: whoever
        gave them is not asked again about the same two images."""
        self._out, self._labels = out.resolve(), labels
        self._request = request = claim(self._out, request, "loop")
        self._rounds = Rounds(self._out / "runs", request.model, request.settings, request.prompts, learned)

    def run(self, annotator: str, *, rounds: int) -> dict[str, Any]:
        """Seed round and `rounds` self-annotated ones. Returns what result.json says."""
        with self._alone():
            pairs = self._labelled(self._rounds.draw_seed(self._request.seed_pairs), annotator)
            return self._go_on(pairs, rounds)

    def run_on(self, pairs: list[TrainingPair], *, rounds: int) -> dict[str, Any]:
        """The same from seed pairs that are there already."""
        with self._alone():
            return self._go_on(pairs, rounds)

    def _alone(self) -> AbstractContextManager[None]:
        """RunBusy where another process goes through this loop: labels of two would be mixed."""
        return RunFolder(self._out).lock()

    def _go_on(self, pairs: list[TrainingPair], rounds: int) -> dict[str, Any]:
        loop_rounds.require_enough_pairs(loop_rounds.trainable(pairs), self._request.settings)
        # What was trained before stays, though fewer rounds are asked for now.
        rounds = max(rounds, len(self._published()) - 1)
        self._train(pairs, parent=None)
        for _ in range(rounds):
            policy = self._rounds.current
            if policy is None:
                tqdm.write(NO_JUDGE, file=sys.stderr)
                break
            self._train([*pairs, *self._rounds.self_annotated(policy)], parent=policy)
        return self._publish(self._rounds.export())

    def _train(self, pairs: list[TrainingPair], *, parent: Round | None) -> None:
        trained = self._rounds.train(pairs, parent=parent)
        # Of a loop that is gone through again all is there already, and is not taken back meanwhile.
        if len(self._rounds.done) > len(self._published()):
            self._publish()
        tqdm.write(summary(trained), file=sys.stderr)

    def _labelled(self, pairs: list[ShownPair], command: str) -> list[TrainingPair]:
        file = self._out / "labels.jsonl"
        drop_half_line(file)
        said = read_lines(file)
        known = {line["pair"]: line["label"] for line in said}
        prompts = {pair.id: pair.prompt for pair in pairs}
        for line in said:
            if line["prompt"] != prompts.get(line["pair"], line["prompt"]):
                raise ValueError(
                    f"{file}: {line['pair']} was labelled as {line['prompt']!r} and is a pair of "
                    f"{prompts[line['pair']]!r} now. Start in another --out with --labels {file}."
                )
        missing = [pair for pair in pairs if pair.id not in known]
        if self._labels is not None and missing:
            self._take_over(self._labels, missing, known)
            missing = [pair for pair in pairs if pair.id not in known]
        if missing:
            tell_stage("label", len(missing))
            with Annotator(command) as annotator:
                for pair in tqdm(missing, desc="label", disable=None, leave=False):
                    known[pair.id] = annotator.label(pair)
                    self._log(pair, known[pair.id])
        return human_pairs(pairs, known, self._request.settings)

    def _take_over(self, file: Path, pairs: Sequence[ShownPair], known: dict[str, LabelValue]) -> None:
        """Labels that were given elsewhere to the very same two images, whichever stood left."""
        given: dict[tuple[str, ...], LabelValue] = {}
        for number, line in enumerate(read_lines(file), start=1):
            if not {"prompt", "left", "right", "label"} <= line.keys():
                raise ValueError(f"{file}, line {number}, is no label: it names no prompt, images or answer.")
            prompt, label = line["prompt"], line["label"]
            if label not in get_args(LabelValue):
                known_ones = ", ".join(get_args(LabelValue))
                raise ValueError(f"{file}, line {number}: {label!r} is no label. Labels: {known_ones}.")
            with suppress(FileNotFoundError):
                left, right = (sha256_file(_image_of(line[side], file)) for side in ("left", "right"))
                given[prompt, right, left] = MIRRORED.get(label, label)
                given[prompt, left, right] = label
        taken = 0
        for pair in pairs:
            found = given.get((pair.prompt, sha256_file(pair.left), sha256_file(pair.right)))
            if found is not None:
                known[pair.id] = found
                self._log(pair, found)
                taken += 1
        tqdm.write(f"Labels taken from {file}: {taken} of {len(pairs)}.", file=sys.stderr)

    def _log(self, pair: ShownPair, label: LabelValue) -> None:
        line = {"pair": pair.id, "prompt": pair.prompt, "label": label}
        with open(self._out / "labels.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({**line, "left": str(pair.left), "right": str(pair.right)}) + "\n")
            log.flush()
            os.fsync(log.fileno())

    def _published(self) -> list[dict[str, Any]]:
        result = RunFolder(self._out).result() or {}
        return list(result.get("rounds", []))

    def _publish(self, exported: Path | None = None) -> dict[str, Any]:
        now = self._rounds.current
        result = {
            "rounds": [round_.model_dump() for round_ in self._rounds.done],
            "current": now.round if now else None,
            "export": str(exported) if exported else None,
        }
        publish_json(self._out / "result.json", result)
        return result


def lead(loop: Callable[[], object]) -> bool:
    """In the main process go through the loop; in the others do the runs that it comes to.

    Returns whether this is the main process.
    """
    distributed.join()
    if distributed.is_main():
        loop()
        distributed.from_main(lambda: None)
        return True
    while path := distributed.from_main(lambda: None):
        execute(RunFolder(path))
    return False


def human_pairs(
    pairs: Sequence[ShownPair], labels: Mapping[str, LabelValue], settings: LoopSettings
) -> list[TrainingPair]:
    """Pairs with a winner, by label, and, where `loss.hold_ties` asks for them, ties: never held out.

    Skips and "both bad" stay in the log and are never trained.
    """
    judged = []
    for pair in pairs:
        tied = labels[pair.id] == "tie" and settings.loss.hold_ties > 0
        if not tied and labels[pair.id] not in ("left", "right"):
            continue
        winner, loser = pair.left_latents, pair.right_latents
        if labels[pair.id] == "right":
            winner, loser = loser, winner
        judged.append(
            TrainingPair(
                id=f"{'tie' if tied else 'human'}-{pair.id}",
                prompt=pair.prompt,
                winner=winner,
                loser=loser,
                source="tie" if tied else "human",
                held_out=not tied and loop_rounds.is_held_out(pair.ordinal, settings),
            )
        )
    return judged


def kept_self_pairs(folder: RunFolder, settings: LoopSettings) -> list[SelfPair]:
    """Of a propose run's pairs the clearest, as many as `keep_self_pairs` says and at least one."""
    ranked = folder.self_pairs()
    return ranked[: loop_rounds.kept(len(ranked), settings)]


def held_out_by_caption(pairs: Sequence[TrainingPair], settings: LoopSettings) -> list[TrainingPair]:
    """Imported pairs, of which those of one caption in `held_out_every`, by lot, are held out.

    A caption has many pairs there, and what is learned from one tells of the others.
    """
    captions = {pair.prompt for pair in pairs}
    by_lot = sorted(captions, key=lambda prompt: hashlib.sha256(f"held out\n{prompt}".encode()).digest())
    # By halves: of few captions one is held out as soon as that is nearer to the share than none.
    held_out = set(by_lot[: (len(captions) + settings.held_out_every // 2) // settings.held_out_every])
    return [pair.model_copy(update={"held_out": pair.prompt in held_out}) for pair in pairs]


def summary(done: Round) -> str:
    """One line a round for a person at a terminal."""
    judge = f"judge {done.judge_accuracy.in_words() or 'not measured'}"
    verdict = "accepted" if done.accepted else "not accepted: " + " ".join(done.reasons)
    if done.cut_because:
        verdict += f"; {done.kept:.0%} of the training is kept. Of all of it: {' '.join(done.cut_because)}"
    share = f" ({done.self_fraction:.0%} of draws)" if done.self_pairs else ""
    ties = f", {done.tie_pairs} {'tie' if done.tie_pairs == 1 else 'ties'} held" if done.tie_pairs else ""
    pairs = f"{done.human_pairs} human + {done.self_pairs} self pairs{share}{ties}"
    return f"round {done.round}: {pairs}, {judge}, {done.seconds:.0f} s, {verdict}"


def drop_half_line(file: Path) -> None:
    """A line cut short by a crash was never acknowledged; without this the next one would be glued to it."""
    content = file.read_bytes() if file.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _image_of(named: str, labels: Path) -> Path:
    """An image that a line of `labels` names, also where the loop's folder was moved since."""
    image = Path(named)
    # As runs/0000-propose/candidates/00000-0.png.
    return image if image.exists() else labels.parent.joinpath(*image.parts[-4:])


def _latents(folder: RunFolder, found: CandidateSet, index: int) -> LatentsRef:
    return LatentsRef(file=str(folder.path / found.latents), row=index)


def _shown(folder: RunFolder, found: CandidateSet, turn: int) -> ShownPair:
    left, right = (found.candidates[index] for index in found.to_show[turn])
    return ShownPair(
        ordinal=0,
        prompt=found.prompt,
        left=folder.path / left.image,
        right=folder.path / right.image,
        left_latents=_latents(folder, found, left.index),
        right_latents=_latents(folder, found, right.index),
    )


def _placed(ordinal: int, pair: ShownPair) -> ShownPair:
    """The pair under its number, sides drawn by lot, so that a taste for one side teaches nothing."""
    swap = hashlib.sha256(f"side\n{ordinal}\n{pair.prompt}".encode()).digest()[0] & 1
    left, right = (pair.right, pair.left) if swap else (pair.left, pair.right)
    left_latents, right_latents = (
        (pair.right_latents, pair.left_latents) if swap else (pair.left_latents, pair.right_latents)
    )
    return ShownPair(ordinal, pair.prompt, left, right, left_latents, right_latents)
