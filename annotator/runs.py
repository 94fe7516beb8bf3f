"""Start, follow, stop, resume and take in runs. Knows processes and run folders, never what is computed.

One device, one run: over all open projects the others wait their turn, in the order in which they were
asked for. A run is a child process in its own session. This process may die at any moment: what a run
does is read from its folder and its lock, so the next server finds it again.
"""

from __future__ import annotations

import heapq
import logging
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from annotator import jobs, looks
from annotator.processes import OFFLINE, ONLINE, Launch, end_group, exists, launch, leads, works_on
from annotator.rows import Run
from annotator.store import DatabaseError, Outside, Store, require_no_links
from sail.files import MB
from sail.rounds import Round
from sail.runfolder import RunFolder, Snapshot

log = logging.getLogger(__name__)

State = Literal["waiting", "running", "stopping", "stopped", "interrupted", "failed", "done"]
TAKE_IN_EVERY_S = 0.5
TAKEN_IN_AT_ONCE = 64
"""Prompts whose images are taken in in one transaction."""
DISK_FULL = 16 * MB
"""Bytes: with fewer free a run that ended without a word could not write why."""
SLOWEST_START_S = 60.0
"""So long after a start a living process may not hold its folder yet: it is still importing."""
STOP_PATIENCE_S = 60.0
"""So long a run may take to answer a stop, which it does between steps, before it can be ended by force."""
QUIET_MIN = 5
"""Minutes after which it is said that nothing is heard of a run; loading and long steps may take as long."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What a run does right now, for a page."""

    id: int
    job: str
    round: int
    state: State
    stage: str
    step: int
    total: int
    per_second: float | None
    seconds_left: float | None
    message: str
    ahead: int
    """Runs before it in the queue."""
    overdue: bool
    """Whether it has not answered a stop for so long that it can be ended by force."""
    quiet_min: int | None
    """Whole minutes since anything was heard of it at work, from QUIET_MIN on. It is not ended for that."""
    at: float
    took: float | None
    """Seconds that it was at work, where it is done."""


class Runner:
    """The queue of one server: every run of every open project."""

    def __init__(self, *, launch: Launch = launch) -> None:
        self._launch = launch
        self._stores: list[Store] = []
        self._children: dict[tuple[Path, int], subprocess.Popen[bytes]] = {}
        self._orphans: list[subprocess.Popen[bytes]] = []
        self._said: dict[Path, str] = {}
        self._done: dict[tuple[Path, int], RunView] = {}
        self._lock = threading.RLock()
        self._opening = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)

    def open(self, store: Store) -> None:
        """Follow the runs of this project as well."""
        # Not under the lock: results of a large run may be taken in under it, and requests wait for this.
        with self._opening:
            if store not in self._stores:
                self._stores = [*self._stores, store]
        self.wake()

    def forget(self, store: Store) -> None:
        """Follow no run of this project any more: its folder is gone. What is at work keeps the device."""
        with self._lock, self._opening:
            self._stores = [one for one in self._stores if one is not store]
            self._said.pop(store.folder, None)
            self._done = {key: view for key, view in self._done.items() if key[0] != store.folder}
            # Another project's runs may come to have their numbers.
            gone = [key for key in self._children if key[0] == store.folder]
            self._orphans += [self._children.pop(key) for key in gone]

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop following. Runs go on; the next server finds them."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Look now: something new was asked for."""
        self._wake.set()

    def _loop(self) -> None:
        while not self._stopping:
            try:
                self.turn()
            except Exception:
                # Nothing ends the queue; the next turn tries again.
                log.exception("The queue of runs could not be worked on.")
            self._wake.wait(TAKE_IN_EVERY_S)
            self._wake.clear()

    def turn(self) -> None:
        """Follow what runs, take in what is there, start the next run when the device is free."""
        with self._lock:
            unfinished = [(store, run) for store, run in self._runs() if run.unfinished]
            for store, run in unfinished:
                if run.what != "queued":
                    with self._alone(store, run):
                        self._follow(store, run)
            for store, run in _in_turn(unfinished):
                if self._device_busy():
                    return
                with self._alone(store, run):
                    self._start(store, run)

    def _runs(self) -> list[tuple[Store, Run]]:
        """The runs of every project that can be read."""
        found = []
        for store in self._stores:
            try:
                found += [(store, run) for run in store.runs()]
            except (ValueError, DatabaseError) as error:
                self._say(store, error)
        return found

    @contextmanager
    def _alone(self, store: Store, run: Run, *, trouble: str = "The run cannot go on") -> Iterator[None]:
        """Trouble with a run is its end, and where not even that can be written down, it is logged.

        Either way the other runs and projects go on.
        """
        try:
            try:
                yield
            except DatabaseError:
                # Perhaps not for ever: the next turn tries again.
                raise
            except Exception as error:
                # Whatever others wrote into its files: the next turn would only meet it again.
                log.exception("Run %s of %s: %s.", run.id, store.name, trouble)
                self._end(store, run, message=f"{trouble}: {error}")
        except Exception as error:
            self._say(store, error)

    def _say(self, store: Store, error: Exception) -> None:
        """Log a project's trouble, once and not at every turn."""
        if self._said.get(store.folder) != str(error):
            self._said[store.folder] = str(error)
            log.error("The runs of %s cannot be worked on: %s", store.name, error)

    def _device_busy(self) -> bool:
        # Asked of the processes: a project that cannot be written says "started" of a run long over.
        children = any(child.poll() is None for child in (*self._children.values(), *self._orphans))
        return children or any(self._works(store, run) for store, run in self.running())

    def _works(self, store: Store, run: Run) -> bool:
        try:
            return self._alive(store, run, RunFolder(store.run_folder(run)))
        except ValueError:
            return False
        except OSError:
            # Its disk may be away for a moment. Its process says whether it goes on.
            pid = run.payload.get("pid")
            return pid is not None and exists(int(pid))

    def _start(self, store: Store, run: Run) -> None:
        folder = RunFolder(store.run_folder(run))
        # Before anything is written or removed there.
        require_no_links(folder.path)
        store.require_own_launcher()
        folder.clear_stop()
        folder.forget_end()
        environment = ONLINE if store.project().download else OFFLINE
        command = store.project().launcher.words(folder.request().kind, folder.path)
        # First on record, then at work: where it cannot be recorded it would be started at every turn.
        store.record_run_event(run.id, "started")
        child = self._children[store.folder, run.id] = self._launch(command, folder.path, environment)
        store.record_run_event(run.id, "started", pid=child.pid, command=command)

    def _follow(self, store: Store, run: Run) -> None:
        try:
            folder = RunFolder(store.run_folder(run))
            ended = not self._alive(store, run, folder)
            done = ended and folder.result() is not None
        except OSError as error:
            # A disk may be away for a moment while the process goes on: the next turn looks again.
            self._say(store, error)
            return
        if run.job in ("draw", "compare", "try"):
            # People label while the rest is being drawn. What cannot be read is said when all is there.
            with suppress(ValueError, OSError):
                take_in_candidates(store, run, folder)
        if not ended:
            return
        if not done:
            child = self._children.get((store.folder, run.id))
            status = child.poll() if child else None
            forced = "It was ended by force. Resume goes on." if run.payload.get("by_force") else None
            self._end(store, run, status=status, message=forced or why_ended(folder, status))
            return
        with self._alone(store, run, trouble="The run is done, but its result could not be taken in"):
            take_in(store, run, folder)
            store.record_run_event(run.id, "done")
            self._children.pop((store.folder, run.id), None)

    def _end(self, store: Store, run: Run, **why: Any) -> None:
        store.record_run_event(run.id, "ended", **why)
        child = self._children.get((store.folder, run.id))
        # What is still at work keeps the device.
        if child is not None and child.poll() is not None:
            del self._children[store.folder, run.id]

    def _alive(self, store: Store, run: Run, folder: RunFolder) -> bool:
        child = self._children.get((store.folder, run.id))
        if child is not None:
            # A launcher may end before the run that it started elsewhere.
            return child.poll() is None or folder.is_held()
        pid = run.payload.get("pid")
        if folder.is_held() or (pid is not None and works_on(int(pid), folder.path)):
            return True
        # Started by a server that is gone, and perhaps not far enough to hold its folder. A resumed run
        # still has the progress of its life before.
        fresh = 0 <= time.time() - run.since < SLOWEST_START_S and folder.result() is None
        if not fresh or folder.snapshot().time >= run.since:
            return False
        return pid is None or exists(int(pid))

    # What a person asks for

    def stop(self, store: Store, number: int, *, by: str) -> None:
        """Stop at the next checkpoint, or leave the queue."""
        with self._lock:
            run = store.run(number)
            if run.what == "queued":
                store.record_run_event(number, "withdrawn", by=by)
            elif run.unfinished:
                RunFolder(store.run_folder(run)).request_stop()
                # Once: how long it does not answer counts from the first time.
                if run.what != "stop_asked":
                    store.record_run_event(number, "stop_asked", by=by, **run.payload)
            else:
                raise ValueError(f"Run {number} does not run, so there is nothing to stop.")
        self.wake()

    def end(self, store: Store, number: int, *, by: str) -> None:
        """End the process of a run that does not answer a stop. What it has published stays.

        ValueError where it may still answer, and where its process is not one of this machine.
        """
        with self._lock:
            run = store.run(number)
            if not _overdue(run):
                raise ValueError(
                    f"Run {number} was not asked to stop, or not {STOP_PATIENCE_S:.0f} s ago. "
                    "Stop it, and give it that long to leave by itself."
                )
            folder, pid = RunFolder(store.run_folder(run)), run.payload.get("pid")
            if pid is None or not leads(int(pid), folder.path):
                holder = folder.holder()
                raise ValueError(
                    f"Run {number} is done by no process that this app started on this machine; process "
                    f"{holder.get('pid', '?')} on {holder.get('host', '?')} held it last. End it there."
                )
            store.record_run_event(number, "stop_asked", by=by, **{**run.payload, "by_force": True})
        # Without the lock: other runs go on meanwhile.
        end_group(int(pid))
        self.wake()

    def resume(self, store: Store, number: int, *, by: str) -> None:
        """Queue a run again that was stopped, interrupted or failed."""
        with store.asking, self._lock:
            run = store.run(number)
            if run.unfinished or run.what == "done":
                state = "done" if run.what == "done" else "waiting or running already"
                raise ValueError(f"Run {number} is {state}, so there is nothing to resume.")
            others = [other for other in store.runs() if other.unfinished and other.job == run.job]
            # As where a run is asked for: of tries everybody has one.
            if any(run.job != "try" or other.by == run.by for other in others):
                raise ValueError("Another run does the same. Wait for it, or stop it first.")
            if run.job in ("propose", "train") and any(r.round >= run.round for r in store.rounds()):
                raise ValueError(f"Round {run.round} is trained already. Start the next one instead.")
            if run.job == "draw" and _size_of(store, run) != store.project().settings.sampling.size:
                raise ValueError("It would draw images of another size than is set now. Draw pairs anew.")
            if run.job == "train":
                jobs.require_resumable(store, run)
            store.record_run_event(number, "queued", by=by)
        self.wake()

    # What a page shows

    def views(self, store: Store) -> list[RunView]:
        """All runs of a project, the newest first."""
        return [self.view(store, run) for run in reversed(store.runs())]

    def view(self, store: Store, run: Run) -> RunView:
        if run.what != "done":
            return self._view(store, run)
        # Nothing of it changes any more, and a page asks for all runs at every poll.
        key = store.folder, run.id
        if key not in self._done:
            self._done[key] = self._view(store, run)
        return self._done[key]

    def _view(self, store: Store, run: Run) -> RunView:
        try:
            snapshot = RunFolder(store.run_folder(run)).snapshot()
        except (Outside, OSError) as error:
            # One such run must not take the page's status along.
            snapshot = Snapshot(state="failed", message=str(error))
        state: State
        message = snapshot.message
        if run.what == "queued":
            state, message = "waiting", ""
        elif run.what == "done":
            state = "done"
        elif run.unfinished:
            state, message = ("stopping" if run.what == "stop_asked" else "running"), ""
        elif run.what == "withdrawn":
            state, message = "stopped", "Taken out of the queue before it began."
        else:
            ended = snapshot.state if snapshot.state in ("stopped", "interrupted", "failed") else "failed"
            state, message = ended, str(run.payload.get("message") or snapshot.message)
        return RunView(
            id=run.id,
            job=run.job,
            round=run.round,
            state=state,
            stage=snapshot.stage or ("start" if state == "running" else ""),
            step=snapshot.step,
            total=snapshot.total,
            per_second=snapshot.per_second,
            seconds_left=snapshot.seconds_left if state in ("running", "stopping") else None,
            message=message,
            ahead=self._ahead(store, run) if state == "waiting" else 0,
            overdue=_overdue(run),
            quiet_min=_quiet_min(run, snapshot) if state == "running" else None,
            at=run.at,
            took=_seconds_at_work(store, run) if state == "done" else None,
        )

    def _ahead(self, store: Store, run: Run) -> int:
        unfinished = [(of, other) for of, other in self._runs() if other.unfinished]
        waiting = [(of.folder, other.id) for of, other in _in_turn(unfinished)]
        before = takewhile(lambda other: other != (store.folder, run.id), waiting)
        return len(unfinished) - len(waiting) + len(list(before))

    def running(self) -> list[tuple[Store, Run]]:
        """What the device works on."""
        return [(store, run) for store, run in self._runs() if run.what in ("started", "stop_asked")]


def _in_turn(runs: Sequence[tuple[Store, Run]]) -> list[tuple[Store, Run]]:
    """Those of `runs` that wait, the next one first.

    In a project as they were asked for, whatever its clock said; of several projects the one that has waited
    longest.
    """
    queues: dict[Path, list[tuple[Store, Run]]] = {}
    for store, run in sorted(runs, key=lambda item: item[1].event_seq):
        if run.what == "queued":
            queues.setdefault(store.folder, []).append((store, run))
    return list(heapq.merge(*queues.values(), key=lambda item: item[1].since))


def take_in(store: Store, run: Run, folder: RunFolder) -> None:
    """Put the results of a finished run into the store. Idempotent."""
    if run.job in ("draw", "propose", "compare", "try"):
        take_in_candidates(store, run, folder)
    if run.job == "propose":
        store.take_in_self_pairs(run, folder.self_pairs())
    if run.job == "train":
        result, request = folder.result(), folder.request(extra="ignore")
        assert result is not None
        parents = [round_.round for round_ in store.rounds() if round_.sha256 == request.parent_adapter]
        trained = Round.from_result(
            result, number=run.round, parent=parents[-1] if parents else None, adapter=result["adapter"]
        )
        store.record_round(run, trained, by="gate")


def take_in_candidates(store: Store, run: Run, folder: RunFolder) -> None:
    """Take in prompts that are finished and not here yet, while the rest is being drawn."""
    found = folder.candidate_sets(skip=store.taken_in(run))
    # Of thousands a few at a time: labels come in between.
    for start in range(0, len(found), TAKEN_IN_AT_ONCE):
        store.take_in_candidates(run, found[start : start + TAKEN_IN_AT_ONCE])
    if run.job == "compare":
        looks.take_in_comparisons(store, run, folder.request(extra="ignore"))


def why_ended(folder: RunFolder, status: int | None) -> str:
    """One sentence on a run that left no result."""
    snapshot = folder.snapshot()
    if snapshot.state in ("failed", "stopped"):
        return snapshot.message
    if (free := shutil.disk_usage(folder.path).free) < DISK_FULL:
        return f"The disk is full ({free // MB} MB are free). Make room, then resume."
    if status is not None and status < 0:
        perhaps = ", as happens where memory runs out" if -status == signal.SIGKILL else ""
        return f"The process was killed (signal {-status}{perhaps}) before it was done. Resume goes on."
    if snapshot.state == "interrupted":
        return snapshot.message
    last = folder.log_tail(1).strip()
    return f"The process ended before it began: {last}" if last else "The process ended before it began."


def _overdue(run: Run) -> bool:
    # A clock that was set back says nothing of how long ago it was.
    return run.what == "stop_asked" and not 0 <= time.time() - run.since < STOP_PATIENCE_S


def _quiet_min(run: Run, snapshot: Snapshot) -> int | None:
    minutes = int((time.time() - max(snapshot.time, run.since)) // 60)
    return minutes if minutes >= QUIET_MIN else None


def _seconds_at_work(store: Store, run: Run) -> float:
    """From each start to the end that followed, whatever it waited in between."""
    total, began = 0.0, None
    for event in store.run_history(run):
        if event["what"] == "started" and began is None:
            began = event["at"]
        elif event["what"] in ("ended", "done") and began is not None:
            total += max(0.0, event["at"] - began)
            began = None
    return round(total, 1)


def _size_of(store: Store, run: Run) -> tuple[int, int] | None:
    """Of the images that a draw run is asked for."""
    size: tuple[int, int] | None = RunFolder(store.run_folder(run)).request(extra="ignore").sampling.size
    return size
