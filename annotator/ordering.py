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
Rank = Callable[[Sequence[PairState]], tuple[PairState, Chosen] | None]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an order may go by."""

    answered_prompts: Iterable[str] = ()
    margins: Mapping[str, float] = field(default_factory=dict)
    """Of the current judge for open pairs."""
    contradicted: frozenset[str] = frozenset()
    """Pairs in which the current judge contradicts people."""


def next_of(
    pairs: Sequence[PairState], order: Order, known: Known, chance: Random
) -> Iterator[tuple[PairState, Chosen]]:
    """Pairs to show, the next one first, and how each was chosen; open ones until there are none left."""
    left = list(pairs)
    rank = _ranks(order, known, chance)
    while left:
        ranked = rank(left) if chance.random() >= RANDOM_SHARE else None
        if ranked is None:
            by_lot = [pair for pair in left if not pair.judged]
            # Where all are answered, what is disputed can still be asked.
            ranked = (chance.choice(by_lot), "random") if by_lot else rank(left)
        if ranked is None:
            return
        left.remove(ranked[0])
        yield ranked


def _ranks(order: Order, known: Known, chance: Random) -> Rank:
    if order == "diverse":
        return _diverse(Counter(word for prompt in known.answered_prompts for word in words(prompt)), chance)
    if order == "uncertain":
        return lambda pairs: _uncertain(pairs, known.margins)
    if order == "disagreement":
        return lambda pairs: _disagreement(pairs, known.contradicted, chance)
    return lambda pairs: None


def words(prompt: str) -> set[str]:
    return set(re.findall(r"\w+", prompt.casefold()))


def _diverse(seen: Counter[str], chance: Random) -> Rank:
    def rank(pairs: Sequence[PairState]) -> tuple[PairState, Chosen] | None:
        unanswered = [pair for pair in pairs if not pair.judged]
        if not unanswered:
            return None
        some = chance.sample(unanswered, min(len(unanswered), MAX_COMPARED))
        best = min(some, key=lambda pair: _familiarity(words(pair.prompt), seen))
        seen.update(words(best.prompt))
        return best, "diverse"

    return rank


def _familiarity(own: set[str], seen: Counter[str]) -> float:
    return sum(seen[word] for word in own) / max(1, len(own))


def _uncertain(pairs: Sequence[PairState], margins: Mapping[str, float]) -> tuple[PairState, Chosen] | None:
    asked = [pair for pair in pairs if not pair.judged and pair.id in margins]
    return (min(asked, key=lambda pair: abs(margins[pair.id])), "uncertain") if asked else None


def _disagreement(
    pairs: Sequence[PairState], contradicted: frozenset[str], chance: Random
) -> tuple[PairState, Chosen] | None:
    answered = [pair for pair in pairs if pair.judged]
    disputed = [pair for pair in answered if pair.disputed or pair.id in contradicted]
    if disputed:
        return chance.choice(disputed), "disagreement"
    if answered and chance.random() < OVERLAP:
        return chance.choice(answered), "overlap"
    return None
