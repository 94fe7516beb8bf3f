"""What people's labels come to, pair by pair. Knows what stands; knows nothing of how it came in.

Asked for at every answer and every poll, so it is kept in memory and only pairs with new events are read
again: a label costs the same with ten thousand before it as with ten.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotator.rows import PairState
from annotator.store.base import Base


class Standing(Base):
    """Part of Store."""

    def __init__(self, folder: Path | str, *, starter: Path | None = None) -> None:
        self._standing: dict[str, PairState] = {}
        self._seen = (-1, 0, 0)
        self._standing_lock = threading.Lock()
        super().__init__(folder, starter=starter)

    def pair_states(self) -> list[PairState]:
        """Every drawn pair with what stands of its labels, in the order in which they were drawn."""
        with self._standing_lock:
            self._look_again()
            return list(self._standing.values())

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
            "select pairs.id, ordinal, prompt from pairs join candidates on candidates.id = one "
            "where ordinal > :ordinal order by ordinal",
            ordinal=ordinal,
        )
        for row in pairs:
            self._standing[row["id"]] = PairState(**row)
        for pair in {row["pair"] for row in events}:
            self._standing[pair] = _with_labels(self._standing[pair], self._labels_of(pair))
        for row in withdrawn:
            self._standing[row["pair"]] = replace(self._standing[row["pair"]], withdrawn=True)
        self._seen = (
            pairs[-1]["ordinal"] if pairs else ordinal,
            events[-1]["seq"] if events else seq,
            withdrawn[-1]["seq"] if withdrawn else event,
        )

    def withdraw_pair(self, pair: str, *, why: str, by: str) -> None:
        """Nobody is asked about it from now on. What people said of it stays; again it changes nothing."""

        def write() -> None:
            known = "kind = 'pair_withdrawn' and json_extract(payload, '$.pair') = ?"
            if self._first("events", known, [pair]) is None:
                self._append_event("pair_withdrawn", {"pair": pair, "why": why}, by)

        self._write(write)

    def _labels_of(self, pair: str) -> list[dict[str, Any]]:
        return self._rows(
            "select person, value, s.left = one as one_left from standing_labels s "
            "join pairs on pairs.id = :pair where s.pair = :pair",
            pair=pair,
        )


def _with_labels(state: PairState, labels: list[dict[str, Any]]) -> PairState:
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
