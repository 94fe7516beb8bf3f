"""How far a run is: progress.json for the app, a bar or a line a stage for a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from sail.files import MB
from sail.runfolder import RunFolder, Snapshot, State

DOWNLOAD = "download (MB)"
LOOKS_SHARE = 20
"""Counting takes at most one part in so many of the time."""


def tell_stage(name: str, to_do: int) -> None:
    """A line on standard error where that is no terminal: with no bar there a run would seem to hang."""
    if not sys.stderr.isatty():
        tqdm.write(f"{name}, {to_do:,} to do" if to_do > 1 else name, file=sys.stderr)
        sys.stderr.flush()


class Progress:
    """The heartbeat of a run: progress.json at most twice a second, and a bar on a terminal, elsewhere a line
    a stage.

    Of several processes the main one alone says how far it is; the others say only why they failed.
    """

    def __init__(self, folder: RunFolder, *, min_interval_s: float = 0.5, is_main: bool = True) -> None:
        self._folder, self._is_main = folder, is_main
        self._min_interval_s = min_interval_s
        self._written = self._look_from = 0.0
        self._bar: tqdm[Any] | None = None
        self._costs: dict[str, float] = {}
        self._snapshot = Snapshot(state="running", time=time.time())

    def plan(self, costs: Mapping[str, float]) -> None:
        """What each stage costs, in their order: the time left is then that of all of them."""
        self._costs = dict(costs)

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        """Begin a stage of `total` steps, of which `done` were done before."""
        self._close_bar()
        # None: shown on a terminal alone.
        hidden = None if self._is_main else True
        self._bar = tqdm(total=total, initial=done, desc=name, file=sys.stderr, disable=hidden, leave=False)
        self._begun, self._initial = time.monotonic(), done
        # A download begins anew whenever more of it is known.
        if self._is_main and name != self._snapshot.stage:
            tell_stage(f"{self._folder.path.name}: {name}", total - done)
        self._snapshot = Snapshot(state="running", stage=name, step=done, total=total)
        self._write()

    def download(self, here: int, in_all: int) -> None:
        """A stage of its own, in MB, of which more and more is known as files begin. A stop is heard: what is
        here is not fetched again."""
        self.stop_if_asked()
        done, total = here // MB, in_all // MB
        if (self._snapshot.stage, self._snapshot.total) != (DOWNLOAD, total):
            self.stage(DOWNLOAD, total, done=done)
        elif done > self._snapshot.step:
            self.advance(done - self._snapshot.step)

    def advance(self, steps: int = 1) -> None:
        self.reach(self._snapshot.step + steps)

    def reach(self, step: int) -> None:
        """So many steps of this stage are done, by whichever process."""
        elapsed = max(time.monotonic() - self._begun, 1e-9)
        rate = (step - self._initial) / elapsed
        total = self._snapshot.total
        left = (total - step + self._ahead() * total) / rate if rate > 0 else None
        self._snapshot = self._snapshot.model_copy(
            update={"step": step, "per_second": rate, "seconds_left": left}
        )
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if time.monotonic() - self._written >= self._min_interval_s or step == self._snapshot.total:
            self._write()

    def _ahead(self) -> float:
        """What the stages after this one cost, as a multiple of what this one does."""
        stages, own = list(self._costs), self._costs.get(self._snapshot.stage)
        if not own:
            return 0.0
        return sum(self._costs[name] for name in stages[stages.index(self._snapshot.stage) + 1 :]) / own

    def look(self, count: Callable[[], int]) -> None:
        """As `reach`, of what is counted in the folder: now and then, since among many files that is slow."""
        if self._is_main and time.monotonic() >= self._look_from:
            began = time.monotonic()
            self.reach(count())
            self._look_from = began + max(self._min_interval_s, LOOKS_SHARE * (time.monotonic() - began))

    def note(self, line: str) -> None:
        """A line for the log, above the bar."""
        tqdm.write(line, file=sys.stderr)

    def stop_if_asked(self) -> None:
        """As the folder's; for stages that lose nothing by a stop, since a resume does them again."""
        self._folder.stop_if_asked()

    def end(self, state: State, message: str = "") -> None:
        self._close_bar()
        if state == "failed" and not self._is_main:
            self._folder.publish_failure(message)
        self._snapshot = self._snapshot.model_copy(
            update={"state": state, "message": message, "seconds_left": None}
        )
        self._write()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self) -> None:
        if not self._is_main:
            return
        self._written = time.monotonic()
        self._folder.publish_snapshot(self._snapshot.model_copy(update={"time": time.time()}))
