"""Connections, transactions and events of a project.db. Knows no labels, no runs, no rounds."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where it is installed

from annotator import migrations
from annotator.launcher import KEY_BYTES, Launcher
from annotator.rows import Project
from annotator.writer import Closed, Writer
from sail.config import first_fault
from sail.files import MB
from sail.model_ref import ModelRef
from sail.settings import LoopSettings

DATABASE = "project.db"
STARTER = "starter"
"""Stands for the model that ships, wherever this program lies."""
BUSY_TIMEOUT_S = 10.0
NEEDED_TO_OPEN = MB
"""Bytes: SQLite makes two files beside a database that it opens."""
DatabaseError = sqlite3.DatabaseError
"""What a full disk or a broken file raises."""
T = TypeVar("T")


class Displaced(DatabaseError):
    """What is written to the open file nobody would find: another or none is at its path."""


class Base:
    """One project folder: `project.db`, and `runs/` beside it. `starter`: where the model that ships lies."""

    def __init__(self, folder: Path | str, *, starter: Path | None = None) -> None:
        self.folder = Path(folder).resolve()
        # A project may be behind a link, and it is asked for by the link's name.
        self.name = Path(os.path.abspath(folder)).name
        self._starter = starter
        self.launch_key = secrets.token_bytes(KEY_BYTES)
        """What launch commands are sealed with; this object's alone, unless it is given that of the app."""
        if not (self.folder / DATABASE).is_file():
            raise ValueError(
                f"{self.folder} is not a project: it has no {DATABASE}. "
                "Create a project in Setup, or give a project's folder."
            )
        self.asking = threading.RLock()
        """Held by whoever asks for a run, so that no two are asked for that would do the same, and by whoever
        changes settings or the current round: a run is of what holds when it is queued."""
        self._made: dict[Hashable, tuple[Hashable, Any]] = {}
        self._local = threading.local()
        # A reader goes with its thread: servers make new threads for as long as they run.
        self._readers: weakref.WeakSet[Database] = weakref.WeakSet()
        self._writer = Writer(self._open_writer)

    def close(self) -> None:
        self._writer.close()
        for reader in list(self._readers):
            reader.close()

    # Connections

    def _connect(self) -> Database:
        file = self.folder / DATABASE
        try:
            connection = sqlite3.connect(str(file), timeout=BUSY_TIMEOUT_S, check_same_thread=False)
            database = Database(connection)
            # Before anything that writes: what another program made is left as it was.
            if migrations.is_foreign(database):
                connection.close()
                raise ValueError(f"{file} cannot be read as a project: another program made it.")
            if migrations.is_newer(database):
                connection.close()
                raise ValueError(
                    f"{file} was written by a newer version of this program. Update the program; the project "
                    "is left as it is."
                )
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma foreign_keys = on")
        except sqlite3.DatabaseError as error:
            if (free := shutil.disk_usage(self.folder).free) < NEEDED_TO_OPEN:
                raise ValueError(
                    f"{file} cannot be opened, since the disk is full ({free // MB} MB are free). "
                    "Make room, then start again; the project is left as it is."
                ) from error
            if isinstance(error, sqlite3.OperationalError):
                # Of the machine and not of the file, such as too many open files: it may be another time.
                raise
            raise ValueError(f"{file} cannot be read as a project: {error}.") from error
        return database

    def _open_writer(self) -> Any:
        self._writing = self._connect()
        migrations.project.apply(self._writing)
        # Transactions are begun and ended by the writer thread alone.
        self._writing.conn.isolation_level = None
        self._opened = self._identity()
        # What the writer's thread reads is in its own transaction.
        self._local.reader = self._writing
        return self._writing.conn

    def _identity(self) -> tuple[int, int]:
        """Which file is at the project's path, by device and inode."""
        found = os.stat(self.folder / DATABASE)
        return found.st_dev, found.st_ino

    def _require_in_place(self) -> None:
        """Displaced where the file that SQLite has open is not the one at the path any more."""
        try:
            in_place = self._identity() == self._opened
        except OSError:
            in_place = False
        if not in_place:
            raise Displaced(
                f"{DATABASE} of {self.name} was moved, replaced or deleted while the app had it open. "
                "Close the app, and start it again once the project is in its place."
            )

    def _write(self, change: Callable[[], T]) -> T:
        try:
            value = self._writer.write(change)
        except sqlite3.IntegrityError as error:
            # It would be so the next time as well: no trouble of the disk, after which one tries again.
            raise ValueError(f"Something is named twice, or names what is not there: {error}.") from error
        except Closed:
            raise Displaced(f"{self.name} was renamed or removed just now.") from None
        # Afterwards: what is acknowledged was then in the file that the next start opens.
        self._require_in_place()
        return value

    def _rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows as they are on disk; inside of a write, as its transaction leaves them."""
        # A thread that reads for the first time would open whatever is there now.
        self._require_in_place()
        reader: Database | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
            self._readers.add(reader)
        return list(reader.query(sql, parameters))

    def _kept(self, what: Hashable, version: Hashable, make: Callable[[], T]) -> T:
        """What `make` made of this version of the data: a poll asks again where little has changed."""
        known = self._made.get(what)
        if known is None or known[0] != version:
            known = self._made[what] = (version, make())
        value: T = known[1]
        return value

    def _append(self, table: str, row: dict[str, Any]) -> None:
        self._writing.table(table).insert(row)

    def _append_event(self, kind: str, payload: Any, by: str) -> None:
        row = {"at": time.time(), "by": by, "kind": kind, "payload": _as_payload(payload)}
        self._append("events", row)

    def _last_event(self, kind: str) -> Any | None:
        """What it says, not to be changed. Not for a write that has appended one: it may not come to stay."""
        rows = self._rows("select seq from events where kind = :kind order by seq desc limit 1", kind=kind)
        if not rows:
            return None
        seq = rows[0]["seq"]
        return self._kept(("event", kind), seq, lambda: self._payload(seq))

    def _payload(self, seq: int) -> Any:
        (row,) = self._rows("select payload from events where seq = :seq", seq=seq)
        return json.loads(row["payload"])

    def _first(
        self, table: str, where: str, values: Sequence[Any], *, order_by: str | None = None
    ) -> dict[str, Any] | None:
        """A row as the writer sees it, in its transaction."""
        rows = self._writing.table(table).rows_where(where, values, order_by=order_by, limit=1)
        return next(iter(rows), None)

    # The project

    @cached_property
    def identity(self) -> str:
        """Tells this project from others of its name, elsewhere or later. Its copies have it as well."""
        first = self._rows("select at, payload from events order by seq limit 1")
        return hashlib.sha256(json.dumps(first).encode()).hexdigest()[:16]

    def project(self) -> Project:
        """Model, prompts and settings as they are now. ValueError where one cannot be understood any more.

        Without what another version kept there besides: a project is not lost to a setting that is gone.
        """
        model, prompts, settings = (self._last_event(kind) for kind in ("model", "prompts", "settings"))
        if model is None or prompts is None or settings is None:
            raise ValueError(f"{self.folder} is an unfinished project. Move it away, or choose another name.")
        try:
            return Project(
                model=self._located(ModelRef.model_validate(model["model"], extra="ignore")),
                pipeline=model.get("pipeline"),
                download=model["download"],
                prompts=tuple(prompts),
                settings=LoopSettings.stored(settings),
                launcher=self._launcher(),
            )
        except (ValidationError, LookupError, TypeError, AttributeError) as error:
            # Others may have made it, and one such project must not take its neighbours along.
            why = first_fault(error) if isinstance(error, ValidationError) else f"{error!r}."
            raise ValueError(f"{self.folder / DATABASE} cannot be read as a project: {why}") from error

    def _located(self, model: ModelRef) -> ModelRef:
        """With the path of the model that ships, in a project that has it."""
        # Earlier versions kept its path of then, and nothing else to know it by: the end of the path does.
        moved = Path(model.source).parts[-2:] == ("data", "starter") and not os.path.exists(model.source)
        if self._starter is None or not (moved or model.source == STARTER):
            return model
        return model.model_copy(update={"source": str(self._starter)})

    def set_model(self, model: ModelRef, *, download: bool, by: str) -> None:
        """The model from now on. The one that ships is kept by name, since it moves with this program."""
        source = STARTER if model.source == str(self._starter) else model.source
        kept = model.model_copy(update={"source": source})
        # Said once it can be seen: when the model has moved, it can no longer be.
        pipeline = model.pipeline or (self._last_event("model") or {}).get("pipeline")
        payload = {"model": kept.model_dump(mode="json"), "pipeline": pipeline, "download": download}
        self._write(lambda: self._append_event("model", payload, by))

    def prompts_version(self) -> int:
        """A number that changes whenever the prompts do."""
        return int(self._rows("select max(seq) as seq from events where kind = 'prompts'")[0]["seq"])

    def set_prompts(self, prompts: Sequence[str], *, by: str, version: int | None = None) -> int:
        """The new version. ValueError where `version` is given and somebody changed the prompts since."""

        def write() -> int:
            last = self._first("events", "kind = ?", ["prompts"], order_by="seq desc")
            if last is not None and last["payload"] == _as_payload(list(prompts)):
                # Sent once more, since the answer was lost.
                return int(last["seq"])
            if version is not None and last is not None and last["seq"] != version:
                raise ValueError(
                    "The prompts were changed elsewhere since this page loaded them, so nothing was saved. "
                    "Copy what you added, reload the page and save again."
                )
            self._append_event("prompts", list(prompts), by)
            written = self._first("events", "kind = ?", ["prompts"], order_by="seq desc")
            assert written is not None
            return int(written["seq"])

        return self._write(write)

    def set_settings(self, settings: LoopSettings, *, by: str) -> None:
        self._write(lambda: self._append_event("settings", settings.model_dump(mode="json"), by))

    def set_launcher(self, launcher: Launcher, *, by: str) -> None:
        payload = {**launcher.model_dump(mode="json"), "seal": self._seal(launcher.command)}
        self._write(lambda: self._append_event("launcher", payload, by))

    def _launcher(self) -> Launcher:
        said = dict(self._last_event("launcher") or {})
        # A project that somebody sent must not start programs of its own choice.
        if not self._is_own(said):
            said.pop("command", None)
        return Launcher.model_validate(said, extra="ignore")

    def require_own_launcher(self) -> None:
        """ValueError where a launch command was entered elsewhere: without it runs would start on this
        machine, as on the login node of a cluster."""
        said = self._last_event("launcher") or {}
        if said.get("command") and not self._is_own(said):
            raise ValueError(
                "How runs are started was entered on another machine, in another folder or before an update, "
                "so it does not count here. Enter the launch command in Setup, or save it empty; then resume."
            )

    def _is_own(self, launcher: Mapping[str, Any]) -> bool:
        return bool(launcher.get("seal") == self._seal(launcher.get("command")))

    def _seal(self, command: Any) -> str:
        """Says that this command was entered on this machine, in this folder.

        The command is in it, since a seal may come back with a project that was given away.
        """
        told = json.dumps([platform.node(), str(self.folder), command])
        return hmac.new(self.launch_key, told.encode(), hashlib.sha256).hexdigest()

    def events(self) -> list[dict[str, Any]]:
        """Who decided what, when: settings, model, prompts and the current round, oldest first."""
        rows = self._rows("select seq, at, by, kind, payload from events order by seq")
        return [{**row, "payload": json.loads(row["payload"])} for row in rows]


def _as_payload(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
