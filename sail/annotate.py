"""A program that is shown pairs and answers with labels. Knows nothing of training.

It reads one JSON object a line, {"pair", "prompt", "left", "right"} with image paths, and answers one a line,
{"pair", "label"}, before it is sent the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import get_args

from tqdm import tqdm

from sail.records import LabelValue, LatentsRef

OF_TORCHRUN = re.compile(
    r"(?:(?:LOCAL_|GROUP_|ROLE_)?(?:RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(?:ADDR|PORT)|TORCHELASTIC_\w+)$"
)
"""What it says to each process that it starts."""
SILENCE_S = 30.0
"""After so long without an answer of the annotator a person is told."""
REMARK = "Does it write a line and flush it? The next pair comes after the answer to this one."


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
        # A Python program that never flushes would otherwise keep its answers to itself for ever, and one
        # that asks torch for other processes would find this run's, and wait for them.
        own = {name: value for name, value in os.environ.items() if not OF_TORCHRUN.match(name)}
        unbuffered = {**own, "PYTHONUNBUFFERED": "1"}
        try:
            self._process = subprocess.Popen(
                program(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=unbuffered,
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


def program(command: str) -> list[str]:
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
    timer = threading.Timer(seconds, tqdm.write, [f"{remark} {REMARK}"], {"file": sys.stderr})
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
