"""Blind comparisons of two rounds, and what people said of them. Knows nothing of training: none of it is
learned from.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from annotator.rows import Answer, Match, PastLabel, Run, ShownPair, Tally
from annotator.store.base import Base


class Comparisons(Base):
    """Part of Store."""

    def take_in_comparisons(self, run: Run, match: Match, *, per_prompt: int) -> None:
        """Pair the candidates of a compare run by their noise; the first look's are `one`. Idempotent."""
        found = self._rows(
            """
            select a.id as one, b.id as two from candidates a
            join candidates b on (b.run, b.prompt_index, b.number) = (a.run, a.prompt_index, a.number + :per)
            where a.run = :run and a.number < :per and a.id not in (select one from comparisons)
            order by a.prompt_index, a.number
            """,
            run=run.id,
            per=per_prompt,
        )
        rounds = {"run": run.id, "one_round": match.one, "two_round": match.two}
        rows = [{"id": secrets.token_urlsafe(12), **rounds, **pair} for pair in found]
        if rows:
            self._write(lambda: self._writing.table("comparisons").insert_all(rows, ignore=True) and None)

    def images_of(self, run: Run) -> list[str]:
        """Ids of a run's candidates, prompt by prompt, in their order."""
        sql = "select id from candidates where run = :run order by prompt_index, number"
        return [row["id"] for row in self._rows(sql, run=run.id)]

    def comparisons_drawn(self, match: Match) -> int:
        sql = "select count(*) as n from comparisons where one_round = :one and two_round is :two"
        return int(self._rows(sql, one=match.one, two=match.two)[0]["n"])

    def open_comparisons(self, match: Match, *, to: str, limit: int) -> list[ShownPair]:
        """What this person has not answered yet, in order; sides are drawn once for a person, and kept."""
        rows = self._rows(
            """
            select id from comparisons
            where one_round = :one and two_round is :two
              and id not in (select comparison from standing_comparison_answers where person = :person)
            order by ordinal limit :limit
            """,
            one=match.one,
            two=match.two,
            person=to,
            limit=limit,
        )
        ids = [row["id"] for row in rows]
        shown = self._shown_comparisons(ids, to)
        if missing := [one for one in ids if one not in shown]:
            self._write(lambda: self._draw_sides(missing, to))
            shown = self._shown_comparisons(ids, to)
        return [shown[one] for one in ids]

    def _draw_sides(self, ids: Sequence[str], person: str) -> None:
        for comparison in ids:
            images = self._first("comparisons", "id = ?", [comparison])
            assert images is not None
            left = secrets.choice((images["one"], images["two"]))
            row = {"comparison": comparison, "person": person, "left": left, "at": time.time()}
            self._writing.table("comparison_sides").insert(row, ignore=True)

    def _shown_comparisons(self, ids: Sequence[str], person: str) -> dict[str, ShownPair]:
        rows = self._rows(
            """
            select c.id, prompt, s.left, iif(s.left = one, two, one) as right
            from comparisons c join comparison_sides s on s.comparison = c.id and s.person = :person
            join candidates on candidates.id = one
            where c.id in (select value from json_each(:ids))
            """,
            person=person,
            ids=json.dumps(list(ids)),
        )
        return {row["id"]: ShownPair(**row) for row in rows}

    def record_comparison_answers(self, answers: Sequence[Answer], *, by: str) -> list[str | None]:
        """Keep answers in their order, in one transaction. For each: None, or why it was refused.

        `pair` of an answer is the comparison; a repeat of the same uuid changes nothing.
        """
        return self._write(lambda: [self._record_comparison(answer, by) for answer in answers])

    def _record_comparison(self, answer: Answer, person: str) -> str | None:
        known = self._first("comparison_answers", "uuid = ?", [answer.uuid])
        if known is not None:
            return None if known["person"] == person else "This answer's id was used by someone else."
        if answer.value == "undo":
            mine = "uuid = ? and person = ? and value != 'undo'"
            about = self._first("comparison_answers", mine, [answer.undoes, person])
            if about is None:
                return "There is no such answer of yours to undo."
        else:
            about = self._first("comparison_sides", "comparison = ? and person = ?", [answer.pair, person])
            if about is None:
                return "This comparison was never shown to you."
        row = {
            "uuid": answer.uuid, "comparison": about["comparison"], "person": person,
            "value": answer.value, "left": about["left"], "elapsed_ms": answer.elapsed_ms,
            "undoes": answer.undoes, "at": time.time(),
        }  # fmt: skip
        self._append("comparison_answers", row)
        return None

    def last_comparison_answers(self, match: Match, person: str, limit: int) -> list[PastLabel]:
        """The newest answers of this person that stand, oldest first: what undo goes back through."""
        rows = self._rows(
            """
            select uuid, comparison as pair, value
            from standing_comparison_answers a join comparisons c on c.id = a.comparison
            where person = :person and one_round = :one and two_round is :two
            order by seq desc limit :limit
            """,
            person=person,
            one=match.one,
            two=match.two,
            limit=limit,
        )
        shown = self._shown_comparisons([row["pair"] for row in rows], person)
        return [PastLabel(**{**row, "pair": shown[row["pair"]]}) for row in reversed(rows)]

    def comparisons_answered(self, match: Match, person: str) -> int:
        """How many this person is through with, skipped ones included."""
        sql = """
            select count(*) as n from standing_comparison_answers a join comparisons c on c.id = a.comparison
            where person = :person and one_round = :one and two_round is :two
        """
        return int(self._rows(sql, person=person, one=match.one, two=match.two)[0]["n"])

    def tallies(self, match: Match) -> list[Tally]:
        """What each person said in a match, whoever began first in front."""
        rows = self._rows(
            """
            select person, sum(value = 'tie') as ties,
                   sum(value != 'tie' and (value = 'left') = (left = one)) as wins,
                   sum(value != 'tie' and (value = 'left') != (left = one)) as losses
            from standing_comparison_answers a join comparisons c on c.id = a.comparison
            where value != 'skip' and one_round = :one and two_round is :two
            group by person order by min(seq)
            """,
            one=match.one,
            two=match.two,
        )
        return [Tally(**row) for row in rows]

    def record_result_asked(self, match: Match, *, answered: int, by: str) -> None:
        """That someone looked at the figure before the planned number of answers."""
        payload = {"one": match.one, "two": match.two, "answered": answered}
        self._write(lambda: self._append_event("comparison_result_asked", payload, by))

    def comparison_history(self) -> list[dict[str, Any]]:
        """Every answer and undo as it came in, oldest first."""
        return self._rows("select * from comparison_answers order by seq")
