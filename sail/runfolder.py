"""The contract between the app and the algorithm: one folder on disk a run.

Knows how requests, progress, metrics and results are written and read whole; knows nothing of what
a run computes. Everything that others read is published: written beside, fsynced, renamed, and the
folder fsynced.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sail.config import Config, first_fault
from sail.files import (
    fsync_folder,
    link_or_copy,
    open_latents,
    open_no_link,
    publish_json,
    publish_lines,
    read_lines,
    sha256_file,
)
from sail.records import CandidateSet, JudgedPair, LatentsRef, SelfPair, TrainingPair
from sail.requests import Request

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for a LoRA in a folder."""
MERGED_FOLDER = "merged"
"""In an export, the whole pipeline."""

State = Literal["waiting", "running", "stopped", "interrupted", "failed", "done"]
_REQUEST: TypeAdapter[Any] = TypeAdapter(Request)
C = TypeVar("C", bound=Config)


class RunBusy(RuntimeError):
    """Another process holds this run folder."""


class Lost(RuntimeError):
    """Another process of the same run ended, so that this one cannot go on."""


class Stopped(RuntimeError):
    """Someone asked for a stop, and the run has written what it needs to go on."""


def claim(folder: Path, request: C, what: str) -> C:
    """Make `folder` that of one `what` ("loop", "import"), by `what`.json, or find that it was.

    Returns what it was begun with, where the model may lie at a path that is not whole. ValueError where it
    belongs to something else, or to another request, naming what differs.
    """
    file = folder / f"{what}.json"
    if file.exists():
        try:
            held = type(request).model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{file} cannot be read: {first_fault(error)} Choose another --out.") from error
        other = _different(held.model_dump(mode="json"), request.model_dump(mode="json"))
        if other:
            raise ValueError(
                f"{folder} holds another {what}: it differs in {', '.join(other)}. "
                "Choose another --out or repeat what it was begun with."
            )
        return held
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Choose another --out.")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {what}. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    publish_json(file, request.model_dump(mode="json"))
    return request


def _different(held: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> list[str]:
    """Which values differ: "settings.lora.rank (8 there, 16 now)", and long ones by name alone."""
    found = []
    for name in {**held, **asked}:
        before, now = held.get(name), asked.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _different(before, now, f"{within}{name}.")
        elif before != now and not (name == "source" and _is_one_place(before, now)):
            both = f" ({before} there, {now} now)"
            found.append(f"{within}{name}" + (both if len(both) < 60 else ""))
    return found


def _is_one_place(before: Any, now: Any) -> bool:
    """As a model's path, which used to be written as it was typed."""
    return os.path.abspath(str(before)) == os.path.abspath(str(now))


class Snapshot(BaseModel):
    """What progress.json says, with the state derived from folder and lock."""

    # A server may be older than the trainer that writes.
    model_config = ConfigDict(extra="ignore")

    state: State = "waiting"
    stage: str = ""
    step: int = 0
    total: int = 0
    per_second: float | None = None
    """Steps of the stage a second."""
    seconds_left: float | None = None
    message: str = ""
    """For a person: why a run failed or stopped, or what is to be known of one that is done."""
    time: float = 0.0
    """Unix seconds at which this was written: the heartbeat."""


def _require_unaltered(adapter: Path, sha256: str) -> None:
    file, way_out = adapter / ADAPTER_FILE, "Make an earlier round or base current and go on from there."
    if not file.is_file():
        raise ValueError(f"{file} is gone. {way_out}")
    found = sha256_file(file)
    if found != sha256:
        raise ValueError(f"{file} was altered: its sha256 is {found[:12]}…, not {sha256[:12]}…. {way_out}")


class RunFolder:
    """One run: a pure function of request.json, pairs.jsonl and inputs/."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).resolve()

    @classmethod
    def create(
        cls,
        path: Path | str,
        request: BaseModel,
        *,
        pairs: Iterable[TrainingPair] = (),
        adapters: Mapping[str, Path] | None = None,
    ) -> RunFolder:
        """Publish a new run folder whole.

        `pairs` name their latents by absolute path; the files are linked into inputs/ under their hash.
        `adapters` maps the sha256 of each adapter that the request names to the folder it lies in.
        """
        final = Path(path).resolve()
        if final.exists():
            raise ValueError(f"{final} exists already. Choose another folder for the new run.")
        building = final.with_name(f".{final.name}.{os.getpid()}.new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        try:
            cls(building)._fill(request, pairs, adapters or {})
            os.replace(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        fsync_folder(final.parent)
        return cls(final)

    def _fill(self, request: BaseModel, pairs: Iterable[TrainingPair], adapters: Mapping[str, Path]) -> None:
        for sha256, source in adapters.items():
            _require_unaltered(source, sha256)
            link_or_copy(source / ADAPTER_FILE, self._adapter_folder(sha256) / ADAPTER_FILE)
        linked: dict[str, str] = {}
        lines = [self._link_pair(pair, linked).model_dump() for pair in pairs]
        if lines:
            publish_lines(self.path / "pairs.jsonl", lines)
        publish_json(self.path / "request.json", request.model_dump(mode="json"))
        for folder, _, _ in os.walk(self.path):
            fsync_folder(Path(folder))

    def _link_pair(self, pair: TrainingPair, linked: dict[str, str]) -> TrainingPair:
        def link(ref: LatentsRef) -> LatentsRef:
            if ref.file not in linked:
                # Not as torch's: the app, which makes runs, does without it.
                with open_latents(
                    Path(ref.file), "numpy", instead=" Or remove it: its pairs go, or are drawn anew."
                ):
                    name = f"inputs/latents/{sha256_file(Path(ref.file))}.safetensors"
                link_or_copy(Path(ref.file), self.path / name)
                linked[ref.file] = name
            return LatentsRef(file=linked[ref.file], row=ref.row)

        return pair.model_copy(update={"winner": link(pair.winner), "loser": link(pair.loser)})

    # What a run reads

    def request(self, *, extra: Literal["forbid", "ignore"] = "forbid") -> Any:
        """The validated request. ValueError where the folder is no run or the request is not understood.

        With `extra="ignore"`, for who only reads of the run, without what another version asked for besides.
        """
        file = self.path / "request.json"
        if not file.is_file():
            raise ValueError(f"{self.path} is not a run folder: it has no request.json.")
        try:
            return _REQUEST.validate_json(file.read_bytes(), extra=extra)
        except ValidationError as error:
            raise ValueError(f"{file}: {first_fault(error)}") from error

    def pairs(self) -> list[TrainingPair]:
        return [TrainingPair.model_validate(line) for line in read_lines(self.path / "pairs.jsonl")]

    def adapter_input(self, sha256: str) -> Path:
        """Folder of an adapter that the request names. ValueError where its bytes are no longer those."""
        folder = self._adapter_folder(sha256)
        _require_unaltered(folder, sha256)
        return folder

    def _adapter_folder(self, sha256: str) -> Path:
        return self.path / "inputs" / "adapters" / sha256

    # What a run writes

    @contextmanager
    def lock(self, timeout_s: float = 2.0) -> Iterator[None]:
        """Hold this folder, or raise RunBusy with who holds it."""
        lock = FileLock(str(self.path / ".lock"))
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            holder = self.holder()
            raise RunBusy(
                f"{self.path} is being worked on by process {holder.get('pid', '?')} "
                f"on {holder.get('host', '?')}. Wait for it or stop it first."
            ) from None
        try:
            publish_json(self.path / "holder.json", {"pid": os.getpid(), "host": socket.gethostname()})
            yield
        finally:
            lock.release()

    def holder(self) -> dict[str, Any]:
        """Process and host that held this folder last; empty where none did."""
        try:
            return dict(json.loads((self.path / "holder.json").read_text()))
        except (OSError, ValueError):
            return {}

    def is_held(self) -> bool:
        """Whether a living process on this machine holds the folder."""
        try:
            # Not waiting for the other end, were it a pipe.
            descriptor = os.open(self.path / ".lock", os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            # A shared lock: two who ask at once must not take one another for the run.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def append_metric(self, **values: float | int | str | None) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def keep_metrics(self) -> None:
        """Wait until they are on disk: what is published then is not there without them after a power cut."""
        with open(self.path / "metrics.jsonl", "rb+") as file:
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; a last line still being written is left out."""
        return read_lines(self.path / "metrics.jsonl")

    def append_event(self, process: int, **values: float | int | str | None) -> None:
        """Something that a process of the run met with and that what it computes hangs on from then on."""
        publish_lines(self._events_of(process), [*self.events(process), values])

    def events(self, process: int = 0) -> list[dict[str, Any]]:
        return read_lines(self._events_of(process))

    def _events_of(self, process: int) -> Path:
        # A file each: processes on several nodes cannot append to one without losing lines.
        return self.path / (f"events-{process}.jsonl" if process else "events.jsonl")

    def cut_metrics(self, step: int) -> None:
        """Forget what came after `step`: a resumed run writes it again."""
        kept = [line for line in self.metrics() if line.get("step", 0) <= step]
        publish_lines(self.path / "metrics.jsonl", kept)

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        publish_json(self.path / "progress.json", snapshot.model_dump())

    def publish_result(self, result: Mapping[str, Any]) -> None:
        """Written last: its existence means done."""
        publish_json(self.path / "result.json", dict(result))

    def publish_failure(self, message: str) -> None:
        """Why a process beside the main one failed, which may end before it can say so in progress.json."""
        publish_json(self.path / "failed.json", {"message": message})

    def clear_failure(self) -> None:
        (self.path / "failed.json").unlink(missing_ok=True)

    def request_stop(self) -> None:
        """Ask the run, wherever it is, to write a checkpoint and leave."""
        (self.path / "stop").touch()

    def clear_stop(self) -> None:
        (self.path / "stop").unlink(missing_ok=True)

    def clear_unfinished(self) -> None:
        """Remove the files and folders that a process which was killed had begun to publish. For whoever
        holds the folder alone: of a living process they are what it writes."""
        for left in list(self.path.rglob(".*.new")):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            elif left.is_file():
                left.unlink()
        # What safetensors calls its own.
        for left in list(self.path.rglob(".tmp??????")):
            if left.is_file() and not left.is_symlink():
                left.unlink()

    def stop_if_asked(self) -> None:
        """Raise Stopped where a stop was asked for. Call it where what was done is safely on disk."""
        if (self.path / "stop").exists():
            raise Stopped("Stopped on request. Resume goes on from what is kept.")

    # What others read

    def result(self) -> dict[str, Any] | None:
        """What the run came to; None before it is done. ValueError where that cannot be read."""
        file = self.path / "result.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{file} is no result: {error}. Without it what it says is made anew."
            ) from error
        if not isinstance(found, dict):
            raise ValueError(f"{file} is no result: it has to be a JSON object.")
        return found

    def forget_end(self) -> None:
        """Why a life before ended is not why the next one does. How far it was stays, and when it said so."""
        said = self.snapshot()
        if said.state in ("stopped", "failed", "interrupted"):
            self.clear_failure()
            self.publish_snapshot(said.model_copy(update={"state": "waiting", "message": ""}))

    def snapshot(self) -> Snapshot:
        """State, stage, step and time left, derived from result, progress and lock."""
        try:
            said = Snapshot.model_validate_json((self.path / "progress.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            # What cannot be read says nothing; whether the run is held or done is known without it.
            said = Snapshot()
        if (self.path / "result.json").exists():
            return said.model_copy(update={"state": "done", "seconds_left": 0.0})
        if self.is_held():
            return said.model_copy(update={"state": "running"})
        failure = self._failure()
        if said.state in ("running", "interrupted") and failure:
            return said.model_copy(update={"state": "failed", "message": failure})
        if said.state == "running":
            return said.model_copy(
                update={
                    "state": "interrupted",
                    "message": "The process ended before it was done. Resume goes on.",
                }
            )
        return said

    def _failure(self) -> str:
        try:
            return str(json.loads((self.path / "failed.json").read_text(encoding="utf-8"))["message"])
        except (OSError, ValueError, KeyError, TypeError):
            # As of progress.json.
            return ""

    def log_tail(self, lines: int = 20) -> str:
        """The end of log.txt; "" where there is none, or it cannot be read or is a link."""
        try:
            with open(self.path / "log.txt", encoding="utf-8", errors="replace", opener=open_no_link) as file:
                text = file.read()
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def candidate_sets(self, *, skip: Container[int] = ()) -> list[CandidateSet]:
        """The prompts a propose run has finished so far, in order, without those of the indices in `skip`.

        What cannot be read is left out, and drawn again when the run is started again; ValueError names it
        where the run is done.
        """
        files = [file for file in self._set_files() if int(file.stem) not in skip]
        read = {file: _candidate_set(file) for file in files}
        broken = [file for file, found in read.items() if found is None]
        if broken and (self.path / "result.json").exists():
            raise ValueError(f"{broken[0]} cannot be read. Resume draws it again.")
        return [found for found in read.values() if found is not None]

    def finished_prompts(self) -> frozenset[int]:
        """Indices of the prompts whose candidates are there and can be read."""
        return frozenset(int(file.stem) for file in self._set_files() if _candidate_set(file))

    def count_finished(self) -> int:
        """How many there are by name, which among many files is quicker."""
        return len(self._set_files())

    def is_whole(self, prompts: int) -> bool:
        """Whether all that a run which is done has drawn, of so many prompts, is there and can be read."""
        return len(self.finished_prompts()) == max(prompts, self.count_finished())

    def _set_files(self) -> list[Path]:
        return sorted((self.path / "candidates").glob("[0-9]*.json"), key=lambda file: int(file.stem))

    def self_pairs(self) -> list[SelfPair]:
        """Ranked self pairs, the clearest first; empty until the run is done."""
        return [SelfPair.model_validate(line) for line in read_lines(self.path / "self_pairs.jsonl")]

    def judged_pairs(self) -> list[JudgedPair]:
        """What the judge of a train run says of every human pair; [] before the run has ended."""
        return [JudgedPair.model_validate(line) for line in read_lines(self.path / "judged_pairs.jsonl")]

    def judged_open(self) -> list[JudgedPair]:
        """What it says of pairs that nobody had judged: the margin of the first image over the second."""
        return [JudgedPair.model_validate(line) for line in read_lines(self.path / "judged_open.jsonl")]


def _candidate_set(file: Path) -> CandidateSet | None:
    """None where it cannot be read, or its latents are gone."""
    try:
        found = CandidateSet.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if (file.parents[1] / found.latents).exists() else None
