"""Who gets which pair next. Knows people and pairs; knows no web page and no database.

A person holds the next few pairs for a short while, so that two people do not judge the same ones.
Leases live in memory: after a restart of the server every page says what it has, and a label for a pair
that someone else got meanwhile is still kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from random import Random, SystemRandom

from annotator import jobs, ordering
from annotator.rows import Order, PairState, ShownPair
from annotator.store import FactCounts, Store

LEASE_S = 120.0
PAIRS_PER_PERSON = 10


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What one person has before them."""

    pairs: list[ShownPair]
    with_others: int
    """Open pairs that other people hold right now."""
    holders: frozenset[str] = frozenset()
    """Those people."""


class Assignments:
    """Leases on the pairs of one project."""

    def __init__(
        self,
        store: Store,
        *,
        pairs_per_person: int = PAIRS_PER_PERSON,
        clock: Callable[[], float] = time.monotonic,
        chance: Random | None = None,
    ) -> None:
        self._store = store
        self._pairs_per_person = pairs_per_person
        self._clock = clock
        self._chance = chance or SystemRandom()
        self._lock = threading.Lock()
        self._leases: dict[str, tuple[str, float]] = {}
        self._words = FactCounts(lambda pair: ordering.words(pair.prompt) if pair.answered_by else ())

    def next_pairs(self, person: str, *, holding: Iterable[str] = ()) -> Queue:
        """The pairs this person holds, renewed, and filled up in the project's order.

        What a page has but somebody else holds is not among them: two people never hold one pair.
        """
        with self._lock:
            self._forget_stale()
            others = {pair: holder for pair, (holder, _) in self._leases.items() if holder != person}
            own = dict.fromkeys(pair for pair, (holder, _) in self._leases.items() if holder == person)
            page = list(dict.fromkeys((*holding, *own)))
            # Not all pairs of the project: this is done at every refill, and others wait for it.
            asked = {
                pair: state
                for pair, state in self._store.states_of((*page, *others)).items()
                if _is_askable(state, person)
            }
            # Of what a page names and holds no more, others may have answered some meanwhile.
            had = [
                pair
                for pair in page
                if pair in asked and pair not in others and (pair in own or not asked[pair].judged)
            ]
            held = {*others, *had}
            wanted = max(0, self._pairs_per_person - len(had))
            chosen = self._chosen(wanted, lambda pair: pair.id not in held and _is_askable(pair, person))
            kept = [*had[: self._pairs_per_person], *chosen]
            self._release(person)
            self._leases.update(dict.fromkeys(kept, (person, self._clock() + LEASE_S)))
        taken = {pair: holder for pair, holder in others.items() if pair in asked and not asked[pair].judged}
        return Queue(
            pairs=self._store.show_pairs(kept, to=person, chosen=chosen),
            with_others=len(taken),
            holders=frozenset(taken.values()),
        )

    def _chosen(self, count: int, fits: Callable[[PairState], bool]) -> dict[str, str]:
        """So many pairs in the project's order, and how each was chosen."""
        if count == 0:
            return {}
        store, order = self._store, self._store.order()
        # What somebody has judged is asked again in one order alone.
        pairs = store.pair_states() if order == "disagreement" else store.unjudged_states()
        found = ordering.next_of(pairs, order, self._known(order), self._chance, fits=fits)
        return {pair.id: how for pair, how in islice(found, count)}

    def _known(self, order: Order) -> ordering.Known:
        if order == "diverse":
            return ordering.Known(words_seen=self._store.tallied(self._words))
        if order == "uncertain":
            return ordering.Known(margins=jobs.open_margins(self._store))
        if order == "disagreement":
            return ordering.Known(contradicted=frozenset(jobs.contradicted_pairs(self._store)))
        return ordering.Known()

    def release(self, person: str) -> None:
        """Give back what this person holds, as when their page closes."""
        with self._lock:
            self._release(person)

    def _release(self, person: str) -> None:
        self._leases = {pair: held for pair, held in self._leases.items() if held[0] != person}

    def _forget_stale(self) -> None:
        now = self._clock()
        self._leases = {pair: held for pair, held in self._leases.items() if held[1] > now}


def _is_askable(pair: PairState, person: str) -> bool:
    return person not in pair.answered_by and not pair.withdrawn
