"""In which order pairs come. Knows prompts, margins and disputes; knows no database and no lease.

random        by lot
diverse       prompts whose words have been seen least
uncertain     the judge's probability nearest to a half, where it has been asked
disagreement  pairs on which people, or the judge and people, disagree; and some that somebody else answered
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from annotator.rows import Order, PairState

RANDOM_SHARE = 0.2
"""So many pairs come by lot in every order, so that the sample stays honest."""
OVERLAP = 0.1
"""Share of pairs in `disagreement` that somebody else has answered: else nobody could disagree."""
MAX_COMPARED = 300
"""Pairs whose prompts are compared for the next one; more of them, and a lot chooses."""

Chosen = Literal["random", "diverse", "uncertain", "disagreement", "overlap"]
Fits = Callable[[PairState], bool]
Rank = Callable[[], tuple[PairState, Chosen] | None]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an order may go by."""

    words_seen: Mapping[str, int] = field(default_factory=dict)
    """In how many prompts that people answered each word is."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Of the current judge for open pairs."""
    contradicted: frozenset[str] = frozenset()
    """Pairs in which the current judge contradicts people."""


class Lot:
    """Pairs of which some come up by lot. Whether one fits is asked only of those that do: of many thousand
    pairs a refill looks at a few."""

    def __init__(self, pairs: Iterable[PairState], fits: Fits, chance: Random) -> None:
        self._left = list(pairs)
        self._fits = fits
        self._chance = chance

    def some(self, count: int) -> list[PairState]:
        """So many that fit, or all where there are fewer. They stay in."""
        left, found = self._left, 0
        while found < min(count, len(left)):
            place = self._chance.randrange(found, len(left))
            if self._fits(left[place]):
                left[found], left[place] = left[place], left[found]
                found += 1
            else:
                # What does not fit will not later: its place is taken by the last.
                left[place] = left[-1]
                left.pop()
        return left[:found]


def next_of(
    pairs: Sequence[PairState],
    order: Order,
    known: Known,
    chance: Random,
    *,
    fits: Fits = lambda _: True,
) -> Iterator[tuple[PairState, Chosen]]:
    """Pairs to show, the next one first, and how each was chosen; open ones until there are none left.

    Pairs that do not fit never come.
    """
    given: set[str] = set()

    def waits(pair: PairState) -> bool:
        return pair.id not in given and fits(pair)

    unjudged = Lot(pairs, lambda pair: not pair.judged and waits(pair), chance)
    rank = _rank(order, known, pairs, unjudged, waits, chance)
    while True:
        ranked = rank() if chance.random() >= RANDOM_SHARE else None
        if ranked is None:
            by_lot = unjudged.some(1)
            # Where all are answered, what is disputed can still be asked.
            ranked = (by_lot[0], "random") if by_lot else rank()
        if ranked is None:
            return
        given.add(ranked[0].id)
        yield ranked


def _rank(
    order: Order, known: Known, pairs: Sequence[PairState], unjudged: Lot, waits: Fits, chance: Random
) -> Rank:
    if order == "diverse":
        return _diverse(unjudged, Counter(known.words_seen))
    if order == "uncertain":
        return _uncertain(pairs, known.margins, lambda pair: not pair.judged and waits(pair))
    if order == "disagreement":
        return _disagreement(pairs, known.contradicted, waits, chance)
    return lambda: None


def words(prompt: str) -> set[str]:
    return set(re.findall(r"\w+", prompt.casefold()))


def _diverse(unjudged: Lot, seen: Counter[str]) -> Rank:
    def rank() -> tuple[PairState, Chosen] | None:
        some = unjudged.some(MAX_COMPARED)
        if not some:
            return None
        best = min(some, key=lambda pair: _familiarity(words(pair.prompt), seen))
        seen.update(words(best.prompt))
        return best, "diverse"

    return rank


def _familiarity(own: set[str], seen: Counter[str]) -> float:
    return sum(seen[word] for word in own) / max(1, len(own))


def _uncertain(pairs: Sequence[PairState], margins: Mapping[str, float], waits: Fits) -> Rank:
    asked = [pair for pair in pairs if pair.id in margins]
    nearest = iter(sorted(asked, key=lambda pair: (abs(margins[pair.id]), pair.ordinal)))

    def rank() -> tuple[PairState, Chosen] | None:
        found = next(filter(waits, nearest), None)
        return (found, "uncertain") if found else None

    return rank


def _disagreement(
    pairs: Sequence[PairState], contradicted: frozenset[str], waits: Fits, chance: Random
) -> Rank:
    judged = [pair for pair in pairs if pair.judged]
    answered = Lot(judged, waits, chance)
    disputed = Lot((pair for pair in judged if pair.disputed or pair.id in contradicted), waits, chance)

    def rank() -> tuple[PairState, Chosen] | None:
        if found := disputed.some(1):
            return found[0], "disagreement"
        if (found := answered.some(1)) and chance.random() < OVERLAP:
            return found[0], "overlap"
        return None

    return rank
