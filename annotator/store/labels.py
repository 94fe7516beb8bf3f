"""Candidates, pairs, and what people said of them. Knows nothing of what is learned from it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, get_args

from annotator.rows import Answer, Job, PastLabel, Run, ShownPair
from annotator.store.files import image_of
from annotator.store.standing import Standing
from sail.records import CandidateSet, SelfPair

FEW_LABELS = 5
"""Answers before which nothing is said of how long one takes."""
RECENT_LABELS = 20


class Labels(Standing):
    """Part of Store."""

    # Candidates and pairs

    def taken_in(self, run: Run) -> set[int]:
        """Prompt indices whose candidates are here already."""
        rows = self._rows("select distinct prompt_index from candidates where run = :run", run=run.id)
        return {row["prompt_index"] for row in rows}

    def count_taken_in(self, run: Run) -> int:
        """Of how many prompts the candidates are here."""
        sql = "select count(distinct prompt_index) as found from candidates where run = :run"
        return int(self._rows(sql, run=run.id)[0]["found"])

    def take_in_candidates(self, run: Run, sets: Iterable[CandidateSet]) -> None:
        """Record the candidates of finished prompts, and for a draw run the pairs to label.

        Idempotent: prompts that are here already are left as they are.
        """

        def change() -> None:
            for found in sets:
                self._insert_candidates(run, found)

        self._write(change)

    def _insert_candidates(self, run: Run, found: CandidateSet) -> None:
        known = self._writing.table("candidates")
        if known.count_where("run = ? and prompt_index = ?", [run.id, found.prompt_index]):
            return
        ids = [secrets.token_urlsafe(16) for _ in found.candidates]
        for uid, candidate in zip(ids, found.candidates, strict=True):
            row = {
                "id": uid, "run": run.id, "prompt_index": found.prompt_index, "prompt": found.prompt,
                "number": candidate.index, "image": candidate.image, "latents": found.latents,
            }  # fmt: skip
            self._append("candidates", row)
        if run.job == "draw":
            # A folder from before pairs were named has them in their order.
            in_order = zip(range(0, len(ids), 2), range(1, len(ids), 2), strict=False)
            for one, two in found.to_show or in_order:
                self._insert_pair(run, ids[one], ids[two])

    def _insert_pair(self, run: Run, one: str, two: str) -> None:
        ordinal = self._writing.execute("select coalesce(max(ordinal), -1) + 1 from pairs").fetchone()[0]
        row = {"ordinal": ordinal, "id": secrets.token_urlsafe(12), "run": run.id, "one": one, "two": two}
        self._append("pairs", row)

    def take_in_self_pairs(self, run: Run, found: Iterable[SelfPair]) -> None:
        """Record what the judge ranked. Idempotent; the run's candidates have to be here."""
        sql = "select id, prompt_index, number from candidates where run = :run"
        ids = {(row["prompt_index"], row["number"]): row["id"] for row in self._rows(sql, run=run.id)}
        fields = ("prompt_index", "winner_reward", "loser_reward", "margin", "margin_error", "rank")
        rows = [
            {
                **{field: getattr(pair, field) for field in fields},
                "id": secrets.token_urlsafe(12),
                "run": run.id,
                "winner": ids[pair.prompt_index, pair.winner],
                "loser": ids[pair.prompt_index, pair.loser],
            }
            for pair in found
        ]
        self._write(lambda: self._writing.table("self_pairs").insert_all(rows, ignore=True) and None)

    def candidates_of(self, pair: str) -> tuple[str, str]:
        """The ids of a pair's two candidates. KeyError where there is no such pair."""
        rows = self._rows("select one, two from pairs where id = :pair", pair=pair)
        if not rows:
            raise KeyError("There is no such pair.")
        return rows[0]["one"], rows[0]["two"]

    def image_file(self, uid: str) -> Path:
        """Where the image of a candidate lies. KeyError for an id that nobody was given; Outside where it is
        no file of its run."""
        rows = self._rows(
            "select runs.folder, image from candidates join runs on runs.id = run where candidates.id = :uid",
            uid=uid,
        )
        if not rows:
            raise KeyError("There is no such image.")
        return image_of(self.folder, str(rows[0]["folder"]), str(rows[0]["image"]))

    def used_prompts(self, jobs: Collection[Job] = get_args(Job)) -> list[str]:
        """Prompts that candidates were drawn for, oldest use first; by all runs, or those of some jobs."""
        # Estimates ask at every poll, and candidates are only ever added.
        (seen,) = self._rows("select coalesce(max(rowid), 0) as newest from candidates")
        asked = ("used prompts", *jobs)
        return list(self._kept(asked, seen["newest"], lambda: self._read_used_prompts(jobs)))

    def _read_used_prompts(self, jobs: Collection[Job]) -> list[str]:
        rows = self._rows(
            "select prompt from candidates where number = 0 "
            "and run in (select id from runs where job in (select value from json_each(:jobs))) "
            "order by run, prompt_index",
            jobs=json.dumps(list(jobs)),
        )
        return [row["prompt"] for row in rows]

    # Labelling

    def show_pairs(
        self, ids: Sequence[str], *, to: str, chosen: Mapping[str, str] | None = None
    ) -> list[ShownPair]:
        """These pairs as `to` sees them: left and right are drawn once for a person and pair, and kept.

        `chosen` says of new ones how they came to be shown: what was drawn at random can be told apart.
        """
        shown = self._shown(ids, to)
        missing = [pair for pair in ids if pair not in shown]
        if missing:
            self._write(lambda: self._assign(missing, to, chosen or {}))
            shown = self._shown(ids, to)
        return [shown[pair] for pair in ids]

    def _assign(self, ids: Sequence[str], person: str, chosen: Mapping[str, str]) -> None:
        for pair in ids:
            sides = self._first("pairs", "id = ?", [pair])
            assert sides is not None
            left = secrets.choice((sides["one"], sides["two"]))
            assignment = {
                "pair": pair, "person": person, "left": left, "at": time.time(), "chosen": chosen.get(pair),
            }  # fmt: skip
            self._writing.table("assignments").insert(assignment, ignore=True)

    def _shown(self, ids: Sequence[str], person: str) -> dict[str, ShownPair]:
        rows = self._rows(
            """
            select pairs.id, prompt, a.left, iif(a.left = one, two, one) as right
            from pairs join assignments a on a.pair = pairs.id and a.person = :person
            join candidates on candidates.id = one
            where pairs.id in (select value from json_each(:ids))
            """,
            person=person,
            ids=json.dumps(list(ids)),
        )
        return {row["id"]: ShownPair(**row) for row in rows}

    def newest_label(self) -> int:
        """The number of the newest label or undo; 0 before there is one."""
        return int(self._rows("select coalesce(max(seq), 0) as newest from labels")[0]["newest"])

    def decided_up_to(self, label: int, pairs: Sequence[str], *, by: str) -> list[str]:
        """Those of `pairs` of which this person chose the winner that stands, up to that label; in their
        order."""
        states = self.states_of(pairs)
        # Not joined to the view: SQLite would look through all labels of the person for each pair.
        rows = self._rows(
            """
            select pair, value, left from standing_labels
            where pair in (select value from json_each(:pairs)) and person = :by and seq <= :label
            """,
            pairs=json.dumps(list(states)),
            by=by,
            label=label,
        )
        said = {row["pair"]: row for row in rows if row["value"] in ("left", "right")}

        def chose_the_winner(pair: str) -> bool:
            state, own = states.get(pair), said.get(pair)
            if own is None or state is None or not state.has_winner:
                return False
            winner = state.one if state.for_one > state.for_two else state.two
            return bool((own["value"] == "left") == (own["left"] == winner))

        return [pair for pair in pairs if chose_the_winner(pair)]

    def record_answers(self, answers: Sequence[Answer], *, by: str) -> list[str | None]:
        """Keep answers in their order, in one transaction. For each: None, or why it was refused."""
        return self._write(lambda: [self._record(answer, by) for answer in answers])

    def _record(self, answer: Answer, person: str) -> str | None:
        known = self._first("labels", "uuid = ?", [answer.uuid])
        if known is not None:
            return None if known["person"] == person else "This answer's id was used by someone else."
        if answer.value == "undo":
            return self._record_undo(answer, person)
        if answer.value == "reasons":
            return self._record_reasons(answer, person)
        shown = self._first("assignments", "pair = ? and person = ?", [answer.pair, person])
        if shown is None:
            return "This pair was never shown to you."
        self._append("labels", self._label_row(answer, person, answer.pair, shown["left"]))
        return None

    def _record_undo(self, answer: Answer, person: str) -> str | None:
        mine = "uuid = ? and person = ? and value != 'undo'"
        target = self._first("labels", mine, [answer.undoes, person])
        if target is None:
            return "There is no such label of yours to undo."
        row = self._label_row(answer, person, target["pair"], target["left"])
        self._append("labels", {**row, "undoes": answer.undoes})
        return None

    def _record_reasons(self, answer: Answer, person: str) -> str | None:
        known = self._first("reasons", "uuid = ?", [answer.uuid])
        if known is not None:
            return None if known["person"] == person else "This answer's id was used by someone else."
        mine = "uuid = ? and person = ? and value != 'undo'"
        if self._first("labels", mine, [answer.of, person]) is None:
            return "There is no such label of yours to give reasons for."
        row = {
            "uuid": answer.uuid, "label": answer.of, "person": person,
            "reasons": json.dumps(answer.reasons), "text": answer.text, "at": time.time(),
        }  # fmt: skip
        self._append("reasons", row)
        return None

    def _label_row(self, answer: Answer, person: str, pair: str, left: str) -> dict[str, Any]:
        return {
            "uuid": answer.uuid, "pair": pair, "person": person, "value": answer.value, "left": left,
            "elapsed_ms": answer.elapsed_ms, "at": time.time(),
        }  # fmt: skip

    def last_labels(self, person: str, limit: int) -> list[PastLabel]:
        """The newest labels of this person that stand, oldest first: what undo goes back through."""
        rows = self._newest(person, limit)
        shown = self._shown([row["pair"] for row in rows], person)
        why = self.reasons([row["uuid"] for row in rows])
        return [
            PastLabel(
                uuid=row["uuid"],
                pair=shown[row["pair"]],
                value=row["value"],
                reasons=tuple(why[row["uuid"]][0]) if row["uuid"] in why else (),
                text=why[row["uuid"]][1] if row["uuid"] in why else "",
            )
            for row in reversed(rows)
        ]

    def _newest(self, person: str, limit: int) -> list[dict[str, Any]]:
        """The newest of this person's standing_labels, the newest first, without looking through all others:
        it is asked for at every answer."""
        return self._rows(
            """
            select uuid, pair, value, elapsed_ms from labels l
            where person = :person and value != 'undo'
              and not exists (select 1 from labels u where u.undoes = l.uuid)
              and not exists (
                select 1 from labels n
                where n.pair = l.pair and n.person = l.person and n.seq > l.seq and n.value != 'undo'
                  and not exists (select 1 from labels u where u.undoes = n.uuid)
              )
            order by seq desc limit :limit
            """,
            person=person,
            limit=limit,
        )

    def label_history(self) -> list[dict[str, Any]]:
        """Every label and undo as it came in, oldest first."""
        return self._rows("select * from labels order by seq")

    def usual_label_ms(self, person: str) -> float | None:
        """What this person's last answers usually took, pauses left out; None before the first few."""
        rows = self._newest(person, RECENT_LABELS)
        return float(median(row["elapsed_ms"] for row in rows)) if len(rows) >= FEW_LABELS else None
