"""What people's labels come to, pair by pair. Knows what stands; knows nothing of how it came in.

Asked for at every answer and every poll, so it is kept in memory and only pairs with new events are read
and counted again: a label costs the same with ten thousand before it as with ten.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotator.rows import PairState, Reason
from annotator.store.base import Base


class FactCounts:
    """Of how many pairs a fact is true, for each fact that `facts` names of a pair."""

    def __init__(self, facts: Callable[[PairState], Iterable[str]]) -> None:
        self._facts = facts
        self._counted: dict[str, PairState] = {}
        self._changes_seen = 0
        self._sums: Counter[str] = Counter()

    def counted(self, states: Mapping[str, PairState], changes: Sequence[str]) -> Counter[str]:
        """The sums, after what `changes`, the ids of pairs in order of their changes, has that is new."""
        for pair in dict.fromkeys(changes[self._changes_seen :]):
            if pair in self._counted:
                self._sums.subtract(self._facts(self._counted[pair]))
            self._counted[pair] = states[pair]
            self._sums.update(self._facts(states[pair]))
        self._changes_seen = len(changes)
        return self._sums.copy()


class Standing(Base):
    """Part of Store."""

    def __init__(self, folder: Path | str, *, starter: Path | None = None) -> None:
        self._standing: dict[str, PairState] = {}
        self._unjudged: dict[str, PairState] = {}
        self._changes: list[str] = []
        self._seen = (-1, 0, 0)
        self._standing_lock = threading.Lock()
        super().__init__(folder, starter=starter)

    def pair_states(self) -> list[PairState]:
        """Every drawn pair with what stands of its labels, in the order in which they were drawn."""
        with self._standing_lock:
            self._look_again()
            return list(self._standing.values())

    def unjudged_states(self) -> list[PairState]:
        """The pairs that nobody has judged, but those that were withdrawn, in no order."""
        with self._standing_lock:
            self._look_again()
            return list(self._unjudged.values())

    def states_of(self, pairs: Iterable[str]) -> dict[str, PairState]:
        """Those of `pairs` that there are."""
        with self._standing_lock:
            self._look_again()
            return {pair: self._standing[pair] for pair in pairs if pair in self._standing}

    def tallied(self, tally: FactCounts) -> Counter[str]:
        """What a tally comes to now. Only pairs that changed since it was last asked for are counted anew."""
        with self._standing_lock:
            self._look_again()
            return tally.counted(self._standing, self._changes)

    def _look_again(self) -> None:
        ordinal, seq, event = self._seen
        # Labels and events before pairs: every pair that they name is there then.
        events = self._rows("select seq, pair from labels where seq > :seq order by seq", seq=seq)
        withdrawn = self._rows(
            "select seq, json_extract(payload, '$.pair') as pair from events "
            "where kind = 'pair_withdrawn' and seq > :seq order by seq",
            seq=event,
        )
        pairs = self._rows(
            "select pairs.id, ordinal, prompt, one, two from pairs join candidates on candidates.id = one "
            "where ordinal > :ordinal order by ordinal",
            ordinal=ordinal,
        )
        for row in pairs:
            self._stands(PairState(**row))
        labels = self._labels_of({row["pair"] for row in events})
        for pair, said in labels.items():
            self._stands(_with_labels(self._standing[pair], said.values()))
        for row in withdrawn:
            self._stands(replace(self._standing[row["pair"]], withdrawn=True))
        self._seen = (
            pairs[-1]["ordinal"] if pairs else ordinal,
            events[-1]["seq"] if events else seq,
            withdrawn[-1]["seq"] if withdrawn else event,
        )

    def _stands(self, state: PairState) -> None:
        self._standing[state.id] = state
        self._changes.append(state.id)
        if state.judged or state.withdrawn:
            self._unjudged.pop(state.id, None)
        else:
            self._unjudged[state.id] = state

    def withdraw_pair(self, pair: str, *, why: str, by: str) -> None:
        """Nobody is asked about it from now on. What people said of it stays; again it changes nothing."""

        def write() -> None:
            known = "kind = 'pair_withdrawn' and json_extract(payload, '$.pair') = ?"
            if self._first("events", known, [pair]) is None:
                self._append_event("pair_withdrawn", {"pair": pair, "why": why}, by)

        self._write(write)

    def reasons(self, labels: Sequence[str]) -> dict[str, tuple[list[Reason], str]]:
        """What people chose and wrote as their reasons for these labels, by uuid; the last event holds."""
        rows = self._rows(
            "select label, reasons, text from reasons "
            "where label in (select value from json_each(:labels)) order by seq",
            labels=json.dumps(list(labels)),
        )
        return {row["label"]: (json.loads(row["reasons"]), row["text"]) for row in rows}

    def _labels_of(self, pairs: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """Pair -> person -> the label that stands: of all in one query, for after a start these are all.

        Not by the view `standing_labels`, which goes through the labels of all other pairs for one.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {pair: {} for pair in pairs}
        rows = self._rows(
            """
            select l.pair, l.person, l.value, l.left = pairs.one as one_left
            from json_each(:pairs) asked join labels l on l.pair = asked.value join pairs on pairs.id = l.pair
            where l.value != 'undo' and not exists (select 1 from labels u where u.undoes = l.uuid)
            order by l.seq
            """,
            pairs=json.dumps(list(found)),
        )
        for row in rows:
            found[row["pair"]][row["person"]] = row
        return found


def _with_labels(state: PairState, labels: Collection[dict[str, Any]]) -> PairState:
    ones = [
        (row["value"] == "left") == row["one_left"] for row in labels if row["value"] in ("left", "right")
    ]
    judgements = [row["value"] for row in labels if row["value"] != "skip"]
    return replace(
        state,
        answered_by=frozenset(row["person"] for row in labels),
        judged=bool(judgements),
        tied=bool(judgements) and set(judgements) == {"tie"},
        for_one=sum(ones),
        for_two=len(ones) - sum(ones),
    )
