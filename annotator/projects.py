"""Which projects there are, and which are open here. Knows folders; knows no web page."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from annotator import jobs, models
from annotator.assignment import Assignments
from annotator.faults import FieldError, Gathered, about
from annotator.launcher import launch_key
from annotator.runs import Runner
from annotator.store import DATABASE, STARTER, DatabaseError, Store
from annotator.store.files import RUN_FOLDER
from sail.model_ref import HUB_ID, ModelRef
from sail.rounds import parse_prompts
from sail.settings import LoopSettings

log = logging.getLogger(__name__)

NAME = re.compile(r"[^\W_][\w .-]{0,59}")
DEMO = "demo"
DEMO_PAIRS = 60
UNFINISHED = re.compile(rf"\.{RUN_FOLDER.pattern}\.[0-9]+\.new")
"""What a run folder is called before it is whole; a server that was killed then left it so."""
REMOVED = ".removed"
"""The folder of removed projects, beside the others. Nothing here deletes one."""
PASSING = ".export-"
"""Files in a project that are made for one answer begin so; what a server that was killed left is removed."""


@dataclass(frozen=True)
class OpenProject:
    """A project in use by this server."""

    store: Store
    assignments: Assignments
    runner: Runner
    making: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever makes a file for one answer: each takes memory and room on the disk."""


class Projects:
    """The projects below one folder, and the queue that their runs share.

    Launch commands count that were sealed with `launch_key`; without one, those entered since it was opened.
    """

    def __init__(
        self,
        root: Path,
        *,
        default: str,
        starter: Path,
        runner: Runner | None = None,
        launch_key: bytes | None = None,
    ) -> None:
        self.root = root.resolve()
        self.default = default
        self.starter = starter.resolve()
        self.runner = runner or Runner()
        self._launch_key = launch_key
        self._open: dict[str, OpenProject] = {}
        self._held: dict[str, FileLock] = {}
        self._lock = threading.Lock()
        self._creating = threading.Lock()

    def starter_words(self, model: ModelRef) -> list[str] | None:
        """The words of the starter's own prompts, all that it knows; None for another model."""
        file = self.starter.parent / "prompts" / "starter.txt"
        if model.source != str(self.starter) or not file.is_file():
            return None
        return sorted(set(file.read_text(encoding="utf-8").lower().split()))

    def names(self) -> list[str]:
        return _names_in(self.root)

    def removed(self) -> list[str]:
        """Names of the projects that can be put back."""
        return _names_in(self.root / REMOVED)

    def get(self, name: str) -> OpenProject:
        """Open a project. KeyError where there is none of that name."""
        with self._lock:
            if name not in self._open:
                if name not in self.names():
                    raise KeyError(f"There is no project {name!r}. Choose one in Setup, or create it there.")
                self._open[name] = self._opened(self.root / name)
            return self._open[name]

    def name_of(self, identity: str, *, formerly: str) -> str | None:
        """What a project of another name is called now; None where none of its identity is open.

        Copies have one identity: where it was removed under its name, another that has it is a copy.
        """
        if formerly in self.removed():
            return None
        with self._lock:
            return next((name for name, one in self._open.items() if one.store.identity == identity), None)

    def _opened(self, folder: Path) -> OpenProject:
        with ExitStack() as undoing:
            lock = self._hold(folder)
            undoing.callback(lock.release)
            for left in folder.glob(f"{PASSING}*"):
                left.unlink(missing_ok=True)
            for left in folder.glob("runs/.*.new"):
                if UNFINISHED.fullmatch(left.name):
                    # What is a link is left alone.
                    shutil.rmtree(left, ignore_errors=True)
            try:
                store = Store(folder, starter=self.starter)
                undoing.callback(store.close)
                store.launch_key = self._launch_key or store.launch_key
                store.project()
            except DatabaseError as error:
                raise ValueError(f"{folder / DATABASE} cannot be opened: {error}.") from error
            undoing.pop_all()
        self._held[folder.name] = lock
        self.runner.open(store)
        return OpenProject(store, Assignments(store), self.runner)

    def _hold(self, folder: Path) -> FileLock:
        lock = FileLock(str(folder / ".server.lock"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{folder} is open in another app already. Use that one, or close it first."
            ) from None
        return lock

    def _forget(self, name: str) -> None:
        """Close a project whose folder is gone, so that another one may have its name."""
        with self._lock:
            if name in self._open:
                self.runner.forget(self._open[name].store)
                self._close(name)

    def _close(self, name: str) -> None:
        self._open.pop(name).store.close()
        self._held.pop(name).release()

    def find_runs(self) -> None:
        """Open every project: a trainer may still be at work from before a restart."""
        for name in self.names():
            try:
                self.get(name)
            except (ValueError, OSError, KeyError) as error:
                # Open elsewhere, unreadable or just removed: that is said again when a person opens it.
                log.warning("%s", error)

    def create(
        self,
        name: str,
        *,
        model: ModelRef,
        prompts: str,
        seed_pairs: int,
        settings: dict[str, Any] | None = None,
        download: bool = False,
        by: str,
    ) -> OpenProject:
        """Make a project and queue its first pairs. ValueError says what cannot be used."""
        # One at a time: of two people who choose the same name the second one is told that it is taken.
        with self._creating:
            fields = Gathered()
            with fields.about("name"):
                self._require_free(name)
            with fields.about("model.source"):
                usable = self.model(model)
                if not download:
                    _require_here(usable)
                models.require_known(usable)
            with fields.about("prompts"):
                parsed = parse_prompts(prompts)
            fields.check()
            whole = LoopSettings.for_model(usable).changed(settings or {})
            jobs.require_size(whole)
            # Of this name there was one, which somebody removed while it was open here.
            self._forget(name)
            store = Store.create(
                self.root / name,
                model=usable,
                prompts=parsed,
                settings=whole,
                download=download,
                starter=self.starter,
                by=by,
            )
            try:
                jobs.draw(store, seed_pairs, by=by)
            except BaseException:
                # Whole or not at all: the same name is free again.
                shutil.rmtree(store.folder, ignore_errors=True)
                self._forget(name)
                raise
            finally:
                store.close()
            return self.get(name)

    def rename(self, name: str, to: str, *, by: str) -> None:
        """Call a project otherwise, its folder as well. ValueError where it cannot be."""
        with self._creating:
            with about("name"):
                self._require_free(to, beside=name)
            launcher = self.get(name).store.project().launcher
            self._move(name, self.root / to)
            moved = self.get(to).store
            # It holds for the folder in which it was entered.
            if launcher.command:
                moved.set_launcher(launcher, by=by)

    def remove(self, name: str) -> str:
        """Put a project away, and return the name under which it can be put back. Nothing is deleted."""
        with self._creating:
            away = self.root / REMOVED
            away.mkdir(exist_ok=True)
            kept = next(free for free in _numbered(name) if not os.path.lexists(away / free))
            self._move(name, away / kept)
            return kept

    def put_back(self, name: str) -> None:
        """Undo `remove`. KeyError where no such project was removed, ValueError where its name is taken."""
        with self._creating:
            if name not in self.removed():
                raise KeyError(f"There is no removed project {name!r}.")
            self._require_free(name)
            os.rename(self.root / REMOVED / name, self.root / name)

    def _move(self, name: str, to: Path) -> None:
        """Close a project here and move its folder. No run of it may be at work: it would lose its files."""
        store = self.get(name).store
        if name == self.default:
            raise ValueError(
                f"{name} is the project that this app was started with, so it stays as it is. "
                "Start the app with --project and another one first."
            )
        # Until it is closed nobody asks for a run.
        with store.asking:
            if any(run.unfinished for run in store.runs()):
                raise ValueError(
                    f"A run of {name} is at work or waits. Stop it in Rounds, or let it end, then try again."
                )
            # Before the lock by which requests find projects: it may take in what another project's run did.
            self.runner.forget(store)
            with self._lock:
                self._close(name)
                os.rename(self.root / name, to)

    def _require_free(self, name: str, *, beside: str | None = None) -> None:
        """ValueError where a project may not be called that; `beside` is the one that is called so now."""
        if not name:
            raise ValueError("Name is missing.")
        if not NAME.fullmatch(name) or name != name.strip(" ."):
            raise ValueError(
                f"{name!r} cannot name a project. Use letters, digits, spaces, dots and dashes (60 at most)."
            )
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root} is no folder, so no project can be made in it. Move it away.")
        folder = self.root / name
        # Disks that tell no "Demo" from "demo" would have one folder for both, and people mix them up.
        for taken in self.names():
            if taken.casefold() == name.casefold() and taken != beside:
                raise ValueError(f"There is a project {taken!r} already. Choose another name.")
        # Where a disk does not tell them apart, the folder of the one that is renamed is its own.
        if folder.exists() and not (beside and folder.samefile(self.root / beside)):
            raise ValueError(f"{folder} is there and no project. Move it away, or choose another name.")

    def move_model(self, name: str, asked: ModelRef, *, download: bool, by: str) -> None:
        """Go on with a project's model at another place. ValueError says what cannot be used."""
        store = self.get(name).store
        before, moved = store.project(), self.model(asked)
        if not download:
            _require_here(moved)
        with about("model.source"):
            models.require_known(moved)
            models.require_alike(
                moved,
                pipeline=before.pipeline or before.model.pipeline,
                latent_channels=store.latent_channels(),
            )
        store.set_model(moved, download=download, by=by)

    def model(self, asked: ModelRef) -> ModelRef:
        """A usable model; `starter` is the one that ships, a folder or file is named by its absolute path."""
        if not asked.source.strip():
            raise FieldError("model.source", "Model is missing.")
        source = str(self.starter) if asked.source.strip() == STARTER else asked.source.strip()
        if os.path.exists(source):
            source = str(Path(source).resolve())
        # What is no folder but looks like a hub id is refused for its revision alone.
        lacks_revision = asked.revision is None and HUB_ID.fullmatch(source) and not Path(source).exists()
        with about("model.revision" if lacks_revision else "model.source"):
            return asked.model_copy(update={"source": source}).checked()

    def close(self) -> None:
        self.runner.close()
        for project in self._open.values():
            project.store.close()
        for lock in self._held.values():
            lock.release()


def _names_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{DATABASE}"))


def _numbered(name: str) -> Iterator[str]:
    """The name, then the name with 2, 3, ... behind it."""
    yield name
    yield from (f"{name} {number}" for number in count(2))


def _require_here(model: ModelRef) -> None:
    """A model that has to be downloaded, and may not be, is refused before there is a project with it."""
    if model.folder is None:
        at = f"{model.source} at {model.revision}"
        raise FieldError(
            "model.source",
            f"{at} is not on this machine. Allow the download, or give the folder of a downloaded model.",
        )


def open_projects(folder: Path | None, *, home: Path) -> Projects:
    """The project at `folder` and its neighbours; without one, the demo project, made on first use.

    `home` holds data/starter, data/prompts and data/projects, and data/launch.key, made on first use.
    ValueError says what is missing.
    """
    starter, demo = home / "data" / "starter", home / "data" / "projects" / DEMO
    chosen = demo if folder is None else folder.resolve()
    # Beside the projects and in none of them.
    key = launch_key(home / "data" / "launch.key")
    projects = Projects(chosen.parent, default=chosen.name, starter=starter, launch_key=key)
    if folder is None and not (demo / DATABASE).is_file():
        file = home / "data" / "prompts" / "starter.txt"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"The prompt file {file} cannot be read: {error.strerror}.") from error
        model = ModelRef(source=str(starter))
        projects.create(DEMO, model=model, prompts=text, seed_pairs=DEMO_PAIRS, by="app")
    elif chosen.name.startswith("."):
        raise ValueError(
            f"{chosen} begins with a dot, and such folders are passed over. Rename it, then start again."
        )
    elif not (chosen / DATABASE).is_file():
        raise ValueError(
            f"{chosen} is not a project: it has no {DATABASE}. "
            "Start without --project and create one in Setup, or give a project's folder."
        )
    if chosen.name not in projects.names():
        raise ValueError(
            f"{chosen.parent} cannot be listed, and the projects in it are found so. "
            "Allow this user to read it, then start again."
        )
    projects.get(chosen.name)
    projects.find_runs()
    return projects
