"""Who gets which pair next. Knows people and pairs; knows no web page and no database.

A person holds the next few pairs for a short while, so that two people do not judge the same ones.
Leases live in memory: after a restart of the server everybody simply takes new ones, and a label for a
pair that someone else got meanwhile is still kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from annotator.rows import ShownPair
from annotator.store import Store

LEASE_S = 120.0
PAIRS_PER_PERSON = 10


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What one person has before them."""

    pairs: list[ShownPair]
    with_others: int
    """Open pairs that other people hold right now."""


class Assignments:
    """Leases on the pairs of one project."""

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float = LEASE_S,
        pairs_per_person: int = PAIRS_PER_PERSON,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        self._pairs_per_person = pairs_per_person
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, tuple[str, float]] = {}

    def next_pairs(self, person: str) -> Queue:
        """The pairs this person holds, filled up and renewed; first drawn, first shown."""
        with self._lock:
            self._forget_stale()
            with_others = sum(holder != person for holder, _ in self._leases.values())
            open_pairs = self._store.open_pairs(person, self._pairs_per_person + with_others)
            free = [pair for pair, _ in open_pairs if self._holder(pair) in (None, person)]
            taken = sum(self._holder(pair) not in (None, person) for pair, _ in open_pairs)
            chosen = free[: self._pairs_per_person]
            self._release(person)
            expires_at = self._clock() + self._lease_s
            self._leases.update(dict.fromkeys(chosen, (person, expires_at)))
        return Queue(pairs=self._store.show_pairs(chosen, to=person), with_others=taken)

    def release(self, person: str) -> None:
        """Give back what this person holds, as when their page closes."""
        with self._lock:
            self._release(person)

    def _holder(self, pair: str) -> str | None:
        held = self._leases.get(pair)
        return held[0] if held else None

    def _release(self, person: str) -> None:
        self._leases = {pair: held for pair, held in self._leases.items() if held[0] != person}

    def _forget_stale(self) -> None:
        now = self._clock()
        self._leases = {pair: held for pair, held in self._leases.items() if held[1] > now}
