"""The whole loop without the app: draw, ask an annotator program, train, propose, train. Resumes.

Everything lies in one folder: loop.json (what was asked), labels.jsonl (what the annotator said),
runs/ (a run folder a stage) and result.json (published after every round).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from pydantic import BaseModel
from tqdm import tqdm

from sail import rounds as loop_rounds
from sail.config import Config, LoopSettings, ModelRef, Prompt
from sail.records import CandidateSet, LabelValue, LatentsRef, TrainingPair
from sail.rounds import Round
from sail.runfolder import RunFolder, publish_json, read_lines
from sail.running import execute

SILENCE_S = 30.0
"""After so long without an answer of the annotator a person is told."""


class LoopRequest(Config):
    """All that determines a loop, but for what the annotator says."""

    model: ModelRef
    prompts: tuple[Prompt, ...]
    seed_pairs: int
    settings: LoopSettings


@dataclass(frozen=True)
class ShownPair:
    """Two candidates of one prompt as an annotator sees them."""

    ordinal: int
    prompt: str
    left: Path
    right: Path
    left_latents: LatentsRef
    right_latents: LatentsRef

    @property
    def id(self) -> str:
        return f"{self.ordinal:05d}"


class Annotator:
    """A program that reads a pair as a JSON line and answers with a label as a JSON line."""

    def __init__(self, command: str) -> None:
        self._command = command
        # A Python program that never flushes would otherwise keep its answers to itself for ever.
        unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            self._process = subprocess.Popen(
                _program(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=unbuffered
            )
        except OSError as error:
            raise ValueError(f"The annotator {command!r} could not be started: {error}.") from error

    def __enter__(self) -> Annotator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        # It may have left before reading the last line; what it said is on disk.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def label(self, pair: ShownPair) -> LabelValue:
        """Ask about one pair. ValueError where the program has died or does not answer in the agreed form."""
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"pair": pair.id, "prompt": pair.prompt, "left": str(pair.left), "right": str(pair.right)}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            with _remark_after(SILENCE_S, f"Still waiting for the annotator's answer to pair {pair.id}."):
                line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._ended()
            raise ValueError(
                f"The annotator {self._command!r} {status} at pair {pair.id}. "
                "The labels before it are kept: start the same command again to go on."
            )
        return _parse_answer(line, pair.id, self._command)

    def _ended(self) -> str:
        try:
            return f"ended with status {self._process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            return "closed its output"


def _program(command: str) -> list[str]:
    """The words of a command. ValueError where it is empty or its program is not there."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"The annotator {command!r} is no command: {error}.") from error
    if not words or shutil.which(words[0]) is None:
        raise ValueError(f"The annotator {command!r} could not be started: there is no such program.")
    return words


@contextlib.contextmanager
def _remark_after(seconds: float, remark: str) -> Iterator[None]:
    """Say something if what is inside takes long."""
    timer = threading.Timer(
        seconds, tqdm.write, [f"{remark} Does it write a line and flush it?"], {"file": sys.stderr}
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _parse_answer(line: str, pair_id: str, command: str) -> LabelValue:
    try:
        answer = json.loads(line)
        label = answer["label"]
        if str(answer["pair"]) != pair_id or label not in get_args(LabelValue):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The annotator {command!r} answered {line.strip()[:80]!r} to pair {pair_id}. It must answer "
            f'{{"pair": "{pair_id}", "label": L}} with L one of {", ".join(get_args(LabelValue))}. '
            "The labels before it are kept: start again to go on."
        ) from error
    return label  # type: ignore[no-any-return]


class Loop:
    """One loop in one folder. `run` may be called again after a stop; it goes on where it was."""

    def __init__(self, out: Path, request: LoopRequest) -> None:
        self._out = out.resolve()
        self._request = request
        self._settings = request.settings
        self._learn, self._held_out_prompts = loop_rounds.split_prompts(request.prompts, request.settings)
        self._used: list[str] = []
        self._rounds: list[Round] = []
        _claim(self._out, request)

    def run(self, annotator: str, *, rounds: int) -> dict[str, Any]:
        """Seed round and `rounds` self-annotated ones. Returns what result.json says."""
        _program(annotator)  # Before minutes of drawing, not after.
        pairs = self._labelled(self._draw_seed(), annotator)
        trainable = sum(not pair.held_out for pair in pairs)
        loop_rounds.require_enough_pairs(trainable, self._settings)
        self._train(pairs, parent=None)
        for _ in range(rounds):
            policy = loop_rounds.current(self._rounds)
            if policy is None:
                tqdm.write("Round 0 was not accepted, so there is no judge to go on with.", file=sys.stderr)
                break
            self._train([*pairs, *self._self_annotated(policy)], parent=policy)
        return self._publish()

    def _draw_seed(self) -> list[ShownPair]:
        prompts = loop_rounds.take_prompts(self._learn, [], self._request.seed_pairs)
        per_prompt = -(-self._request.seed_pairs // len(prompts))
        request = loop_rounds.seed_request(
            self._settings, self._request.model, prompts, pairs_per_prompt=per_prompt
        )
        self._used += prompts
        folder = self._run("propose", request)
        shown = [
            _shown(folder, found, turn) for turn in range(per_prompt) for found in folder.candidate_sets()
        ]
        return [_placed(ordinal, pair) for ordinal, pair in enumerate(shown[: self._request.seed_pairs])]

    def _labelled(self, pairs: list[ShownPair], command: str) -> list[TrainingPair]:
        file = self._out / "labels.jsonl"
        known = {line["pair"]: line["label"] for line in read_lines(file)}
        missing = [pair for pair in pairs if pair.id not in known]
        if missing:
            _drop_half_line(file)
            with Annotator(command) as annotator, open(file, "a", encoding="utf-8") as log:
                for pair in tqdm(missing, desc="label", disable=None, leave=False):
                    known[pair.id] = annotator.label(pair)
                    line = {"pair": pair.id, "prompt": pair.prompt, "label": known[pair.id]}
                    log.write(json.dumps({**line, "left": str(pair.left), "right": str(pair.right)}) + "\n")
                    log.flush()
                    os.fsync(log.fileno())
        return list(self._judged(pairs, known))

    def _judged(self, pairs: list[ShownPair], labels: dict[str, LabelValue]) -> Iterator[TrainingPair]:
        for pair in pairs:
            label = labels[pair.id]
            if label not in ("left", "right"):
                continue  # Ties, skips and "both bad" are kept in labels.jsonl and never trained as wins.
            winner, loser = pair.left_latents, pair.right_latents
            if label == "right":
                winner, loser = loser, winner
            yield TrainingPair(
                id=f"human-{pair.id}",
                prompt=pair.prompt,
                winner=winner,
                loser=loser,
                source="human",
                held_out=loop_rounds.is_held_out(pair.ordinal, self._settings),
            )

    def _self_annotated(self, policy: Round) -> list[TrainingPair]:
        """Draw fresh prompts with `policy`, have it judge them, and keep its clearest pairs."""
        prompts = loop_rounds.take_prompts(self._learn, self._used, self._settings.prompts_per_round)
        self._used += prompts
        parent = next((round_ for round_ in self._rounds if round_.round == policy.parent), None)
        request = loop_rounds.propose_request(
            self._settings,
            self._request.model,
            prompts,
            policy=policy,
            parent=parent,
            number=len(self._rounds),
        )
        folder = self._run("propose", request, policy, parent)
        found = {one.prompt_index: one for one in folder.candidate_sets()}
        ranked = folder.self_pairs()
        kept = ranked[: max(1, round(len(ranked) * self._settings.keep_self_pairs))]
        return [
            TrainingPair(
                id=f"self-{request.round}-{pair.prompt_index:05d}",
                prompt=pair.prompt,
                winner=_latents(folder, found[pair.prompt_index], pair.winner),
                loser=_latents(folder, found[pair.prompt_index], pair.loser),
                source="self",
            )
            for pair in kept
        ]

    def _train(self, pairs: list[TrainingPair], *, parent: Round | None) -> None:
        number = len(self._rounds)
        request = loop_rounds.train_request(
            self._settings,
            self._request.model,
            number=number,
            parent=parent,
            held_out_prompts=self._held_out_prompts,
        )
        folder = self._run("train", request, parent, pairs=pairs)
        result = folder.result()
        assert result is not None
        done = Round.from_result(
            result,
            number=number,
            parent=parent.round if parent else None,
            adapter=str(folder.path / result["adapter"]),
        )
        self._rounds.append(done)
        self._publish()
        tqdm.write(summary(done), file=sys.stderr)

    def _run(
        self, kind: str, request: BaseModel, *adapters: Round | None, pairs: list[TrainingPair] | None = None
    ) -> RunFolder:
        """Create the run folder of this stage, or find it from before, and run it to its end."""
        number = len(self._rounds)
        path = self._out / "runs" / f"{2 * number + (kind == 'train'):04d}-{kind}"
        if path.exists():
            folder = RunFolder(path)
        else:
            path.parent.mkdir(exist_ok=True)
            known = {one.sha256: Path(one.adapter) for one in adapters if one is not None}
            folder = RunFolder.create(path, request, pairs=pairs or (), adapters=known)
        execute(folder)
        return folder

    def _publish(self) -> dict[str, Any]:
        now = loop_rounds.current(self._rounds)
        result = {
            "rounds": [round_.model_dump() for round_ in self._rounds],
            "current": now.round if now else None,
        }
        publish_json(self._out / "result.json", result)
        return result


def summary(done: Round) -> str:
    """One line a round for a person at a terminal."""
    accuracy = done.judge_accuracy
    judge = (
        f"judge {accuracy.value:.0%} of {accuracy.n}" if accuracy.value is not None else "judge not measured"
    )
    verdict = "accepted" if done.accepted else "not accepted: " + " ".join(done.reasons)
    pairs = f"{done.human_pairs} human + {done.self_pairs} self pairs"
    return f"round {done.round}: {pairs}, {judge}, {done.seconds:.0f} s, {verdict}"


def _claim(out: Path, request: LoopRequest) -> None:
    """Make the folder this loop's own, or find that it was. ValueError where it belongs to something else."""
    file = out / "loop.json"
    if file.exists():
        if LoopRequest.model_validate_json(file.read_bytes()) != request:
            raise ValueError(
                f"{out} holds a loop with other settings. Choose another --out or repeat its settings."
            )
        return
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file. Choose another --out.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no loop. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    publish_json(file, request.model_dump(mode="json"))


def _drop_half_line(file: Path) -> None:
    """A line cut short by a crash was never acknowledged; without this the next one would be glued to it."""
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)


def _latents(folder: RunFolder, found: CandidateSet, index: int) -> LatentsRef:
    return LatentsRef(file=str(folder.path / found.latents), row=index)


def _shown(folder: RunFolder, found: CandidateSet, turn: int) -> ShownPair:
    left, right = found.candidates[2 * turn], found.candidates[2 * turn + 1]
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
