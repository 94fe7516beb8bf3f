"""Runs and rounds: what was asked for, what became of it. Knows no process and no run folder's inside."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotator.rows import Job, Run, RunEvent
from annotator.store.base import Base
from annotator.store.files import run_folder_of
from sail.rounds import Round


class Runs(Base):
    """Part of Store."""

    def run_folder(self, run: Run) -> Path:
        """Where a run lies. Outside where that is no run folder of this project."""
        return run_folder_of(self.folder, run.folder)

    def next_run_id(self) -> int:
        return int(self._rows("select coalesce(max(id), 0) + 1 as next from runs")[0]["next"])

    def record_run(
        self,
        number: int,
        job: Job,
        *,
        round_number: int,
        folder: str,
        by: str,
        facts: Mapping[str, Any] | None = None,
    ) -> Run:
        """A new run, waiting for its turn. `facts` are what was known when it was asked for."""
        row = {"id": number, "job": job, "round": round_number, "folder": folder, "at": time.time(), "by": by}

        def change() -> None:
            self._append("runs", row)
            self._append_run_event(number, "queued", by, dict(facts or {}))

        self._write(change)
        return self.run(number)

    def record_run_event(self, run: int, what: RunEvent, *, by: str = "", **payload: Any) -> None:
        self._write(lambda: self._append_run_event(run, what, by, payload))

    def _append_run_event(self, run: int, what: RunEvent, by: str, payload: dict[str, Any]) -> None:
        row = {"run": run, "what": what, "at": time.time(), "by": by, "payload": json.dumps(payload)}
        self._append("run_events", row)

    def run_history(self, run: Run) -> list[dict[str, Any]]:
        """Every event of a run as it came in, oldest first."""
        rows = self._rows("select * from run_events where run = :run order by seq", run=run.id)
        return [{**row, "payload": json.loads(row["payload"])} for row in rows]

    def resumed_runs(self) -> set[int]:
        """Numbers of the runs that were queued more than once."""
        rows = self._rows("select run from run_events where what = 'queued' group by run having count(*) > 1")
        return {row["run"] for row in rows}

    def runs(self) -> list[Run]:
        """Asked for several times a poll, so they are read again only when something happened to one."""
        seq = int(self._rows("select coalesce(max(seq), 0) as seq from run_events")[0]["seq"])
        return list(self._kept("runs", seq, self._read_runs))

    def _read_runs(self) -> list[Run]:
        return [_run(row) for row in self._rows("select * from standing_runs order by id")]

    def run(self, number: int) -> Run:
        # SQLite has no larger numbers, and an address may name any.
        known = number.bit_length() < 64
        rows = known and self._rows("select * from standing_runs where id = :number", number=number)
        if not rows:
            raise KeyError(f"There is no run {number} in {self.name}.")
        return _run(rows[0])

    # Rounds

    def record_round(self, run: Run, trained: Round, *, by: str) -> None:
        """Keep a trained round and what the gate decided. Idempotent.

        An accepted round becomes current, unless a person made another than its parent current meanwhile.
        """

        def change() -> None:
            if self._first("rounds", "run = ?", [run.id]) is not None:
                return
            if self._first("rounds", "number = ?", [trained.round]) is not None:
                raise ValueError(
                    f"Round {trained.round} was trained by another run meanwhile, and that one counts."
                )
            record = trained.model_dump(mode="json")
            row = {
                "number": trained.round, "run": run.id, "record": json.dumps(record), "at": time.time(),
            }  # fmt: skip
            self._append("rounds", row)
            decision = {"round": trained.round, "accepted": trained.accepted}
            self._append_event("gate", {**decision, "reasons": list(trained.reasons)}, by)
            if trained.accepted and self._current_in_write() == trained.parent:
                why = {"round": trained.round, "why": "accepted by the gate"}
                self._append_event("current_round", why, by)

        self._write(change)

    def _current_in_write(self) -> int | None:
        found = self._first("events", "kind = ?", ["current_round"], order_by="seq desc")
        return json.loads(found["payload"])["round"] if found else None

    def rounds(self) -> list[Round]:
        """Trained rounds in order, their adapters as absolute paths."""
        rows = self._rows(
            "select record, folder from rounds join runs on runs.id = rounds.run order by number"
        )
        trained = [(Round.model_validate_json(row["record"], extra="ignore"), row["folder"]) for row in rows]
        return [
            round_.model_copy(update={"adapter": str(self.folder / "runs" / folder / round_.adapter)})
            for round_, folder in trained
        ]

    def training_facts(self) -> dict[int, dict[str, Any]]:
        """Round -> what its training was asked for with, and by whom."""
        rows = self._rows(
            """
            select rounds.number, e.by, e.payload from rounds join run_events e on e.run = rounds.run
            where e.seq = (select min(o.seq) from run_events o where o.run = rounds.run)
            """
        )
        return {row["number"]: {**json.loads(row["payload"]), "by": row["by"]} for row in rows}

    def run_of(self, trained: Round) -> Run:
        """The run that trained a round."""
        (row,) = self._rows("select run from rounds where number = :number", number=trained.round)
        return self.run(row["run"])

    def current_round(self) -> Round | None:
        """The round that the loop goes on from; None is the base model."""
        chosen = self._last_event("current_round")
        if chosen is None:
            return None
        return next((round_ for round_ in self.rounds() if round_.round == chosen["round"]), None)

    def make_current(self, number: int | None, *, by: str) -> None:
        """Go on from a round, accepted or not, or from the base model: None."""
        if number is not None and number not in [round_.round for round_ in self.rounds()]:
            raise ValueError(f"There is no round {number} in {self.name}.")
        payload = {"round": number, "why": "chosen by a person"}
        self._write(lambda: self._append_event("current_round", payload, by))


def _run(row: dict[str, Any]) -> Run:
    fields = Run.__dataclass_fields__
    return Run(**{**{key: row[key] for key in fields}, "payload": json.loads(row["payload"])})
